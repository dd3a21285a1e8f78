"""Training sets for tests: made in memory from token ids, or prepared from rows written as files."""

import gzip
import json
import lzma
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np

from encoder.model_config import DEFAULT_MODEL_FOLDER
from encoder.training.examples import Groups, TrainingSet, prepare
from encoder.training.sources import SourceConfig
from encoder.training.token_store import RaggedArray, TokenStore

STOP = 7  # the token that ends a sentence in sets made in memory


def write_rows(path: Path, rows: Iterable[Mapping[str, object]]) -> Path:
    """Write JSON rows, compressed as the name says."""
    path.parent.mkdir(parents=True, exist_ok=True)
    text = "".join(json.dumps(row) + "\n" for row in rows)
    if path.suffix == ".xz":
        path.write_bytes(lzma.compress(text.encode()))
    elif path.suffix == ".gz":
        path.write_bytes(gzip.compress(text.encode()))
    else:
        path.write_text(text, encoding="utf-8")
    return path


def prepared(cache: Path, **settings: object) -> TrainingSet:
    """Prepare one source with the default model's tokenizer, in this process."""
    source = SourceConfig.model_validate({"name": "facts"} | settings)
    return prepare([source], DEFAULT_MODEL_FOLDER, cache, processes=1)[0]


def made_set(
    queries: Sequence[Sequence[int]],
    passages: Sequence[Sequence[int]],
    positives: Sequence[Sequence[int]],
    *,
    negatives: Sequence[Sequence[int]] | None = None,
    candidates: Sequence[Sequence[int]] | None = None,
    candidate_scores: Sequence[Sequence[float]] | None = None,
    chunk_ends: Sequence[Sequence[int]] | None = None,
    groups: Sequence[int] | None = None,
) -> TrainingSet:
    """A set of token ids."""

    def ragged(rows: Sequence[Sequence[float]] | None, dtype: type[np.generic]) -> RaggedArray | None:
        return None if rows is None else RaggedArray.of(rows, dtype)

    empty: list[list[int]] = [[] for _ in queries]
    return TrainingSet(
        name="made",
        folder=Path("nowhere"),
        queries=TokenStore.of(queries, np.uint16),
        passages=TokenStore.of(passages, np.uint16),
        groups=Groups(
            RaggedArray.of(positives, np.uint32),
            RaggedArray.of(negatives or empty, np.uint32),
            ragged(candidates, np.uint32),
            ragged(candidate_scores, np.float32),
        ),
        chunk_ends=ragged(chunk_ends, np.uint32),
        passage_groups=np.array(groups if groups is not None else [-1] * len(passages), dtype=np.int32),
        sentence_ends=np.array([STOP]),
    )
