"""What travels between a process and those that cut documents for it: pickles, since both are this program."""

from __future__ import annotations

import pickle
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import IO

import numpy as np
from numpy.typing import NDArray

from ingest.chunking import Chunk
from ingest.cutting.cutter import CutDocument
from ingest.index.interface import SparseVector

LENGTH_BYTES = 8
READY = "ready"


@dataclass(frozen=True, slots=True)
class PackedDocument:
    """A cut document as it travels: what the other side has, the text, stays out."""

    title: str
    numbers: NDArray[np.int64]  # (n, 5): char_start, char_end, token_count, line_start, line_end
    headings: Sequence[tuple[str, ...]]  # of each chunk
    ends: Sequence[int]  # where each chunk's terms end in the following two
    indices: NDArray[np.uint32]
    values: NDArray[np.float32]


def pack(document: CutDocument) -> PackedDocument:
    """Leave out the text."""
    return PackedDocument(
        document.title,
        np.array([_numbers(chunk) for chunk in document.chunks], dtype=np.int64).reshape(-1, 5),
        [chunk.headings for chunk in document.chunks],
        np.cumsum([len(vector.indices) for vector in document.sparse]).tolist(),
        np.concatenate([np.empty(0, np.uint32), *(vector.indices for vector in document.sparse)]),
        np.concatenate([np.empty(0, np.float32), *(vector.values for vector in document.sparse)]),
    )


def unpack(packed: PackedDocument, text: str) -> CutDocument:
    """Put the text in again."""
    chunks = [
        Chunk(index, start, end, tokens, text[start:end], line_start, line_end, headings)
        for index, ((start, end, tokens, line_start, line_end), headings) in enumerate(
            zip(packed.numbers.tolist(), packed.headings, strict=True)
        )
    ]
    sparse = [
        SparseVector(packed.indices[begin:end], packed.values[begin:end]) for begin, end in pairwise([0, *packed.ends])
    ]
    return CutDocument(packed.title, chunks, sparse)


def send(stream: IO[bytes], message: object) -> None:
    """Write a message with its length before it."""
    data = pickle.dumps(message, protocol=pickle.HIGHEST_PROTOCOL)
    stream.write(len(data).to_bytes(LENGTH_BYTES, "little"))
    stream.write(data)
    stream.flush()


def receive(stream: IO[bytes]) -> object:
    """Read a message; :class:`EOFError` where the other side is gone."""
    length = stream.read(LENGTH_BYTES)
    data = stream.read(int.from_bytes(length, "little")) if len(length) == LENGTH_BYTES else b""
    if not data:
        raise EOFError
    return pickle.loads(data)  # noqa: S301 - of a process that this program started


def _numbers(chunk: Chunk) -> tuple[int, int, int, int, int]:
    return chunk.char_start, chunk.char_end, chunk.token_count, chunk.line_start, chunk.line_end
