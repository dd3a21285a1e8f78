"""Search, retrieval, similar documents, a document's chunks, and embeddings."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Query, Request
from fastapi.responses import JSONResponse
from mambasearch.v1 import search_pb2

from services.http.calling import Parts
from services.http.embeddings import EmbeddingsRequest, EmbeddingsResponse, embed
from services.http.messages import to_json, to_message
from services.http.models.search_pb2_json import (
    ListChunksRequest,
    ListChunksResponse,
    RetrieveRequest,
    RetrieveResponse,
    SearchRequest,
    SearchResponse,
    SimilarDocumentsRequest,
    SimilarDocumentsResponse,
)
from services.http.problems import EMBEDDINGS_PATH


def search_routes(parts: Parts, responses: dict[int | str, dict[str, Any]]) -> APIRouter:
    """Make the routes; ``responses`` describes what they answer where they fail."""
    router = APIRouter(tags=["search"], responses=responses)

    @router.post("/v1/search", response_model=SearchResponse)
    async def search(body: SearchRequest, request: Request) -> JSONResponse:
        """Find the chunks that answer a query best."""
        message = to_message(body, search_pb2.SearchRequest())
        return JSONResponse(to_json(await parts.ask_search(request, "Search", message)))

    @router.post("/v1/retrieve", response_model=RetrieveResponse)
    async def retrieve(body: RetrieveRequest, request: Request) -> JSONResponse:
        """Find passages for a language model's context, within a budget of tokens."""
        message = to_message(body, search_pb2.RetrieveRequest())
        return JSONResponse(to_json(await parts.ask_search(request, "Retrieve", message)))

    @router.post("/v1/similar", response_model=SimilarDocumentsResponse)
    async def similar(body: SimilarDocumentsRequest, request: Request) -> JSONResponse:
        """Find the documents that are most like one in the index."""
        message = to_message(body, search_pb2.SimilarDocumentsRequest())
        return JSONResponse(to_json(await parts.ask_search(request, "SimilarDocuments", message)))

    @router.get("/v1/documents/{document_id:path}/chunks", response_model=ListChunksResponse)
    async def list_chunks(
        document_id: str, asked: Annotated[ListChunksRequest, Query()], request: Request
    ) -> JSONResponse:
        """Read a document's chunks in their order. Slashes in its id may stand as they are."""
        message = to_message(asked, search_pb2.ListChunksRequest(document_id=document_id))
        return JSONResponse(to_json(await parts.ask_search(request, "ListChunks", message)))

    @router.post(EMBEDDINGS_PATH, response_model=EmbeddingsResponse, tags=["embeddings"])
    async def embeddings(body: EmbeddingsRequest, request: Request) -> JSONResponse:
        """Encode texts, as OpenAI's API does: in the role of passages unless input_type says query."""
        return JSONResponse(await parts.ask_encoder(request, lambda encoder: embed(encoder, body)))

    return router
