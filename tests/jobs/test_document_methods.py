"""Pages of documents: how much of the index one of them reads."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from typing import Any, cast

from mambasearch.v1 import filter_pb2, ingest_pb2

from ingest.index.interface import DocumentRecord
from ingest.index.memory import MemoryIndex
from services.ingestion import document_methods
from services.ingestion.document_methods import DocumentMethods

RECORD = DocumentRecord("default", "", "", "", {}, 1, 0, 0, 0, "", "", datetime.now(UTC))


class Counting(MemoryIndex):
    """Counts the pages that are read of it, and is all that a worker has."""

    reads = 0

    async def list_records(self, tenant: str | None, after: str, limit: int) -> tuple[list[DocumentRecord], str]:
        self.reads += 1
        return await super().list_records(tenant, after, limit)

    def get(self) -> Counting:
        return self

    @property
    def index(self) -> Counting:
        return self


async def test_a_small_page_of_few_reads_the_index_a_bounded_number_of_times() -> None:
    index = Counting(dimension=2, fingerprint="x")
    for number in range(500):
        await index.commit_record(replace(RECORD, document_id=f"d{number}"))
    methods = DocumentMethods(cast("Any", index))
    one = filter_pb2.Filter(document_id_prefix="d77")
    request, found = ingest_pb2.ListDocumentsRequest(filter=one, page_size=1), []
    while True:
        index.reads = 0
        page = await methods.ListDocuments(request, cast("Any", None))
        assert index.reads <= document_methods.READS_MAX
        found += [document.document_id for document in page.documents]
        request.page_token = page.next_page_token
        if not page.next_page_token:
            break
    assert found == ["d77"]
