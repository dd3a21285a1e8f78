"""What the tests of the pipeline are made of: an encoder and an index with moods, documents, receipts."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import AsyncIterator, Iterable, Sequence

from encoder.errors import (
    InvalidInput,
    MambaSearchError,
)
from encoder.fingerprint import index_fingerprint
from encoder.interface import Encoded
from encoder.model_config import DEFAULT_MODEL_FOLDER
from encoder.tokenizer import Tokenizer
from ingest.chunking import Chunker
from ingest.collecting import Collected, Collector
from ingest.documents import DEFAULT_TENANT, Document
from ingest.index.interface import (
    DocumentKey,
    DocumentRecord,
    IndexedChunk,
    Scope,
    VectorIndex,
)
from ingest.index.server import ServerIndex
from ingest.journal import Journal
from ingest.pipeline import Ingestor
from ingest.receipts import LoadError, Receipt
from ingest.sparse import sparse_query
from tests.fakes import FakeEncoder
from tests.indexes import search_sparse

DIMENSION = 32


class MoodyEncoder(FakeEncoder):
    """Raises what stands in ``failures``, one a call; refuses passages that hold "poison"; remembers its batches."""

    def __init__(self) -> None:
        super().__init__(dimension=DIMENSION)
        self.failures: list[MambaSearchError | None] = []
        self.batches: list[list[str]] = []

    async def encode_passages(self, passages: Sequence[str]) -> Encoded:
        self.batches.append(list(passages))
        await asyncio.sleep(0)
        failure = self.failures.pop(0) if self.failures else None
        if failure:
            raise failure
        if any("poison" in passage for passage in passages):
            raise InvalidInput("passages[0]", "passages[0] is poisoned.")
        return await super().encode_passages(passages)


class MoodyIndex(ServerIndex):
    """Fails to write while ``failures`` last; forgets the last chunk of each batch while ``forgetful``."""

    failures: list[MambaSearchError]
    forgetful = False

    async def upsert_chunks(self, chunks: Sequence[IndexedChunk]) -> None:
        if self.failures:
            raise self.failures.pop(0)
        await super().upsert_chunks(chunks[:-1] if self.forgetful else chunks)


@functools.cache
def make_chunker() -> Chunker:
    return Chunker(Tokenizer.load(DEFAULT_MODEL_FOLDER), tokens_max=16)


def fingerprint() -> str:
    return index_fingerprint("fake", make_chunker().fingerprint)


def make_document(document_id: str, sentences: int = 6, word: str = "word") -> Document:
    text = " ".join(f"The {word} number{number} of {document_id} stands here." for number in range(sentences))
    return Document(document_id, text, title=f"About {document_id}", source=f"{document_id}.txt")


async def ingest(ingestor: Ingestor, items: Iterable[Document | LoadError]) -> list[Receipt]:
    return [receipt async for receipt in ingestor.ingest_all(items)]


async def collect(receipts: AsyncIterator[Receipt], into: list[Receipt]) -> None:
    """Keep what comes, also where an error ends it."""
    async for receipt in receipts:
        into.append(receipt)  # noqa: PERF401 - an error must not take those before it along


def key(document_id: str) -> DocumentKey:
    return DocumentKey(DEFAULT_TENANT, document_id)


async def records_of(index: VectorIndex, *document_ids: str) -> dict[str, DocumentRecord]:
    records = await index.get_records([key(name) for name in document_ids])
    return {found.document_id: record for found, record in records.items()}


async def contents(index: VectorIndex, *document_ids: str) -> dict[str, tuple[int, int, int]]:
    """Of each document: its generation, the chunks its record names, and those that are there."""
    return {
        name: (record.generation, record.chunk_count, await index.count_chunks(record.key, record.generation))
        for name, record in (await records_of(index, *document_ids)).items()
    }


async def words_found(index: VectorIndex, word: str) -> list[str]:
    found = [hit.chunk for hit in await search_sparse(index, sparse_query(word), 100, Scope())]
    chunks = await index.read_chunks(found)
    return [chunks[key].text for key in found]


class Clock:
    """Seconds that a test lets pass."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


async def clear(index: VectorIndex, journal: Journal) -> Collected:
    """Clear away as if all searches had ended, and all leases of what nobody goes on with."""
    clock = journal.now
    assert isinstance(clock, Clock)
    clock.now += 1000
    return await Collector(index, journal, 0).collect(within_s=1e6)
