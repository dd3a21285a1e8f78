"""What tests of reindexing share: two models, and a look at what has been moved."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from encoder.errors import InvalidInput
from encoder.fingerprint import index_fingerprint
from encoder.interface import Encoded
from ingest.chunking import Chunker
from ingest.index.collections import MadeBy
from ingest.index.interface import VectorIndex
from tests.fakes import FakeEncoder
from tests.pipelining import make_chunker

OLD_DIMENSION, NEW_DIMENSION = 16, 24


class NewEncoder(FakeEncoder):
    """The new model: calls somebody before each batch, and counts passages."""

    def __init__(self) -> None:
        super().__init__(dimension=NEW_DIMENSION, fingerprint="new")
        self.before: Callable[[], Any] | None = None
        self.passages = 0

    async def encode_passages(self, passages: Any) -> Encoded:
        if self.before:
            await self.before()
        for place, passage in enumerate(passages):
            if "poison" in passage:
                raise InvalidInput(f"passages[{place}]", f"passages[{place}] is poisoned.")
        self.passages += len(passages)
        return await super().encode_passages(passages)


def new_chunker() -> Chunker:
    return Chunker(make_chunker()._tokenizer, tokens_max=24)


OLD = MadeBy(index_fingerprint("fake", make_chunker().fingerprint), OLD_DIMENSION)
NEW = MadeBy(index_fingerprint("new", new_chunker().fingerprint), NEW_DIMENSION)


async def check_moved(index: VectorIndex, names: set[tuple[str, str]]) -> None:
    """Every document once, found by its words, with as many chunks as its record says and no others."""
    records, after = await index.list_records(None, "", 1000)
    assert not after
    assert {record.key for record in records} == names
    for record in records:
        assert await index.count_chunks(record.key, record.generation) == record.chunk_count
        assert await index.delete_chunks(record.key, below=record.generation) == 0
    assert (await index.stats()).chunk_count == sum(record.chunk_count for record in records)
