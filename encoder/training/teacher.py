"""A sentence-transformers model as the teacher: what a text's embedding should be.

Two ways to it. A BERT whose vocabulary is the student's reads the student's token ids, in fused attention and 16 bits
on a GPU. Any other model reads the text, put together again from the ids, through sentence-transformers.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from safetensors import SafetensorError
from torch import Tensor, nn

from encoder.errors import CheckpointError, MambaSearchError
from encoder.tokenizer import TOKENIZER_FILE, Tokenizer
from encoder.training.config import TeacherTable
from encoder.training.rows import WIDTH_MULTIPLE, Ids, TextRows, wrap

TeacherInput = TextRows | list[str]  # token ids with the teacher's own special tokens, or texts

_POSITIONS_DEFAULT = 512


@dataclass(frozen=True)
class TeacherRules:
    """How texts are made ready for the teacher, without the teacher: batches are made in other processes."""

    tokenizer_folder: Path  # the student's
    shared_vocabulary: bool
    tokens_max: int  # special tokens included
    start_id: int = 0
    end_id: int = 0

    def ready(self, tokens: Ids, lengths: NDArray[np.int64]) -> TeacherInput:
        """Make texts, ``(b, l)`` ids of the student's tokenizer without special tokens, what the teacher reads."""
        if not self.shared_vocabulary:
            decode = self._tokenizer.decode
            return [decode(row[:length].tolist()) for row, length in zip(tokens, lengths, strict=True)]
        room = self.tokens_max - 2
        return wrap(tokens[:, :room], np.minimum(lengths, room), (self.start_id,), self.end_id)

    @cached_property
    def _tokenizer(self) -> Tokenizer:
        return Tokenizer.load(self.tokenizer_folder)


class Teacher(Protocol):
    """Embeds texts."""

    dimension: int
    word_embeddings: Tensor | None  # (vocabulary, d) of a shared vocabulary: a start for a student of the same width

    def embed(self, texts: TeacherInput) -> Tensor:
        """Give the embeddings ``(b, d)`` float32 on the teacher's device, each of length 1."""


def teacher_rules(table: TeacherTable, tokenizer_folder: Path) -> TeacherRules:
    """Look at a teacher's folder; :class:`CheckpointError` where it is not a sentence-transformers model or a BERT."""
    config = _read(table.folder / "config.json")
    if not config and not (table.folder / "modules.json").exists():
        raise CheckpointError(
            f"{table.folder} has neither modules.json nor config.json; give the folder of a sentence-transformers "
            "model."
        )
    positions = config.get("max_position_embeddings") or _POSITIONS_DEFAULT
    own_limit = _read(table.folder / "sentence_bert_config.json").get("max_seq_length") or positions
    tokens_max = min(table.tokens_max or own_limit, positions)
    vocabulary = _vocabulary(table.folder)
    shared = _is_plain_bert(table.folder, config) and vocabulary == _vocabulary(tokenizer_folder)
    if not shared:
        return TeacherRules(tokenizer_folder, shared_vocabulary=False, tokens_max=tokens_max)
    start_id, end_id = vocabulary["[CLS]"], vocabulary["[SEP]"]
    whole_rows = positions - positions % WIDTH_MULTIPLE  # what rows of token ids are filled up to has positions, too
    return TeacherRules(tokenizer_folder, shared, min(tokens_max, whole_rows), start_id, end_id)


def load_teacher(table: TeacherTable, rules: TeacherRules, device: torch.device) -> Teacher:
    """Load the teacher, by the fast way where there is one; :class:`CheckpointError` where its folder is broken."""
    try:
        if rules.shared_vocabulary:
            return BertTeacher(table, device)
        return TextTeacher(table, rules.tokens_max, device)
    except ModuleNotFoundError as error:
        raise MambaSearchError(f"The package {error.name} is missing; install mamba-search[train].") from error
    except (OSError, ValueError, KeyError, TypeError, RuntimeError, SafetensorError) as error:
        reason = str(error).partition("\n")[0].rstrip(".") or type(error).__name__
        raise CheckpointError(
            f"{table.folder} cannot be read as a teacher ({reason}); give the whole folder of a sentence-transformers "
            "model."
        ) from error


class BertTeacher:
    """A BERT with mean or first-token pooling that reads token ids."""

    def __init__(self, table: TeacherTable, device: torch.device) -> None:
        from transformers import BertModel
        from transformers.utils import logging as transformers_logging

        verbosity = transformers_logging.get_verbosity()
        transformers_logging.set_verbosity(logging.ERROR)  # that the pooling layer is left out is meant
        transformers_logging.disable_progress_bar()  # type: ignore[no-untyped-call]
        dtype = torch.float16 if device.type == "cuda" else torch.float32
        bert: nn.Module = BertModel.from_pretrained(
            table.folder, dtype=dtype, add_pooling_layer=False, attn_implementation="sdpa"
        )
        transformers_logging.set_verbosity(verbosity)
        self.bert = bert.to(device).eval().requires_grad_(requires_grad=False)
        self.word_embeddings: Tensor | None = self.bert.get_parameter("embeddings.word_embeddings.weight")
        self.dimension = self.word_embeddings.shape[1]
        self._first_token = _pooling(table.folder) == "cls"
        self._batch_tokens = table.batch_tokens
        if table.compile:
            self.bert.compile(dynamic=False)

    @torch.no_grad()
    def embed(self, texts: TeacherInput) -> Tensor:
        """See :class:`Teacher`."""
        assert isinstance(texts, TextRows)
        rows = max(1, self._batch_tokens // texts.tokens.shape[1])
        parts = [
            self._embed(tokens.long(), ends)
            for tokens, ends in zip(texts.tokens.split(rows), texts.ends.split(rows), strict=True)
        ]
        return F.normalize(torch.cat(parts), dim=-1)

    def _embed(self, tokens: Tensor, ends: Tensor) -> Tensor:
        read = torch.arange(tokens.shape[1], device=tokens.device) <= ends[:, None]  # (b, l)
        # With four dimensions it is taken as it is; of a mask with two, transformers asks the device for its values.
        found = self.bert(input_ids=tokens, attention_mask=read[:, None, None])
        hidden: Tensor = found.last_hidden_state  # (b, l, d)
        if self._first_token:
            return hidden[:, 0].float()
        # Padding would drag the mean to zero. The sum is a product of matrices, which adds up in float32.
        mean = torch.bmm((read / (ends[:, None] + 1)).to(hidden.dtype)[:, None], hidden)[:, 0]
        return mean.float()


class TextTeacher:
    """Any model of sentence-transformers, from the text."""

    word_embeddings: Tensor | None = None

    def __init__(self, table: TeacherTable, tokens_max: int, device: torch.device) -> None:
        from sentence_transformers import SentenceTransformer

        dtype = "bfloat16" if device.type == "cuda" else "float32"
        self._model = SentenceTransformer(str(table.folder), device=str(device), model_kwargs={"dtype": dtype})
        self._model.max_seq_length = tokens_max
        dimension = self._model.get_embedding_dimension()
        if dimension is None:
            raise ValueError("its embeddings have no fixed length, as those of sparse models")
        self.dimension: int = dimension

    def embed(self, texts: TeacherInput) -> Tensor:
        """See :class:`Teacher`."""
        assert isinstance(texts, list)
        found = self._model.encode(
            texts, batch_size=len(texts), convert_to_tensor=True, normalize_embeddings=True, show_progress_bar=False
        )
        return found.float().clone()  # what was made in inference mode cannot take part in a backward pass


def _read(path: Path) -> dict[str, Any]:
    found = _parse(path)
    return found if isinstance(found, dict) else {}


def _parse(path: Path) -> object:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except OSError:
        return None
    except ValueError as error:
        raise CheckpointError(f"{path} is not JSON: {error}.") from error


def _vocabulary(folder: Path) -> Mapping[str, int]:
    """Tokens and their ids, from ``tokenizer.json`` or a BERT's ``vocab.txt``; empty where there is neither."""
    vocabulary = _read(folder / TOKENIZER_FILE).get("model", {}).get("vocab", {})
    if isinstance(vocabulary, dict) and vocabulary:
        return vocabulary
    path = folder / "vocab.txt"
    if not path.exists():
        return {}
    return {token: number for number, token in enumerate(path.read_text(encoding="utf-8").splitlines())}


def _is_plain_bert(folder: Path, config: Mapping[str, Any]) -> bool:
    """Tell whether a folder is a BERT with pooling and normalization, and nothing between them."""
    modules = _parse(folder / "modules.json")
    listed = modules if isinstance(modules, list) else []
    kinds = {str(module.get("type")).rpartition(".")[2] for module in listed if isinstance(module, dict)}
    plain = kinds <= {"Transformer", "Pooling", "Normalize"} and _pooling(folder) in ("mean", "cls")
    return config.get("model_type") == "bert" and plain


def _pooling(folder: Path) -> Literal["mean", "cls", "other"]:
    """Say how a folder pools; a BERT without a word about it has its mean taken, as sentence-transformers does."""
    found = next((_read(path) for path in sorted(folder.glob("*_Pooling/config.json"))), {})
    chosen = [key for key, value in found.items() if key.startswith("pooling_mode") and value is True]
    named = found.get("pooling_mode")
    if isinstance(named, str):
        chosen = [f"pooling_mode_{named}"]
    if not chosen or chosen in (["pooling_mode_mean_tokens"], ["pooling_mode_mean"]):
        return "mean"
    return "cls" if chosen in (["pooling_mode_cls_token"], ["pooling_mode_cls"]) else "other"
