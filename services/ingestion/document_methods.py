"""The methods of IngestService that are about documents in the index."""

from __future__ import annotations

from typing import Any

import grpc
from google.protobuf.timestamp_pb2 import Timestamp
from mambasearch.v1 import ingest_pb2, ingest_pb2_grpc

from encoder.errors import InvalidInput, NotFound
from ingest.documents import DOCUMENT_ID_BYTES_MAX, named_tenant
from ingest.filters import Filter, check_filter, matches
from ingest.index.filter_messages import filter_from_message
from ingest.index.interface import DocumentKey, DocumentRecord
from ingest.index.metadata_messages import metadata_to_messages
from ingest.jobs.running import Worker
from services.backends import Backends
from services.paging import make_token, page_size_of, read_token

# Records that one page looks at, where few of them are meant; the next page goes on.
SCANNED_MAX = 10_000
# And how often it asks the index: on a page that is small, or nearly full, each answer is a few records.
READS_MAX = 100

_Context = grpc.aio.ServicerContext[Any, Any]


class DocumentMethods(ingest_pb2_grpc.IngestServiceServicer):
    """Shows and deletes documents."""

    def __init__(self, backends: Backends[Worker]) -> None:
        self._backends = backends

    async def GetDocument(  # noqa: N802 - the proto's name
        self, request: ingest_pb2.GetDocumentRequest, context: _Context
    ) -> ingest_pb2.Document:
        """Read one document's record."""
        del context
        _check_id(request.document_id)
        key = DocumentKey(named_tenant(request.tenant), request.document_id)
        records = await self._backends.get().index.get_records([key])
        if key not in records:
            raise NotFound(f"There is no document {request.document_id!r} in the index.")
        return _record_message(records[key])

    async def DeleteDocument(  # noqa: N802 - the proto's name
        self, request: ingest_pb2.DeleteDocumentRequest, context: _Context
    ) -> ingest_pb2.DeleteDocumentResponse:
        """Take a document out of the index."""
        del context
        _check_id(request.document_id)
        count = await self._backends.get().ingestor.delete(request.document_id, named_tenant(request.tenant))
        return ingest_pb2.DeleteDocumentResponse(chunk_count=count)

    async def ListDocuments(  # noqa: N802 - the proto's name
        self, request: ingest_pb2.ListDocumentsRequest, context: _Context
    ) -> ingest_pb2.ListDocumentsResponse:
        """Show a page of a tenant's documents."""
        del context
        tenant, size = named_tenant(request.tenant), page_size_of(request.page_size)
        where: Filter | None = None
        if request.HasField("filter"):
            where = filter_from_message(request.filter)
            check_filter(where)
        asked = tenant.encode() + b"\0" + request.filter.SerializeToString(deterministic=True)
        after = str((read_token(asked, request.page_token, 1) or [""])[0])
        index, found, scanned = self._backends.get().index, list[DocumentRecord](), 0
        for _ in range(READS_MAX):
            # No more than there is room for, so that the index's own token is where the page ends.
            records, after = await index.list_records(tenant, after, size - len(found))
            scanned += len(records)
            found += [record for record in records if where is None or matches(where, record)]
            if not after or len(found) == size or scanned >= SCANNED_MAX:
                break
        token = make_token(asked, (after,)) if after else ""
        return ingest_pb2.ListDocumentsResponse(documents=map(_record_message, found), next_page_token=token)


def _check_id(document_id: str) -> None:
    id_bytes = len(document_id.encode())
    if not 1 <= id_bytes <= DOCUMENT_ID_BYTES_MAX:
        message = f"document_id has {id_bytes} bytes; 1 to {DOCUMENT_ID_BYTES_MAX} are allowed."
        raise InvalidInput("document_id", message)


def _record_message(record: DocumentRecord) -> ingest_pb2.Document:
    ingested_at = Timestamp()
    ingested_at.FromDatetime(record.ingested_at)
    return ingest_pb2.Document(
        document_id=record.document_id,
        title=record.title,
        source=record.source,
        generation=record.generation,
        chunk_count=record.chunk_count,
        token_count=record.token_count,
        char_count=record.char_count,
        content_hash=record.content_hash,
        ingested_at=ingested_at,
        metadata=metadata_to_messages(record.metadata),
    )
