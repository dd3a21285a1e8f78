"""A sentence-transformers model as the teacher: what a text's embedding should be.

Two ways to it. A BERT (or MPNet) whose vocabulary holds the student's reads the student's token ids, in 16 bits on a
GPU. Any other model reads the text, put together again from the ids, through sentence-transformers. Several of the
first kind may teach together: ``joint_teacher.py``.
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

from encoder.errors import CheckpointError, InvalidInput, MambaSearchError
from encoder.tokenizer import TOKENIZER_FILE, Tokenizer
from encoder.training.config import TeacherTable
from encoder.training.rows import WIDTH_MULTIPLE, Ids, TextRows, wrap

TeacherInput = TextRows | list[str]  # token ids with the teacher's own special tokens, or texts

_POSITIONS_DEFAULT = 512
_SPECIAL_TOKENS = {"[CLS]": "cls_token", "[SEP]": "sep_token", "[PAD]": "pad_token", "[UNK]": "unk_token"}


@dataclass(frozen=True)
class TeacherRules:
    """How texts are made ready for the teacher, without the teacher: batches are made in other processes."""

    tokenizer_folder: Path  # the student's
    shared_vocabulary: bool
    tokens_max: int  # special tokens included
    start_id: int = 0  # in the student's vocabulary, as all ids
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
    takes_means: bool  # of token states, so that prefixes have embeddings, too

    def embed(self, texts: TeacherInput) -> Tensor:
        """Give the embeddings ``(b, d)`` float32 on the teacher's device, each of length 1."""

    def embed_prefixes(self, texts: TextRows, prefixes: Tensor) -> tuple[Tensor, Tensor]:
        """Give the same, and those of the first ``prefixes (b, k)`` tokens of each text, ``(b, k, d)``.

        A prefix's is the mean of its tokens' states as read within the whole text: not quite what the teacher would say
        of it alone, and free.
        """


def teacher_rules(table: TeacherTable, tokenizer_folder: Path) -> TeacherRules:
    """Look at a teacher's folder; :class:`CheckpointError` where it is not a sentence-transformers model or a BERT.

    Several teachers must all read the student's token ids, which :class:`InvalidInput` says.
    """
    own = _vocabulary(tokenizer_folder)
    found = [_rules_of(folder, table, tokenizer_folder, own) for folder in table.folder]
    if len(found) == 1:
        return found[0]
    for folder, rules in zip(table.folder, found, strict=True):
        if not rules.shared_vocabulary:
            raise InvalidInput(
                "folder",
                f"teacher.folder names {len(found)} teachers, and {folder} does not share the model's vocabulary, as "
                "several must; leave it out, or give it alone.",
            )
    return min(found, key=lambda rules: rules.tokens_max)


def _rules_of(folder: Path, table: TeacherTable, tokenizer_folder: Path, vocabulary: Mapping[str, int]) -> TeacherRules:
    config = _read(folder / "config.json")
    if not config and not (folder / "modules.json").exists():
        raise CheckpointError(
            f"{folder} has neither modules.json nor config.json; give the folder of a sentence-transformers model."
        )
    positions = config.get("max_position_embeddings") or _POSITIONS_DEFAULT
    if config.get("model_type") == "mpnet":
        positions -= 2  # it counts them from behind the padding's id, 1
    own_limit = _read(folder / "sentence_bert_config.json").get("max_seq_length") or positions
    tokens_max = min(table.tokens_max or own_limit, positions)
    if not (_is_plain_bert(folder, config) and token_map(vocabulary, folder) is not None):
        return TeacherRules(tokenizer_folder, shared_vocabulary=False, tokens_max=tokens_max)
    start_id, end_id = vocabulary["[CLS]"], vocabulary["[SEP]"]
    whole_rows = positions - positions % WIDTH_MULTIPLE  # what rows of token ids are filled up to has positions, too
    return TeacherRules(tokenizer_folder, True, min(tokens_max, whole_rows), start_id, end_id)  # noqa: FBT003


def token_map(vocabulary: Mapping[str, int], folder: Path) -> list[int] | None:
    """Give a teacher's ids of the tokens of a WordPiece ``vocabulary``, by their ids in it; None where one lacks.

    Special tokens may have other names there.
    """
    theirs = _vocabulary(folder)
    named = _read(folder / "special_tokens_map.json")

    def name_of(token: str) -> str:
        key = _SPECIAL_TOKENS.get(token)
        found = named.get(key, token) if key else token
        name = found.get("content", token) if isinstance(found, dict) else found
        return name if name in theirs else token

    if not {"[CLS]", "[SEP]"} <= vocabulary.keys() or not all(name_of(token) in theirs for token in vocabulary):
        return None
    return [theirs[name_of(token)] for token in sorted(vocabulary, key=vocabulary.__getitem__)]


def load_single(folder: Path, table: TeacherTable, rules: TeacherRules, device: torch.device) -> Teacher:
    """Load one teacher, by the fast way where there is one; :class:`CheckpointError` where its folder is broken."""
    try:
        if rules.shared_vocabulary:
            return BertTeacher(folder, table, _vocabulary(rules.tokenizer_folder), device)
        return TextTeacher(folder, rules.tokens_max, device)
    except ModuleNotFoundError as error:
        raise MambaSearchError(f"The package {error.name} is missing; install mamba-search[train].") from error
    except (OSError, ValueError, KeyError, TypeError, RuntimeError, SafetensorError) as error:
        reason = str(error).partition("\n")[0].rstrip(".") or type(error).__name__
        raise CheckpointError(
            f"{folder} cannot be read as a teacher ({reason}); give the whole folder of a sentence-transformers model."
        ) from error


class BertTeacher:
    """A BERT or MPNet with mean or first-token pooling that reads token ids."""

    def __init__(self, folder: Path, table: TeacherTable, vocabulary: Mapping[str, int], device: torch.device) -> None:
        from transformers import AutoModel
        from transformers.utils import logging as transformers_logging

        verbosity = transformers_logging.get_verbosity()
        transformers_logging.set_verbosity(logging.ERROR)  # that the pooling layer is left out is meant
        transformers_logging.disable_progress_bar()  # type: ignore[no-untyped-call]
        dtype = torch.float16 if device.type == "cuda" else torch.float32
        self._is_mpnet = _read(folder / "config.json").get("model_type") == "mpnet"
        attention = "eager" if self._is_mpnet else "sdpa"
        bert: nn.Module = AutoModel.from_pretrained(
            folder, dtype=dtype, add_pooling_layer=False, attn_implementation=attention
        )
        transformers_logging.set_verbosity(verbosity)
        self.bert = bert.to(device).eval().requires_grad_(requires_grad=False)
        own_words = self.bert.get_parameter("embeddings.word_embeddings.weight")
        ids = token_map(vocabulary, folder)
        assert ids is not None  # the rules have been made from it
        self._ids = torch.tensor(ids, device=device)
        self.word_embeddings: Tensor | None = own_words[self._ids]
        self.dimension = own_words.shape[1]
        self.takes_means = _pooling(folder) == "mean"
        self._batch_tokens = table.batch_tokens
        if table.compile:
            self.bert.compile(dynamic=False)

    @torch.no_grad()
    def embed(self, texts: TeacherInput) -> Tensor:
        """See :class:`Teacher`."""
        assert isinstance(texts, TextRows)
        rows = self._rows(texts)
        parts = [
            self._pool(self._read(tokens, ends), ends)
            for tokens, ends in zip(texts.tokens.split(rows), texts.ends.split(rows), strict=True)
        ]
        return F.normalize(torch.cat(parts), dim=-1)

    @torch.no_grad()
    def embed_prefixes(self, texts: TextRows, prefixes: Tensor) -> tuple[Tensor, Tensor]:
        """See :class:`Teacher`."""
        rows = self._rows(texts)
        wholes, befores = [], []
        split = (texts.tokens.split(rows), texts.ends.split(rows), prefixes.split(rows))
        for tokens, ends, counts in zip(*split, strict=True):
            hidden = self._read(tokens, ends)
            wholes.append(self._pool(hidden, ends))
            last = torch.minimum(counts, ends[:, None] - 1)  # the special token before a text counts, as in the whole
            sums = hidden.float().cumsum(1)  # (b, l, d)
            befores.append(sums.gather(1, last[..., None].expand(-1, -1, sums.shape[2])))
        return F.normalize(torch.cat(wholes), dim=-1), F.normalize(torch.cat(befores), dim=-1)

    def _rows(self, texts: TextRows) -> int:
        return max(1, self._batch_tokens // texts.tokens.shape[1])

    def _read(self, tokens: Tensor, ends: Tensor) -> Tensor:
        """Give the last hidden states ``(b, l, d)``."""
        read = torch.arange(tokens.shape[1], device=tokens.device) <= ends[:, None]  # (b, l)
        ids = self._ids[tokens.long()]
        if self._is_mpnet:
            return _read_mpnet(self.bert, ids, read)
        # With four dimensions it is taken as it is; of a mask with two, fused attention asks the device for its values.
        found = self.bert(input_ids=ids, attention_mask=read[:, None, None])
        hidden: Tensor = found.last_hidden_state
        return hidden

    def _pool(self, hidden: Tensor, ends: Tensor) -> Tensor:
        if not self.takes_means:
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
    takes_means = False

    def __init__(self, folder: Path, tokens_max: int, device: torch.device) -> None:
        from sentence_transformers import SentenceTransformer

        dtype = "bfloat16" if device.type == "cuda" else "float32"
        self._model = SentenceTransformer(str(folder), device=str(device), model_kwargs={"dtype": dtype})
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

    def embed_prefixes(self, texts: TextRows, prefixes: Tensor) -> tuple[Tensor, Tensor]:
        """Not from texts; the task has been checked."""
        raise NotImplementedError


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
    return config.get("model_type") in ("bert", "mpnet") and plain


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
