"""Sentence-transformers models as teachers: what a text's embedding should be.

A BERT, or one of its kin, is read here, in 16 bits on a GPU; any other model through sentence-transformers. What they
read is made in ``teacher_rules.py``, and several are one in ``joint_teacher.py``.
"""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any, Protocol

import torch
import torch.nn.functional as F
from safetensors import SafetensorError
from torch import Tensor, nn

from encoder.errors import CheckpointError, MambaSearchError
from encoder.training.config import TeacherTable
from encoder.training.rows import TextRows
from encoder.training.teacher_rules import (
    Reading,
    ReadingRules,
    TeacherInput,
    pooling_of,
    read_json,
    token_map,
    vocabulary_of,
)


class SingleTeacher(Protocol):
    """One model that embeds texts."""

    dimension: int
    word_embeddings: Tensor | None  # (vocabulary, d) of a shared vocabulary: a start for a student of the same width

    def embed(self, texts: Reading) -> Tensor:
        """Give the embeddings ``(b, d)`` float32 on the teacher's device, each of length 1."""


class Teacher(Protocol):
    """What a run learns from: one model or several."""

    dimension: int
    word_embeddings: Tensor | None  # (vocabulary, d) of a shared vocabulary: a start for a student of the same width
    shared: int | None  # which of the readings is in the student's token ids

    def embed(self, texts: TeacherInput) -> Tensor:
        """Give the embeddings ``(b, d)`` float32 on the teacher's device, each of length 1."""


def load_single(folder: Path, table: TeacherTable, rules: ReadingRules, device: torch.device) -> SingleTeacher:
    """Load one teacher, by the fast way where there is one; :class:`CheckpointError` where its folder is broken."""
    try:
        if rules.kind == "text":
            return TextTeacher(folder, rules.tokens_max, device)
        return BertTeacher(folder, table, rules, device)
    except ModuleNotFoundError as error:
        raise MambaSearchError(f"The package {error.name} is missing; install mamba-search[train].") from error
    except (OSError, ValueError, KeyError, TypeError, RuntimeError, SafetensorError) as error:
        reason = str(error).partition("\n")[0].rstrip(".") or type(error).__name__
        raise CheckpointError(
            f"{folder} cannot be read as a teacher ({reason}); give the whole folder of a sentence-transformers model."
        ) from error


class BertTeacher:
    """A BERT, RoBERTa or MPNet with mean or first-token pooling that reads token ids."""

    def __init__(self, folder: Path, table: TeacherTable, rules: ReadingRules, device: torch.device) -> None:
        from transformers import AutoModel
        from transformers.utils import logging as transformers_logging

        verbosity = transformers_logging.get_verbosity()
        transformers_logging.set_verbosity(logging.ERROR)  # that the pooling layer is left out is meant
        transformers_logging.disable_progress_bar()  # type: ignore[no-untyped-call]
        dtype = torch.float16 if device.type == "cuda" else torch.float32
        self._is_mpnet = read_json(folder / "config.json").get("model_type") == "mpnet"
        attention = "eager" if self._is_mpnet else "sdpa"
        bert: nn.Module = AutoModel.from_pretrained(
            folder, dtype=dtype, add_pooling_layer=False, attn_implementation=attention
        )
        transformers_logging.set_verbosity(verbosity)
        self.bert = bert.to(device).eval().requires_grad_(requires_grad=False)
        own_words = self.bert.get_parameter("embeddings.word_embeddings.weight")
        self.dimension = own_words.shape[1]
        self.word_embeddings: Tensor | None = None
        self._ids: Tensor | None = None  # the teacher's, of the student's tokens
        if rules.kind == "shared ids":
            self._ids = torch.tensor(token_map(vocabulary_of(rules.tokenizer_folder), folder), device=device)
            self.word_embeddings = own_words[self._ids]
        self._takes_first = pooling_of(folder) == "cls"
        self._batch_tokens = table.batch_tokens
        if table.compile:
            self.bert.compile(dynamic=False)

    @torch.no_grad()
    def embed(self, texts: Reading) -> Tensor:
        """See :class:`SingleTeacher`."""
        assert isinstance(texts, TextRows)
        rows = max(1, self._batch_tokens // texts.tokens.shape[1])  # read at once
        parts = [
            self._pool(self._read(tokens, ends), ends)
            for tokens, ends in zip(texts.tokens.split(rows), texts.ends.split(rows), strict=True)
        ]
        return F.normalize(torch.cat(parts), dim=-1)

    def _read(self, tokens: Tensor, ends: Tensor) -> Tensor:
        """Give the last hidden states ``(b, l, d)``."""
        read = torch.arange(tokens.shape[1], device=tokens.device) <= ends[:, None]  # (b, l)
        ids = tokens.long() if self._ids is None else self._ids[tokens.long()]
        if self._is_mpnet:
            return _read_mpnet(self.bert, ids, read)
        # With four dimensions it is taken as it is; of a mask with two, fused attention asks the device for its values.
        found = self.bert(input_ids=ids, attention_mask=read[:, None, None])
        hidden: Tensor = found.last_hidden_state
        return hidden

    def _pool(self, hidden: Tensor, ends: Tensor) -> Tensor:
        if self._takes_first:
            return hidden[:, 0].float()
        # Padding would drag the mean to zero. The sum is a product of matrices, which adds up in float32.
        read = torch.arange(hidden.shape[1], device=hidden.device) <= ends[:, None]
        mean = torch.bmm((read / (ends[:, None] + 1)).to(hidden.dtype)[:, None], hidden)[:, 0]
        return mean.float()


def _read_mpnet(mpnet: Any, ids: Tensor, read: Tensor) -> Tensor:  # noqa: ANN401 - transformers' own class
    """Give the last hidden states ``(b, l, d)`` of a transformers MPNet, by fused attention.

    Its scores have a bias by distance (``modeling_mpnet.py``), which transformers adds step by step, in memory.
    """
    hidden: Tensor = mpnet.embeddings(input_ids=ids)
    unread = torch.zeros_like(read, dtype=hidden.dtype).masked_fill_(~read, torch.finfo(hidden.dtype).min)
    bias = mpnet.encoder.compute_position_bias(hidden[:1]) + unread[:, None, None]  # (b, h, l, l)
    for layer in mpnet.encoder.layer:
        own = layer.attention.attn
        queries, keys, values = (
            project(hidden).unflatten(-1, (own.num_attention_heads, -1)).transpose(1, 2)
            for project in (own.q, own.k, own.v)
        )  # (b, h, l, p)
        mixed = F.scaled_dot_product_attention(queries, keys, values, attn_mask=bias).transpose(1, 2).flatten(2)
        attended = layer.attention.LayerNorm(own.o(mixed) + hidden)
        hidden = layer.output(layer.intermediate(attended), attended)
    return hidden


class TextTeacher:
    """Any model of sentence-transformers, from the text."""

    word_embeddings: Tensor | None = None

    def __init__(self, folder: Path, tokens_max: int, device: torch.device) -> None:
        from sentence_transformers import SentenceTransformer

        dtype = "bfloat16" if device.type == "cuda" else "float32"
        self._model = SentenceTransformer(str(folder), device=str(device), model_kwargs={"dtype": dtype})
        self._model.max_seq_length = tokens_max
        dimension = self._model.get_embedding_dimension()
        if dimension is None:
            raise ValueError("its embeddings have no fixed length, as those of sparse models")
        self.dimension: int = dimension

    def embed(self, texts: Reading) -> Tensor:
        """See :class:`SingleTeacher`."""
        assert isinstance(texts, list)
        found = self._model.encode(
            texts, batch_size=len(texts), convert_to_tensor=True, normalize_embeddings=True, show_progress_bar=False
        )
        return found.float().clone()  # what was made in inference mode cannot take part in a backward pass
