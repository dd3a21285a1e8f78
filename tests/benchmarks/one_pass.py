"""One pass = pieces = append: the largest difference between embeddings of the same document read in different ways.

The default model's weights in float32. A document of real text is read in one call of the plain backbone; in stretches
and pieces cut at random on the fast path; and as a first version that is continued from its stored state, its last
chunk cut anew. The last line gives the largest difference of any component of any embedding (they have length 1).
"""

from __future__ import annotations

import sys
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from encoder.checkpoint import load_model
from encoder.cores import Cores
from encoder.document_reader import DocumentReader, ReadingRules
from encoder.kernels.choosing import prepare
from encoder.model_config import DEFAULT_MODEL_FOLDER
from encoder.tokenizer import Tokenizer

DOCUMENT = Path(__file__).parents[2] / "ARCHITECTURE.md"
CHUNK_TOKENS = 200
ROUNDS = 5
DIFFERENCE_MAX = 1e-4


def main() -> int:
    tokenizer = Tokenizer.load(DEFAULT_MODEL_FOLDER)
    ids = np.array(tokenizer.encode(DOCUMENT.read_text(encoding="utf-8")))
    end_id = tokenizer.token_id("[SEP]")
    assert end_id is not None
    expected = in_one_call(ids, chunk_ends(ids), end_id)
    model = load_model(DEFAULT_MODEL_FOLDER)
    path = prepare(model, torch.float32).name
    generator = np.random.default_rng(0)
    worst = {"pieces": 0.0, "append": 0.0}
    for _ in range(ROUNDS):
        rules = ReadingRules((), end_id, torch.float32, int(generator.integers(1, 700)), "same")
        found = in_stretches(DocumentReader(model, rules, Cores(2)), ids, generator)
        worst["pieces"] = max(worst["pieces"], float(np.abs(found - expected).max()))
        kept = int(generator.integers(1, len(expected)))
        found = appended(model, rules, ids, kept, int(generator.integers(1, CHUNK_TOKENS)))
        worst["append"] = max(worst["append"], float(np.abs(found - expected[kept - 1 :]).max()))
        print(f"pieces of {rules.piece_tokens} tokens, appended to {kept} chunks: {worst}", flush=True)
    largest = max(worst.values())
    passed = largest <= DIFFERENCE_MAX
    print(
        f"{'PASS' if passed else 'FAIL'}: {len(ids)} tokens, {len(expected)} chunks, {path}, float32: largest "
        f"difference {largest:.1e} (at most {DIFFERENCE_MAX:.0e})"
    )
    return 0 if passed else 1


def chunk_ends(ids: NDArray[np.int64]) -> NDArray[np.int64]:
    return np.array([*range(CHUNK_TOKENS, len(ids), CHUNK_TOKENS), len(ids)])


def in_one_call(ids: NDArray[np.int64], ends: NDArray[np.int64], end_id: int) -> NDArray[np.float32]:
    """The whole document in a single call of the backbone as it is trained."""
    model = load_model(DEFAULT_MODEL_FOLDER)
    tokens = torch.from_numpy(np.insert(ids, ends, end_id))
    with torch.inference_mode():
        hidden = model.backbone(tokens[None], torch.float32)[0][0]
        return model.finish(hidden[torch.from_numpy(ends + np.arange(len(ends)))]).numpy()


def in_stretches(reader: DocumentReader, ids: NDArray[np.int64], generator: np.random.Generator) -> NDArray[np.float32]:
    """The document in stretches cut at random."""
    places = [0, *np.unique(generator.integers(1, len(ids), 6)).tolist(), len(ids)]
    ends = chunk_ends(ids)
    parts = []
    for start, stop in pairwise(places):
        parts.append(reader.read(ids[start:stop], ends[(ends > start) & (ends <= stop)] - start))
    return np.concatenate(parts)


def appended(
    model: torch.nn.Module, rules: ReadingRules, ids: NDArray[np.int64], kept: int, shortened: int
) -> NDArray[np.float32]:
    """The last chunks, from the state of a version that had ``kept`` chunks, the last of them shorter."""
    ends = chunk_ends(ids)
    last_start = int(ends[kept - 2]) if kept > 1 else 0
    known = max(last_start + 1, int(ends[kept - 1]) - shortened)
    first = DocumentReader(model, rules, Cores(0), keep_state=True)  # type: ignore[arg-type]
    first.read(ids[:known], [*ends[: kept - 1], known])
    second = DocumentReader(model, rules, Cores(0), state=first.finish())  # type: ignore[arg-type]
    return second.read(ids[last_start:], ends[kept - 1 :] - last_start)


if __name__ == "__main__":
    sys.exit(main())
