"""A document's tokens in slices of bounded size, and faults named by their place in the document. Knows no model."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from encoder.errors import InvalidInput
from encoder.interface import DocumentReading, EncodedDocument

TOKEN_ID_MAX = 2**32 - 1
# What is sent and read at once: embeddings come back soon, others get their turn, and a GPU is not kept waiting. With
# the special tokens it is a little less than 16,384, for which the GPU has a graph.
SLICE_TOKENS = 16_000
# Ends cost a token each and their embeddings memory: a slice has this many at most, however short its chunks.
SLICE_ENDS_MAX = 256

TokenIds = Sequence[int] | NDArray[np.integer]


@dataclass(frozen=True, slots=True)
class DocumentSlice:
    """Some of a document's tokens, and where chunks end among them."""

    token_ids: NDArray[np.int64]  # (l,)
    chunk_ends: NDArray[np.int64]  # (n,), places in this slice: 1 to l, rising
    tokens_before: int
    ends_before: int

    def placed(self, error: InvalidInput) -> InvalidInput:
        """Name a fault in this slice by its place in the document."""
        before = {"token_ids": self.tokens_before, "chunk_ends": self.ends_before}
        return shifted(error, before.get(error.field.partition("[")[0], 0))

    async def read_by(self, reading: DocumentReading) -> NDArray[np.float32]:
        """Let this slice be read; gives the embeddings ``(n, d)`` that are ready."""
        try:
            return await reading.read(self.token_ids, self.chunk_ends)
        except InvalidInput as error:
            raise self.placed(error) from None


class DocumentCutter:
    """Cuts a document that comes in stretches; counts what came before, so that faults have a place in the whole."""

    def __init__(self, tokens_max: int, ends_max: int = SLICE_ENDS_MAX) -> None:
        self._tokens_max = tokens_max
        self._ends_max = ends_max
        self._tokens = 0
        self._ends = 0
        self._last_end = 0  # in tokens of the document

    def cut(self, token_ids: TokenIds, chunk_ends: TokenIds) -> Iterator[DocumentSlice]:
        """Check the next stretch whole, then cut it.

        ``chunk_ends`` count from its first token. :class:`InvalidInput` names ``token_ids[i]`` or ``chunk_ends[i]`` of
        the document.
        """
        ids, ends = integers("token_ids", token_ids), integers("chunk_ends", chunk_ends)
        wrong = np.flatnonzero((ids < 0) | (ids > TOKEN_ID_MAX))
        if wrong.size:
            name = f"token_ids[{self._tokens + wrong[0]}]"
            raise InvalidInput(name, f"{name} is {ids[wrong[0]]}; ids are 0 to {TOKEN_ID_MAX}.")
        self._check_ends(ends, ids.size)
        slices = self._slices(ids, ends, self._tokens, self._ends)
        if ends.size:
            self._last_end = self._tokens + int(ends[-1])
        self._tokens += ids.size
        self._ends += ends.size
        return slices

    def finish(self) -> None:
        """Check that the document holds tokens, and none after its last chunk's end."""
        if not self._tokens:
            raise InvalidInput("token_ids", "The document has no tokens; give at least one.")
        if self._last_end < self._tokens:
            raise InvalidInput(
                f"token_ids[{self._last_end}]",
                f"token_ids[{self._last_end}] stands after the last chunk's end, with {self._tokens} tokens in all; "
                f"the last of chunk_ends must be {self._tokens}.",
            )

    def _check_ends(self, ends: NDArray[np.int64], length: int) -> None:
        wrong = find_wrong_end(ends, length)
        if wrong is not None:
            place, floor = wrong
            name = f"chunk_ends[{self._ends + place}]"
            raise InvalidInput(
                name,
                f"{name} is at {self._tokens + ends[place]} tokens of the document; it must be above "
                f"{self._tokens + floor} and at most {self._tokens + length}, the tokens given.",
            )

    def _slices(
        self, ids: NDArray[np.int64], ends: NDArray[np.int64], tokens_before: int, ends_before: int
    ) -> Iterator[DocumentSlice]:
        start, first = 0, 0
        while start < ids.size:
            stop = min(start + self._tokens_max, ids.size)
            after = int(np.searchsorted(ends, stop, side="right"))
            if after - first > self._ends_max:
                after = first + self._ends_max
                stop = int(ends[after - 1])
            yield DocumentSlice(ids[start:stop], ends[first:after] - start, tokens_before + start, ends_before + first)
            start, first = stop, after


def cut_document(token_ids: TokenIds, chunk_ends: TokenIds, tokens_max: int) -> Iterator[DocumentSlice]:
    """Check a whole document, then cut it into slices of at most ``tokens_max``."""
    cutter = DocumentCutter(tokens_max)
    slices = cutter.cut(token_ids, chunk_ends)
    cutter.finish()
    return slices


class OpenDocument(Protocol):
    """What :meth:`encoder.interface.StreamingEncoder.open_document` looks like."""

    def __call__(self, *, state: bytes | None, keep_state: bool) -> Awaitable[DocumentReading]:
        """Begin or continue a document."""


async def encode_in_slices(
    open_document: OpenDocument,
    token_ids: TokenIds,
    chunk_ends: TokenIds,
    *,
    state: bytes | None,
    keep_state: bool,
    tokens_max: int,
) -> EncodedDocument:
    """Read a whole document slice by slice: ``encode_document`` for whoever can open one."""
    slices = cut_document(token_ids, chunk_ends, tokens_max)
    reading = await open_document(state=state, keep_state=keep_state)
    embeddings = [await part.read_by(reading) for part in slices]
    kept = await reading.finish()
    return EncodedDocument(np.concatenate(embeddings), reading.token_count, kept)


def shifted(error: InvalidInput, start: int, name: str | None = None) -> InvalidInput:
    """Name an item by its place in the caller's list: ``passages[3]`` of a part that began at 64 is ``passages[67]``.

    ``name`` is what the caller calls the list, where that differs.
    """
    found = re.fullmatch(r"(\w+)\[(\d+)\]", error.field)
    if found is None:
        return error
    field = f"{name or found[1]}[{int(found[2]) + start}]"
    return InvalidInput(field, str(error).replace(error.field, field))


def find_wrong_end(ends: NDArray[np.int64], length: int) -> tuple[int, int] | None:
    """Find the first of ``ends (n,)`` that does not rise or is beyond ``length``: its place, what it must exceed."""
    floors = np.concatenate((np.zeros(1, np.int64), ends))[:-1]
    wrong = np.flatnonzero((ends <= floors) | (ends > length))
    return (int(wrong[0]), int(floors[wrong[0]])) if wrong.size else None


def integers(field: str, values: TokenIds) -> NDArray[np.int64]:
    """Give ``values`` as an array ``(n,)``, and refuse what are no integers."""
    try:
        array = np.asarray(values)
    except ValueError:  # lists of several lengths
        array = np.empty((0, 0), dtype=object)
    if array.shape == (0,):
        array = array.astype(np.int64)
    if array.ndim != 1 or not np.issubdtype(array.dtype, np.integer):
        raise InvalidInput(field, f"{field} must be a flat list of integers, not {array.dtype} of shape {array.shape}.")
    # Ids beyond 64 bits with a sign would wrap around.
    if array.dtype == np.uint64 and array.max(initial=0) > np.iinfo(np.int64).max:
        raise InvalidInput(field, f"{field} holds {array.max()}, which is no token; give the tokenizer's ids.")
    return array.astype(np.int64, copy=False)
