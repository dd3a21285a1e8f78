"""Texts to embeddings in this process: tokenize, pack, forward, pool, normalize. Knows no gRPC."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from encoder.checkpoint import load_model
from encoder.cores import Cores
from encoder.document_reader import DocumentReader, ReadingRules, check_ids
from encoder.document_slices import integers
from encoder.errors import InvalidInput
from encoder.fingerprint import model_fingerprint
from encoder.interface import Encoded, EncoderInfo
from encoder.kernels.choosing import prepare
from encoder.layouts.fitting import check_tokenizer
from encoder.model import EncoderModel
from encoder.tokenizer import Tokenizer, check_characters

BATCH_SIZE_MAX = 1024


class TextEncoder:
    """A model and its tokenizer on one device. Not safe for calls from several threads at once."""

    def __init__(
        self,
        model: EncoderModel,
        tokenizer: Tokenizer,
        fingerprint: str,
        dtype: torch.dtype,
        *,
        threads: int | None = None,
    ) -> None:
        """Take over ``model``: its weights are put into the form that its device reads fastest."""
        config = model.config
        check_tokenizer(config, tokenizer)
        self.model = model
        self.tokenizer = tokenizer
        self.device = model.backbone.embedding.weight.device
        self._start = _ids_of(tokenizer, config.bos_token)
        self._end = _ids_of(tokenizer, config.eos_token)
        self._dtype = dtype
        self._cores = Cores((threads or torch.get_num_threads()) if self.device.type == "cpu" else 0)
        self.path = prepare(model.backbone, dtype)
        self._rules = ReadingRules(
            start_ids=(*self._start, *tokenizer.encode(config.passage_prompt)),
            end_id=self._end[0] if self._end else None,
            dtype=dtype,
            piece_tokens=self.path.piece_tokens,
            fingerprint=fingerprint,
        )
        self.info = EncoderInfo(
            model=config.name,
            fingerprint=fingerprint,
            dimension=config.embedding_dim,
            query_tokens_max=config.query_tokens_max,
            passage_tokens_max=config.passage_tokens_max,
            batch_size_max=BATCH_SIZE_MAX,
        )

    @classmethod
    def load(cls, folder: Path, *, device: str = "auto", threads: int | None = None) -> TextEncoder:
        """Load a model folder onto ``auto`` (a GPU where torch sees one), ``cpu``, ``cuda``, ``cuda:1`` and so on.

        Matrix products run in bfloat16 where the device multiplies it natively, else in float32. ``threads`` are the
        CPU cores it may use (as many as torch would unless given).
        """
        if device == "auto":
            device = "cuda" if torch.cuda.is_available() else "cpu"
        dtype = preferred_dtype(torch.device(device))
        model = load_model(folder, device, dtype)
        encoder = cls(model, Tokenizer.load(folder), model_fingerprint(folder), dtype, threads=threads)
        if encoder.device.type == "cuda":
            encoder.warm_up()
        return encoder

    def warm_up(self) -> None:
        """Read a text alone, texts in a pack and a document in pieces, so that no request waits for kernels' tuning."""
        self.encode_tokenized_passages([[0]])
        self.encode_tokenized_passages([[0] * 255] * 64)
        if not self.model.config.bidirectional:
            length = 2 * self.path.piece_tokens
            self.open_document().read([0] * length, [length])

    def encode_queries(self, queries: Sequence[str]) -> Encoded:
        """Embed queries; :class:`InvalidInput` where one is empty or over ``query_tokens_max``."""
        return self._encode_texts(
            "queries", "query", queries, self.model.config.query_prompt, self.info.query_tokens_max
        )

    def encode_passages(self, passages: Sequence[str]) -> Encoded:
        """Embed passages; :class:`InvalidInput` where one is empty or over ``passage_tokens_max``."""
        return self._encode_texts(
            "passages", "passage", passages, self.model.config.passage_prompt, self.info.passage_tokens_max
        )

    def encode_tokenized_passages(self, passages: Sequence[Sequence[int]]) -> Encoded:
        """Embed passages given as the tokenizer's ids, without special tokens; errors as for texts."""
        _check_count("passages", len(passages))
        rows = []
        for number, ids in enumerate(passages):
            found = integers(f"passages[{number}]", ids)
            if not found.size:
                raise InvalidInput(f"passages[{number}]", f"passages[{number}] is empty.")
            try:
                check_ids("token_ids", found, self.model.config.vocabulary_size)
            except InvalidInput as error:
                raise InvalidInput(f"passages[{number}]", f"passages[{number}]: {error}") from None
            rows.append([*self._rules.start_ids, *ids, *self._end])
        return self._encode_rows("passages", "passage", rows, self.info.passage_tokens_max)

    def open_document(self, *, state: bytes | None = None, keep_state: bool = False) -> DocumentReader:
        """Begin a document, or continue one from its ``state``; the errors are :class:`DocumentReader`'s."""
        return DocumentReader(self.model, self._rules, self._cores, state=state, keep_state=keep_state)

    def _encode_texts(self, field: str, role: str, texts: Sequence[str], prompt: str, tokens_max: int) -> Encoded:
        _check_count(field, len(texts))
        for number, text in enumerate(texts):
            check_characters(f"{field}[{number}]", text)
            if not text.strip():
                raise InvalidInput(f"{field}[{number}]", f"{_which(role, field, number)} is empty or only white space.")
        started = time.perf_counter()
        ids = self.tokenizer.encode_batch([prompt + text for text in texts])
        rows = [[*self._start, *row, *self._end] for row in ids]
        tokenize_time_s = time.perf_counter() - started
        return replace(self._encode_rows(field, role, rows, tokens_max), tokenize_time_s=tokenize_time_s)

    def _encode_rows(self, field: str, role: str, rows: list[list[int]], tokens_max: int) -> Encoded:
        lengths = [len(row) for row in rows]
        for number, length in enumerate(lengths):
            which = _which(role, field, number)
            if not length:
                raise InvalidInput(
                    f"{field}[{number}]", f"{which} has no tokens: the tokenizer knows none of its characters."
                )
            if length > tokens_max:
                raise InvalidInput(
                    f"{field}[{number}]", f"{which} has {length} tokens; the limit is {tokens_max}. Shorten it."
                )
        embeddings = np.empty((len(rows), self.info.dimension), dtype=np.float32)
        budget = min(self.path.pack_tokens, -(-sum(lengths) // self._cores.count))
        groups = list(pack(lengths, budget))
        # Where there is nothing else to do, one long text keeps all cores busy.
        cores = self._cores if len(groups) == 1 else Cores(0)
        tasks = [partial(self._embed, [rows[number] for number in group], cores) for group in groups]
        for group, part in zip(groups, [tasks[0]()] if cores is self._cores else self._cores.run(tasks), strict=True):
            embeddings[group] = part
        return Encoded(embeddings, tuple(lengths))

    def _embed(self, rows: list[list[int]], cores: Cores) -> NDArray[np.float32]:
        """Embed the rows of one pack, or one long row as a document of one chunk: ``(n, d)``."""
        if len(rows[0]) > self.path.pack_tokens and not self.model.config.bidirectional:
            rules = replace(self._rules, start_ids=(), end_id=None)
            return DocumentReader(self.model, rules, cores).read(rows[0], [len(rows[0])])
        return cores.run([partial(self._embed_packed, rows)])[0]

    @torch.inference_mode()
    def _embed_packed(self, rows: list[list[int]]) -> NDArray[np.float32]:
        tokens = torch.tensor([[token for row in rows for token in row]], device=self.device)
        embeddings = self.model.embed_packed(tokens, [len(row) for row in rows], self._dtype)
        result: NDArray[np.float32] = embeddings.cpu().numpy()
        return result


def pack(lengths: Sequence[int], pack_tokens: int) -> Iterator[list[int]]:
    """Lay texts end to end, longest first, into packs of at most ``pack_tokens``, or of one text."""
    group: list[int] = []
    room = pack_tokens
    for number in sorted(range(len(lengths)), key=lengths.__getitem__, reverse=True):
        if group and lengths[number] > room:
            yield group
            group, room = [], pack_tokens
        group.append(number)
        room -= lengths[number]
    if group:
        yield group


def preferred_dtype(device: torch.device) -> torch.dtype:
    """bfloat16 where the device multiplies it natively, else float32."""
    if device.type == "cuda":
        return torch.bfloat16 if torch.cuda.is_bf16_supported(including_emulation=False) else torch.float32
    capabilities = torch.cpu.get_capabilities()
    native = capabilities.get("avx512_bf16") or capabilities.get("amx_bf16")
    return torch.bfloat16 if native else torch.float32


def _ids_of(tokenizer: Tokenizer, special_token: str | None) -> list[int]:
    number = None if special_token is None else tokenizer.token_id(special_token)
    return [] if number is None else [number]


def _which(role: str, field: str, number: int) -> str:
    """Name a text in a sentence: a person asks one query, passages are many."""
    return "The query" if role == "query" else f"{field}[{number}]"


def _check_count(field: str, count: int) -> None:
    if not 1 <= count <= BATCH_SIZE_MAX:
        raise InvalidInput(field, f"{field} holds {count} texts; 1 to {BATCH_SIZE_MAX} are allowed.")
