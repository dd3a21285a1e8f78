"""Documents to chunks with their BM25 weights, here or in processes that do nothing else. Knows no index, no encoder.

Cutting is Python's work, and in a process that also talks to encoder and index the two take turns. So a worker has it
done by others (``processes``), each with a tokenizer of its own.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from encoder.errors import InvalidInput
from encoder.passage_text import join_passage
from ingest.chunking import Chunk, Chunker
from ingest.documents import Document
from ingest.index.interface import SparseVector
from ingest.sparse import sparse_passage


@dataclass(frozen=True, slots=True)
class CutRequest:
    """A document to cut: all of it, or what follows its first ``begin`` code points."""

    document: Document
    begin: int = 0


@dataclass(frozen=True, slots=True)
class CutDocument:
    """What ingestion makes of a document's text before anything is encoded."""

    title: str  # as passages have it: one line, cut short
    chunks: Sequence[Chunk]
    sparse: Sequence[SparseVector]  # of each chunk's passage


class Cutter(Protocol):
    """Cuts documents; safe for several calls at once."""

    async def cut(self, requests: Sequence[CutRequest]) -> list[CutDocument | InvalidInput]:
        """Cut each document, or say why it cannot be; in order."""


class CutterHere:
    """Cuts in a thread of this process."""

    def __init__(self, chunker: Chunker) -> None:
        self._chunker = chunker

    async def cut(self, requests: Sequence[CutRequest]) -> list[CutDocument | InvalidInput]:
        """Cut one after another."""
        return await asyncio.to_thread(lambda: [cut(self._chunker, request) for request in requests])


def cut(chunker: Chunker, request: CutRequest) -> CutDocument | InvalidInput:
    """Cut a document, or say why it cannot be."""
    document = request.document
    try:
        chunks = chunker.chunk(document, document.language, begin=request.begin)
    except InvalidInput as error:
        return error
    title = chunker.passage_title(document.title)
    return CutDocument(title, chunks, sparse_passages(title, chunks))


def sparse_passages(title: str, chunks: Sequence[Chunk]) -> list[SparseVector]:
    """Weigh the terms of each chunk's passage; ``title`` is as passages have it."""
    return [sparse_passage(join_passage(title, chunk.text)) for chunk in chunks]
