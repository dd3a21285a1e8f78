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
from torch import Tensor

from encoder.checkpoint import load_model
from encoder.cores import Cores
from encoder.document_reader import DocumentReader, ReadingRules
from encoder.document_slices import TokenIds
from encoder.errors import InvalidInput
from encoder.fingerprint import model_fingerprint
from encoder.interface import Encoded, EncoderInfo, TokenRow
from encoder.kernels.choosing import Kernels, prepare
from encoder.layouts.fitting import check_tokenizer
from encoder.model import EncoderModel
from encoder.packing import to_device
from encoder.packs import PacksUnderWay, pack
from encoder.token_rows import frame, join_ids
from encoder.tokenizer import Tokenizer, check_characters

BATCH_SIZE_MAX = 1024
# Tokenized while a GPU reads what came before: about as many tokens, but first few, for which it waits.
_SLICE_TOKENS = 65_536
_CHARS_PER_TOKEN = 3
_FIRST_SLICE = 1 / 4
# Of queries: each stands for a range of lengths that the scan reads in chunks of one size.
_WARM_UP_TOKENS = (12, 28, 44, 60, 120)


class TextEncoder:
    """A model and its tokenizer on one device.

    Texts become rows of tokens first (``query_rows``, ``passage_rows``, ``token_rows``), with everything checked, then
    embeddings (``embed_queries``, ``embed_passages``); ``encode_…`` does both. On a CPU one thread may embed queries
    while another embeds passages or reads documents; otherwise it is not safe for calls from several threads at once.
    On a GPU, where all calls must be made on one stream, the next batch may be launched while one is read: see
    ``launch``.
    """

    def __init__(
        self,
        model: EncoderModel,
        tokenizer: Tokenizer,
        fingerprint: str,
        dtype: torch.dtype,
        *,
        threads: int | None = None,
        half_weights: bool = False,
        eight_bits: bool = False,
        passages_niceness: int = 0,
        kernels: Kernels = "auto",
    ) -> None:
        """Take over ``model``: its weights are put into the form that its device reads fastest.

        ``half_weights``, ``kernels`` and ``eight_bits`` are :func:`encoder.kernels.choosing.prepare`'s, as is its
        ``ValueError``; ``passages_niceness`` (of Unix) is how much passages and documents give way to queries and to
        other processes, on a CPU under Linux.
        """
        config = model.config
        check_tokenizer(config, tokenizer)
        self.model = model
        self.tokenizer = tokenizer
        self.device = model.backbone.embedding.weight.device
        self._start = _ids_of(tokenizer, config.bos_token)
        self._end = _ids_of(tokenizer, config.eos_token)
        self._dtype = dtype
        cores = (threads or torch.get_num_threads()) if self.device.type == "cpu" else 0
        self.reads_ahead = self.device.type == "cuda"
        self._query_cores = Cores(cores)
        self._passage_cores = Cores(cores, niceness=passages_niceness)
        self.path = prepare(model, dtype, half_weights=half_weights, kernels=kernels, eight_bits=eight_bits)
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
    def load(
        cls,
        folder: Path,
        *,
        device: str = "auto",
        threads: int | None = None,
        passages_niceness: int = 0,
        eight_bits: bool | None = None,
    ) -> TextEncoder:
        """Load a model folder onto ``auto`` (a GPU where torch sees one), ``cpu``, ``cuda``, ``cuda:1`` and so on.

        Matrix products run in bfloat16 where the device multiplies it natively, else in float32, on a CPU with weights
        in float16. ``threads`` are the CPU cores it may use (as many as torch would unless given). Products round
        their factors to ``eight_bits`` on a CPU, on a GPU if told so.
        """
        if device == "auto":
            device = "cuda" if torch.cuda.is_available() else "cpu"
        dtype = preferred_dtype(torch.device(device))
        encoder = cls(
            load_model(folder, device, dtype),
            Tokenizer.load(folder),
            model_fingerprint(folder),
            dtype,
            threads=threads,
            half_weights=dtype == torch.float32,
            eight_bits=torch.device(device).type == "cpu" if eight_bits is None else eight_bits,
            passages_niceness=passages_niceness,
        )
        if encoder.device.type == "cuda":
            encoder.warm_up()
        return encoder

    @property
    def reads_in_pieces(self) -> bool:
        """Whether a long text can be read piece by piece: not where each token depends on those after it."""
        return not self.model.config.bidirectional

    def warm_up(self) -> None:
        """Read texts of several lengths and a document in pieces, so that no request waits for what is done once.

        On a GPU, kernels are tuned; on a CPU, torch lays out memory and starts threads.
        """
        for length in _WARM_UP_TOKENS:
            row = np.zeros(length, dtype=np.int32)
            self.embed_queries([row])
            self.embed_queries([row] * 4)
        self.embed_passages([np.zeros(255, dtype=np.int32)] * (64 if self.device.type == "cuda" else 8))
        if self.reads_in_pieces:
            length = 2 * self.path.piece_tokens
            self.open_document().read([0] * length, [length])

    def query_rows(self, queries: Sequence[str]) -> list[TokenRow]:
        """Tokenize queries; :class:`InvalidInput` where one is empty or over ``query_tokens_max``."""
        _check_texts("queries", "query", queries)
        return self._rows("queries", "query", queries, self.model.config.query_prompt, self.info.query_tokens_max)

    def passage_rows(self, passages: Sequence[str]) -> list[TokenRow]:
        """Tokenize passages; :class:`InvalidInput` where one is empty or over ``passage_tokens_max``."""
        _check_texts("passages", "passage", passages)
        return self._passage_rows(passages)

    def token_rows(self, passages: Sequence[TokenIds]) -> list[TokenRow]:
        """Complete passages given as the tokenizer's ids with the special tokens; errors as for texts."""
        _check_count("passages", len(passages))
        ids, ends = join_ids("passages", passages, self.model.config.vocabulary_size)
        rows = frame(ids, ends, before=self._rules.start_ids, after=self._end)
        _check_lengths("passages", "passage", rows, self.info.passage_tokens_max)
        return rows

    def embed_queries(self, rows: Sequence[TokenRow]) -> NDArray[np.float32]:
        """Embed rows of :meth:`query_rows`: ``(n, d)``."""
        return self._embed_rows(rows, self._query_cores)

    def embed_passages(self, rows: Sequence[TokenRow]) -> NDArray[np.float32]:
        """Embed rows of :meth:`passage_rows` or :meth:`token_rows`: ``(n, d)``."""
        return self._embed_rows(rows, self._passage_cores)

    def launch(self, rows: Sequence[TokenRow]) -> PacksUnderWay:
        """Have a GPU embed rows of queries or passages, without waiting for it, but for all packs except the last two.

        Launch from one thread; the embeddings may be waited for in another.
        """
        packs = PacksUnderWay(self.info.dimension)
        self._launch(rows, 0, packs)
        return packs

    def encode_queries(self, queries: Sequence[str]) -> Encoded:
        """Embed queries; errors as for :meth:`query_rows`."""
        started = time.perf_counter()
        rows = self.query_rows(queries)
        tokenize_time_s = time.perf_counter() - started
        return Encoded(self.embed_queries(rows), tuple(map(len, rows)), tokenize_time_s)

    def encode_passages(self, passages: Sequence[str]) -> Encoded:
        """Embed passages; errors as for :meth:`passage_rows`, and then no embeddings."""
        _check_texts("passages", "passage", passages)
        if self.reads_ahead:
            return self._encode_ahead(passages)
        started = time.perf_counter()
        rows = self._passage_rows(passages)
        tokenize_time_s = time.perf_counter() - started
        return Encoded(self.embed_passages(rows), tuple(map(len, rows)), tokenize_time_s)

    def encode_tokenized_passages(self, passages: Sequence[TokenIds]) -> Encoded:
        """Embed passages given as the tokenizer's ids, without special tokens; errors as for texts."""
        rows = self.token_rows(passages)
        return Encoded(self.embed_passages(rows), tuple(map(len, rows)))

    def open_document(self, *, state: bytes | None = None, keep_state: bool = False) -> DocumentReader:
        """Begin a document, or continue one from its ``state``; the errors are :class:`DocumentReader`'s."""
        return DocumentReader(self.model, self._rules, self._passage_cores, state=state, keep_state=keep_state)

    def open_row(self) -> DocumentReader:
        """Begin one row of tokens that is to be read in pieces, as a document of one chunk."""
        return self._row_reader(self._passage_cores)

    def _row_reader(self, cores: Cores) -> DocumentReader:
        return DocumentReader(self.model, replace(self._rules, start_ids=(), end_id=None), cores)

    def _passage_rows(self, passages: Sequence[str], first: int = 0) -> list[TokenRow]:
        """Tokenize passages that were checked, of which the first has the place ``first`` in its call."""
        prompt, tokens_max = self.model.config.passage_prompt, self.info.passage_tokens_max
        return self._rows("passages", "passage", passages, prompt, tokens_max, first)

    def _rows(
        self, field: str, role: str, texts: Sequence[str], prompt: str, tokens_max: int, first: int = 0
    ) -> list[TokenRow]:
        ids, ends = self.tokenizer.encode_joined([prompt + text for text in texts] if prompt else texts)
        rows = frame(ids, ends, before=self._start, after=self._end)
        _check_lengths(field, role, rows, tokens_max, first)
        return rows

    def _encode_ahead(self, passages: Sequence[str]) -> Encoded:
        """Tokenize slice by slice, each while the device reads those before it."""
        packs, counts, tokenize_time_s = PacksUnderWay(self.info.dimension), list[int](), 0.0
        chars = _CHARS_PER_TOKEN * min(self.path.pack_tokens, _SLICE_TOKENS)
        for first, stop in _slices([len(passage) for passage in passages], chars):
            started = time.perf_counter()
            rows = self._passage_rows(passages[first:stop], first)
            tokenize_time_s += time.perf_counter() - started
            counts += map(len, rows)
            self._launch(rows, first, packs)
        return Encoded(packs.embeddings(), tuple(counts), tokenize_time_s)

    def _launch(self, rows: Sequence[TokenRow], first: int, packs: PacksUnderWay) -> None:
        """Add the packs of some rows, of which the first has the place ``first`` among all of ``packs``."""
        for group in pack([len(row) for row in rows], self.path.pack_tokens):
            packs.make_room()
            embeddings = self._embed([rows[number] for number in group], self._passage_cores)
            packs.add([first + number for number in group], embeddings)

    def _embed_rows(self, rows: Sequence[TokenRow], cores: Cores) -> NDArray[np.float32]:
        if self.reads_ahead:
            return self.launch(rows).embeddings()
        lengths = [len(row) for row in rows]
        embeddings = np.empty((len(rows), self.info.dimension), dtype=np.float32)
        budget = min(self.path.pack_tokens, -(-sum(lengths) // cores.count))
        groups = list(pack(lengths, budget))
        # Where there is nothing else to do, one long text keeps all cores busy.
        inner = cores if len(groups) == 1 else Cores(0)
        tasks = [partial(self._embed, [rows[number] for number in group], inner) for group in groups]
        for group, part in zip(groups, [tasks[0]()] if inner is cores else cores.run(tasks), strict=True):
            embeddings[group] = part.cpu().numpy()
        return embeddings

    def _embed(self, rows: list[TokenRow], cores: Cores) -> Tensor:
        """Embed the rows of one pack, or one long row as a document of one chunk: ``(n, d)``."""
        if len(rows[0]) > self.path.pack_tokens and self.reads_in_pieces:
            return torch.from_numpy(self._row_reader(cores).read(rows[0], [len(rows[0])]))
        return cores.run([partial(self._embed_packed, rows)])[0]

    @torch.inference_mode()
    def _embed_packed(self, rows: list[TokenRow]) -> Tensor:
        lengths = [len(row) for row in rows]
        one_call = self.path.one_call
        if one_call is not None and one_call.takes(lengths):
            return one_call.embed([torch.from_numpy(row) for row in rows])
        tokens = to_device(torch.from_numpy(np.concatenate(rows, dtype=np.int64))[None], self.device)
        return self.model.embed_packed(tokens, lengths, self._dtype)


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


def _slices(sizes: Sequence[int], size_max: int) -> Iterator[tuple[int, int]]:
    """Cut texts into slices of about ``size_max`` characters, the first one smaller: where each begins and ends."""
    first, room = 0, size_max * _FIRST_SLICE
    for place, size in enumerate(sizes):
        if place > first and size > room:
            yield first, place
            first, room = place, size_max
        room -= size
    yield first, len(sizes)


def _check_texts(field: str, role: str, texts: Sequence[str]) -> None:
    _check_count(field, len(texts))
    for number, text in enumerate(texts):
        check_characters(f"{field}[{number}]", text)
        if not text.strip():
            raise InvalidInput(f"{field}[{number}]", f"{_which(role, field, number)} is empty or only white space.")


def _check_lengths(field: str, role: str, rows: Sequence[TokenRow], tokens_max: int, first: int = 0) -> None:
    for number, row in enumerate(rows, first):
        if not len(row):
            raise InvalidInput(
                f"{field}[{number}]",
                f"{_which(role, field, number)} has no tokens: the tokenizer knows none of its characters.",
            )
        if len(row) > tokens_max:
            raise InvalidInput(
                f"{field}[{number}]",
                f"{_which(role, field, number)} has {len(row)} tokens; the limit is {tokens_max}. Shorten it.",
            )


def _check_count(field: str, count: int) -> None:
    if not 1 <= count <= BATCH_SIZE_MAX:
        raise InvalidInput(field, f"{field} holds {count} texts; 1 to {BATCH_SIZE_MAX} are allowed.")
