"""Requests of ``search.proto`` as this room's own."""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum
from typing import TypeVar

import numpy as np
from mambasearch.v1 import search_pb2

from encoder.errors import InvalidInput
from ingest.documents import named_tenant
from ingest.filters import Filter
from ingest.index.filter_messages import filter_from_message
from ingest.index.interface import ReadConsistency
from services.search.requests import (
    GROUP_CHUNKS,
    MMR_LAMBDA,
    RETRIEVE_TOP_K,
    TOKEN_BUDGET,
    TOP_K,
    ChunksRequest,
    FusionChoice,
    FusionMethod,
    PassageOrder,
    RetrieveRequest,
    SearchRequest,
    SimilarRequest,
)
from services.search.results import SearchMode
from services.search.unknown_fields import refuse_unknown_fields

_Chosen = TypeVar("_Chosen")

MODES: Mapping[int, SearchMode | None] = {
    search_pb2.SEARCH_MODE_UNSPECIFIED: None,
    search_pb2.SEARCH_MODE_DENSE: SearchMode.DENSE,
    search_pb2.SEARCH_MODE_SPARSE: SearchMode.SPARSE,
    search_pb2.SEARCH_MODE_HYBRID: SearchMode.HYBRID,
}
METHODS: Mapping[int, FusionMethod | None] = {
    search_pb2.FUSION_METHOD_UNSPECIFIED: None,
    search_pb2.FUSION_METHOD_FITTED: FusionMethod.FITTED,
    search_pb2.FUSION_METHOD_RECIPROCAL_RANK: FusionMethod.RECIPROCAL_RANK,
}
ORDERS: Mapping[int, PassageOrder] = {
    search_pb2.PASSAGE_ORDER_UNSPECIFIED: PassageOrder.SCORE,
    search_pb2.PASSAGE_ORDER_SCORE: PassageOrder.SCORE,
    search_pb2.PASSAGE_ORDER_DOCUMENT: PassageOrder.DOCUMENT,
}
CONSISTENCIES: Mapping[int, ReadConsistency] = {
    search_pb2.READ_CONSISTENCY_UNSPECIFIED: ReadConsistency.DEFAULT,
    search_pb2.READ_CONSISTENCY_MAJORITY: ReadConsistency.MAJORITY,
    search_pb2.READ_CONSISTENCY_QUORUM: ReadConsistency.QUORUM,
    search_pb2.READ_CONSISTENCY_ALL: ReadConsistency.ALL,
}


def search_from_message(message: search_pb2.SearchRequest) -> SearchRequest:
    """Read a search; :class:`InvalidInput` for what says nothing that is known. Limits are checked later."""
    refuse_unknown_fields(message)
    group_chunks = None
    if message.HasField("group_by_document"):
        group_chunks = message.group_by_document.chunks_max or GROUP_CHUNKS
    return SearchRequest(
        message.query,
        _chosen("mode", MODES, message.mode),
        message.top_k or TOP_K,
        named_tenant(message.tenant),
        embedding=np.array(message.embedding, dtype=np.float32) if message.embedding else None,
        filter=_filter(message),
        fusion=_fusion(message),
        group_chunks=group_chunks,
        mmr_lambda=_mmr_lambda(message),
        min_score=message.min_score if message.HasField("min_score") else None,
        consistency=_chosen("consistency", CONSISTENCIES, message.consistency),
        page_token=message.page_token,
        explain=message.explain,
    )


def retrieve_from_message(message: search_pb2.RetrieveRequest) -> RetrieveRequest:
    """Read what passages are asked for; errors as for :func:`search_from_message`."""
    refuse_unknown_fields(message)
    search = SearchRequest(
        message.query,
        _chosen("mode", MODES, message.mode),
        message.top_k or RETRIEVE_TOP_K,
        named_tenant(message.tenant),
        embedding=np.array(message.embedding, dtype=np.float32) if message.embedding else None,
        filter=_filter(message),
        fusion=_fusion(message),
        mmr_lambda=_mmr_lambda(message),
        min_score=message.min_score if message.HasField("min_score") else None,
        consistency=_chosen("consistency", CONSISTENCIES, message.consistency),
    )
    order = _chosen("order", ORDERS, message.order)
    return RetrieveRequest(search, message.token_budget or TOKEN_BUDGET, message.neighbours, order)


def similar_from_message(message: search_pb2.SimilarDocumentsRequest) -> SimilarRequest:
    """Read which documents are asked for; errors as for :func:`search_from_message`."""
    refuse_unknown_fields(message)
    return SimilarRequest(
        message.document_id,
        message.top_k or TOP_K,
        named_tenant(message.tenant),
        _filter(message),
        message.min_score if message.HasField("min_score") else None,
        message.chunks_max or GROUP_CHUNKS,
        _chosen("consistency", CONSISTENCIES, message.consistency),
    )


def chunks_from_message(message: search_pb2.ListChunksRequest) -> ChunksRequest:
    """Read which chunks are asked for; errors as for :func:`search_from_message`."""
    refuse_unknown_fields(message)
    return ChunksRequest(
        message.document_id,
        named_tenant(message.tenant),
        message.chunk_index_first,
        message.page_size,
        message.page_token,
        _chosen("consistency", CONSISTENCIES, message.consistency),
    )


def _filter(
    message: search_pb2.SearchRequest | search_pb2.RetrieveRequest | search_pb2.SimilarDocumentsRequest,
) -> Filter | None:
    return filter_from_message(message.filter) if message.HasField("filter") else None


def _fusion(message: search_pb2.SearchRequest | search_pb2.RetrieveRequest) -> FusionChoice | None:
    if not message.HasField("fusion"):
        return None
    fusion = message.fusion
    return FusionChoice(
        _chosen("fusion.method", METHODS, fusion.method),
        fusion.dense_weight if fusion.HasField("dense_weight") else None,
        fusion.sparse_weight if fusion.HasField("sparse_weight") else None,
        fusion.rank_constant or None,
    )


def _mmr_lambda(message: search_pb2.SearchRequest | search_pb2.RetrieveRequest) -> float | None:
    if not message.HasField("diversity"):
        return None
    return message.diversity.mmr_lambda if message.diversity.HasField("mmr_lambda") else MMR_LAMBDA


def _chosen(name: str, known: Mapping[int, _Chosen], value: int) -> _Chosen:
    if value in known:
        return known[value]
    numbers = ", ".join(
        f"{number} ({meant.value})" for number, meant in known.items() if number and isinstance(meant, Enum)
    )
    raise InvalidInput(name, f"{name} is {value}; {numbers} are known, and 0 is the default.")
