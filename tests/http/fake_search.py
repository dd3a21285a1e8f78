"""A search service that answers from a few documents by counting words: what HTTP makes of answers needs no index."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Mapping
from typing import Any

from mambasearch.v1 import metadata_pb2, search_pb2, search_pb2_grpc

from encoder.errors import InvalidInput, NotFound
from services.door.principal import caller
from services.paging import make_token, read_token

ORCHARD = (
    "# Orchard notes\n\nApples want cold winters. An orchard that never freezes gives little fruit.\n\n"
    "Prune in February, before the sap rises, and never in the rain.\n\nWasps come for the windfalls in autumn."
)


class FakeSearch(search_pb2_grpc.SearchServiceServicer):
    """``documents`` are titles and texts by ids; paragraphs are chunks. ``delay_s`` and ``error`` are its moods."""

    def __init__(self, documents: Mapping[str, tuple[str, str]]) -> None:
        self.documents = {key: (title, _chunks(text)) for key, (title, text) in documents.items()}
        self.delay_s = 0.0
        self.error: Exception | None = None
        self.asked: list[Any] = []
        self.callers: list[str] = []
        self.finished = 0

    async def Search(self, request: search_pb2.SearchRequest, context: Any) -> search_pb2.SearchResponse:  # noqa: N802
        await self._begin(request)
        if not request.query.strip():
            raise InvalidInput("query", "query is empty or only white space; say what to look for.")
        words = set(re.findall(r"\w+", request.query.lower()))
        groups = []
        for document_id, (title, chunks) in self.documents.items():
            scored = sorted(((_score(chunk.text, words), chunk) for chunk in chunks), key=lambda pair: -pair[0])
            best = [(score, chunk) for score, chunk in scored if score][: request.group_by_document.chunks_max or 3]
            if best:
                groups.append(_group(document_id, title, len(chunks), best))
        groups.sort(key=lambda group: -group.score)
        start = int((read_token(request.query.encode(), request.page_token, 1) or [0])[0])
        size = request.top_k or 10
        token = make_token(request.query.encode(), (start + size,)) if len(groups) > start + size else ""
        return search_pb2.SearchResponse(groups=groups[start : start + size], next_page_token=token, query_tokens=7)

    async def Retrieve(self, request: search_pb2.RetrieveRequest, context: Any) -> search_pb2.RetrieveResponse:  # noqa: N802
        await self._begin(request)
        return search_pb2.RetrieveResponse(context="[1] Orchard notes", context_tokens=5)

    async def SimilarDocuments(  # noqa: N802
        self, request: search_pb2.SimilarDocumentsRequest, context: Any
    ) -> search_pb2.SimilarDocumentsResponse:
        await self._begin(request)
        return search_pb2.SimilarDocumentsResponse()

    async def ListChunks(  # noqa: N802
        self, request: search_pb2.ListChunksRequest, context: Any
    ) -> search_pb2.ListChunksResponse:
        await self._begin(request)
        if request.document_id not in self.documents:
            raise NotFound(f"There is no document {request.document_id!r} in the index.")
        title, chunks = self.documents[request.document_id]
        first = request.chunk_index_first
        page = chunks[first : first + (request.page_size or 50)]
        return search_pb2.ListChunksResponse(chunks=page, title=title, chunk_count=len(chunks))

    async def _begin(self, request: Any) -> None:
        self.asked.append(request)
        self.callers.append(caller().name)
        await asyncio.sleep(self.delay_s)
        if self.error:
            raise self.error
        self.finished += 1


def _chunks(text: str) -> list[search_pb2.Chunk]:
    chunks: list[search_pb2.Chunk] = []
    headings: list[str] = []
    for found in re.finditer(r"\S(?:.|\n(?!\s*\n))*", text):
        if heading := re.match(r"#+ (.*)", found[0]):
            headings = [heading[1]]
        line = text.count("\n", 0, found.start()) + 1
        chunks.append(
            search_pb2.Chunk(
                chunk_index=len(chunks),
                char_start=found.start(),
                char_end=found.end(),
                line_start=line,
                line_end=line + found[0].count("\n"),
                headings=headings,
                token_count=len(found[0].split()),
                text=found[0],
            )
        )
    return chunks


def _score(text: str, words: set[str]) -> float:
    found = set(re.findall(r"\w+", text.lower()))
    return len(found & words) / (1 + len(words))


def _group(
    document_id: str, title: str, count: int, best: list[tuple[float, search_pb2.Chunk]]
) -> search_pb2.DocumentGroup:
    hits = [
        search_pb2.Hit(
            rank=rank,
            score=score,
            document_id=document_id,
            title=title,
            chunk_index=chunk.chunk_index,
            char_start=chunk.char_start,
            char_end=chunk.char_end,
            line_start=chunk.line_start,
            line_end=chunk.line_end,
            headings=chunk.headings,
            text=chunk.text,
            dense_score=score / 2,
            sparse_score=10 * score,
            explanation=search_pb2.Explanation(dense_rank=rank, sparse_rank=rank, summary="half cosine, half words"),
        )
        for rank, (score, chunk) in enumerate(best, start=1)
    ]
    year = metadata_pb2.MetadataValue(integer=2020)
    return search_pb2.DocumentGroup(
        score=best[0][0], document_id=document_id, title=title, chunk_count=count, hits=hits, metadata={"year": year}
    )
