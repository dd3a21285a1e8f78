"""How texts are made ready for a teacher, without the teacher itself: batches are made in other processes.

Three ways, the fastest first. A BERT whose vocabulary holds the student's reads the student's token ids. One with a
vocabulary of its own reads the ids that its tokenizer makes of the text, put together again from the student's. Any
other model reads that text.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Literal

import numpy as np
import tokenizers
from numpy.typing import NDArray

from encoder.errors import CheckpointError
from encoder.tokenizer import TOKENIZER_FILE, Tokenizer
from encoder.training.config import TeacherTable
from encoder.training.rows import WIDTH_MULTIPLE, Ids, TextRows, padded, wrap

Reading = TextRows | list[str]  # what one teacher reads: token ids with its special tokens, or texts
TeacherInput = list[Reading]  # of the same texts, what each teacher reads

_POSITIONS_DEFAULT = 512
_SPECIAL_TOKENS = {"[CLS]": "cls_token", "[SEP]": "sep_token", "[PAD]": "pad_token", "[UNK]": "unk_token"}
_BERTS = ("bert", "mpnet", "roberta", "xlm-roberta")
_COUNT_FROM_PADDING = ("mpnet", "roberta", "xlm-roberta")  # whose positions begin behind the padding's id, 1


@dataclass(frozen=True, slots=True)
class ReadingRules:
    """How texts are made ready for one teacher."""

    kind: Literal["shared ids", "own ids", "text"]
    tokenizer_folder: Path  # the student's
    tokens_max: int  # special tokens included
    start_id: int = 0  # of shared ids, in the student's vocabulary
    end_id: int = 0
    own_tokenizer: Path | None = None

    def ready(self, tokens: Ids, lengths: NDArray[np.int64]) -> Reading:
        """Make texts, ``(b, l)`` ids of the student's tokenizer without special tokens, what the teacher reads."""
        if self.kind == "shared ids":
            room = self.tokens_max - 2
            return wrap(tokens[:, :room], np.minimum(lengths, room), (self.start_id,), self.end_id)
        decode = _tokenizer(self.tokenizer_folder).decode
        texts = [decode(row[:length].tolist()) for row, length in zip(tokens, lengths, strict=True)]
        if self.own_tokenizer is None:
            return texts
        pipeline = _pipeline(self.own_tokenizer, self.tokens_max)
        ids = [found.ids for found in pipeline.encode_batch_fast(texts)]  # special tokens included
        return wrap(*padded(ids), (), None)


@dataclass(frozen=True, slots=True)
class TeacherRules:
    """How texts are made ready for one teacher or several."""

    readings: tuple[ReadingRules, ...]  # of each teacher

    @property
    def tokens_max(self) -> int:
        """Most tokens that any of them reads."""
        return max(reading.tokens_max for reading in self.readings)

    def ready(self, tokens: Ids, lengths: NDArray[np.int64]) -> TeacherInput:
        """Make texts, ``(b, l)`` ids of the student's tokenizer without special tokens, what each teacher reads."""
        found = {reading: reading.ready(tokens, lengths) for reading in dict.fromkeys(self.readings)}
        return [found[reading] for reading in self.readings]


def teacher_rules(table: TeacherTable, tokenizer_folder: Path) -> TeacherRules:
    """Look at teachers' folders; :class:`CheckpointError` where one is not a sentence-transformers model or a BERT."""
    own = vocabulary_of(tokenizer_folder)
    return TeacherRules(tuple(_rules_of(folder, table, tokenizer_folder, own) for folder in table.folder))


def _rules_of(folder: Path, table: TeacherTable, tokenizer_folder: Path, vocabulary: Mapping[str, int]) -> ReadingRules:
    config = read_json(folder / "config.json")
    if not config and not (folder / "modules.json").exists():
        raise CheckpointError(
            f"{folder} has neither modules.json nor config.json; give the folder of a sentence-transformers model."
        )
    positions = config.get("max_position_embeddings") or _POSITIONS_DEFAULT
    if config.get("model_type") in _COUNT_FROM_PADDING:
        positions -= 2
    limits = read_json(folder / "sentence_bert_config.json")
    tokens_max = min(table.tokens_max or limits.get("max_seq_length") or positions, positions)
    own_tokenizer = folder / TOKENIZER_FILE
    if _is_plain_bert(folder, config):
        # What rows of token ids are filled up to has positions, too.
        whole_rows = min(tokens_max, positions - positions % WIDTH_MULTIPLE)
        if token_map(vocabulary, folder) is not None:
            start_id, end_id = vocabulary["[CLS]"], vocabulary["[SEP]"]
            return ReadingRules("shared ids", tokenizer_folder, whole_rows, start_id, end_id)
        if own_tokenizer.exists() and not limits.get("do_lower_case"):
            return ReadingRules("own ids", tokenizer_folder, whole_rows, own_tokenizer=own_tokenizer)
    return ReadingRules("text", tokenizer_folder, tokens_max)


def token_map(vocabulary: Mapping[str, int], folder: Path) -> list[int] | None:
    """Give a teacher's ids of the tokens of a WordPiece ``vocabulary``, by their ids in it; None where one lacks.

    Special tokens may have other names there.
    """
    theirs = vocabulary_of(folder)
    named = read_json(folder / "special_tokens_map.json")

    def name_of(token: str) -> str:
        key = _SPECIAL_TOKENS.get(token)
        found = named.get(key, token) if key else token
        name = found.get("content", token) if isinstance(found, dict) else found
        return name if name in theirs else token

    if not {"[CLS]", "[SEP]"} <= vocabulary.keys() or not all(name_of(token) in theirs for token in vocabulary):
        return None
    return [theirs[name_of(token)] for token in sorted(vocabulary, key=vocabulary.__getitem__)]


def vocabulary_of(folder: Path) -> Mapping[str, int]:
    """Read tokens and their ids, from ``tokenizer.json`` or a BERT's ``vocab.txt``; empty where there is neither."""
    vocabulary = read_json(folder / TOKENIZER_FILE).get("model", {}).get("vocab", {})
    if isinstance(vocabulary, dict) and vocabulary:
        return vocabulary
    path = folder / "vocab.txt"
    if not path.exists():
        return {}
    return {token: number for number, token in enumerate(path.read_text(encoding="utf-8").splitlines())}


def pooling_of(folder: Path) -> Literal["mean", "cls", "other"]:
    """Say how a folder pools; a BERT without a word about it has its mean taken, as sentence-transformers does."""
    found = next((read_json(path) for path in sorted(folder.glob("*_Pooling/config.json"))), {})
    chosen = [key for key, value in found.items() if key.startswith("pooling_mode") and value is True]
    named = found.get("pooling_mode")
    if isinstance(named, str):
        chosen = [f"pooling_mode_{named}"]
    if not chosen or chosen in (["pooling_mode_mean_tokens"], ["pooling_mode_mean"]):
        return "mean"
    return "cls" if chosen in (["pooling_mode_cls_token"], ["pooling_mode_cls"]) else "other"


def read_json(path: Path) -> dict[str, Any]:
    """Read an object; empty where there is no file or something else in it. :class:`CheckpointError` for no JSON."""
    found = _parse(path)
    return found if isinstance(found, dict) else {}


def _is_plain_bert(folder: Path, config: Mapping[str, Any]) -> bool:
    """Tell whether a folder is a BERT with pooling and normalization, and nothing between them."""
    modules = _parse(folder / "modules.json")
    listed = modules if isinstance(modules, list) else []
    kinds = {str(module.get("type")).rpartition(".")[2] for module in listed if isinstance(module, dict)}
    plain = kinds <= {"Transformer", "Pooling", "Normalize"} and pooling_of(folder) in ("mean", "cls")
    return config.get("model_type") in _BERTS and plain


def _parse(path: Path) -> object:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except OSError:
        return None
    except ValueError as error:
        raise CheckpointError(f"{path} is not JSON: {error}.") from error


@cache
def _tokenizer(folder: Path) -> Tokenizer:
    return Tokenizer.load(folder)


@cache
def _pipeline(path: Path, tokens_max: int) -> tokenizers.Tokenizer:
    pipeline: tokenizers.Tokenizer = tokenizers.Tokenizer.from_file(str(path))
    pipeline.no_padding()
    pipeline.enable_truncation(tokens_max)
    return pipeline
