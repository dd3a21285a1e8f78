"""What a search is asked, and the limits of it. Knows no gRPC, no index."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from enum import Enum

import numpy as np
from numpy.typing import NDArray

from encoder.errors import InvalidInput
from encoder.tokenizer import check_characters
from ingest.documents import DEFAULT_TENANT
from ingest.filters import Filter, check_filter
from ingest.index.interface import ReadConsistency
from services.search.results import SearchMode

QUERY_TOKENS_MAX = 512
# No 512 tokens of any language need more; longer queries are refused before they are tokenized.
QUERY_CHARS_MAX = 16 * QUERY_TOKENS_MAX
TOP_K = 10
TOP_K_MAX = 200
GROUP_CHUNKS = 3
GROUP_CHUNKS_MAX = 10
MMR_LAMBDA = 0.7
RANK_CONSTANT_MAX = 1000
FUSION_WEIGHT_MAX = 100.0
RETRIEVE_TOP_K = 50
TOKEN_BUDGET = 2048
TOKEN_BUDGET_MAX = 131_072
NEIGHBOURS_MAX = 5
SIMILAR_TOP_K_MAX = 100


class FusionMethod(Enum):
    """How a hybrid search makes one score of two."""

    FITTED = "fitted"
    RECIPROCAL_RANK = "reciprocal_rank"


@dataclass(frozen=True, slots=True)
class FusionChoice:
    """A method, or the model's own; weights and constant are for reciprocal ranks."""

    method: FusionMethod | None = None
    dense_weight: float | None = None  # 0 to FUSION_WEIGHT_MAX; 1 unless given
    sparse_weight: float | None = None
    rank_constant: int | None = None  # 1 to RANK_CONSTANT_MAX; RANK_CONSTANT unless given


@dataclass(frozen=True, slots=True, eq=False)
class SearchRequest:
    """A search for chunks. What holds for a page of it alone: ``top_k``, ``page_token``, ``explain``, ``texts``."""

    query: str = ""
    mode: SearchMode | None = None  # hybrid; dense where there is an embedding alone
    top_k: int = TOP_K
    tenant: str = DEFAULT_TENANT
    embedding: NDArray[np.float32] | None = field(default=None, kw_only=True)  # (d,) of any length as a vector
    filter: Filter | None = field(default=None, kw_only=True)
    fusion: FusionChoice | None = field(default=None, kw_only=True)
    group_chunks: int | None = field(default=None, kw_only=True)  # most of each document; None: not grouped
    mmr_lambda: float | None = field(default=None, kw_only=True)  # None: not diversified
    min_score: float | None = field(default=None, kw_only=True)  # of the cosine
    consistency: ReadConsistency = field(default=ReadConsistency.DEFAULT, kw_only=True)
    page_token: str = field(default="", kw_only=True)
    explain: bool = field(default=False, kw_only=True)
    texts: bool = field(default=True, kw_only=True)  # False: hits come without what has to be read of their chunks

    @property
    def scored_by(self) -> SearchMode:
        """The mode, or the default."""
        if self.mode is not None:
            return self.mode
        return SearchMode.HYBRID if self.query or self.embedding is None else SearchMode.DENSE


class PassageOrder(Enum):
    """In which order passages stand."""

    SCORE = "score"  # best first
    DOCUMENT = "document"  # documents by their best passage, and in each as it goes


@dataclass(frozen=True, slots=True)
class RetrieveRequest:
    """Passages for a language model's context, made of what ``search`` finds."""

    search: SearchRequest
    token_budget: int = TOKEN_BUDGET  # of the text block, citations included
    neighbours: int = 0  # chunks before and after each hit, where the budget allows
    order: PassageOrder = PassageOrder.SCORE


@dataclass(frozen=True, slots=True)
class SimilarRequest:
    """Documents like one of the tenant's."""

    document_id: str
    top_k: int = TOP_K
    tenant: str = DEFAULT_TENANT
    filter: Filter | None = None
    min_score: float | None = None
    group_chunks: int = GROUP_CHUNKS
    consistency: ReadConsistency = ReadConsistency.DEFAULT


@dataclass(frozen=True, slots=True)
class ChunksRequest:
    """A document's chunks, from one on."""

    document_id: str
    tenant: str = DEFAULT_TENANT
    chunk_index_first: int = 0
    page_size: int = 0  # 0: the default
    page_token: str = ""
    consistency: ReadConsistency = ReadConsistency.DEFAULT


def check_search(request: SearchRequest) -> None:
    """Refuse what cannot be searched for: :class:`InvalidInput` names the field. The embedding is checked later."""
    mode = request.scored_by
    _check_text(request, mode)
    _check_number("top_k", request.top_k, 1, TOP_K_MAX)
    if mode is SearchMode.SPARSE and request.embedding is not None:
        raise InvalidInput("embedding", "embedding is given, and mode sparse has no use for it; leave it out.")
    if request.fusion is not None:
        _check_fusion(request.fusion, mode)
    if request.group_chunks is not None:
        _check_number("group_by_document.chunks_max", request.group_chunks, 1, GROUP_CHUNKS_MAX)
        if request.mmr_lambda is not None:
            raise InvalidInput("diversity", "diversity is given together with group_by_document; choose one of them.")
    if request.mmr_lambda is not None:
        _check_number("diversity.mmr_lambda", request.mmr_lambda, 0, 1)
    if request.min_score is not None:
        if mode is SearchMode.SPARSE:
            message = "min_score is a cosine, and mode sparse has none; leave it out, or search in mode hybrid."
            raise InvalidInput("min_score", message)
        _check_number("min_score", request.min_score, -1, 1)
    if request.filter is not None:
        check_filter(request.filter)


def check_retrieve(request: RetrieveRequest) -> None:
    """Refuse what no passages can be made for, beside what :func:`check_search` refuses."""
    _check_number("token_budget", request.token_budget, 1, TOKEN_BUDGET_MAX)
    _check_number("neighbours", request.neighbours, 0, NEIGHBOURS_MAX)


def check_similar(request: SimilarRequest) -> None:
    """Refuse limits that cannot be kept: :class:`InvalidInput` names the field."""
    _check_number("top_k", request.top_k, 1, SIMILAR_TOP_K_MAX)
    _check_number("chunks_max", request.group_chunks, 1, GROUP_CHUNKS_MAX)
    if request.min_score is not None:
        _check_number("min_score", request.min_score, -1, 1)
    if request.filter is not None:
        check_filter(request.filter)


def check_embedding(embedding: NDArray[np.float32], dimension: int) -> NDArray[np.float32]:
    """Give a query's embedding at length 1; :class:`InvalidInput` where it is none of this index."""
    if embedding.shape != (dimension,):
        size = embedding.size
        raise InvalidInput("embedding", f"embedding has {size} numbers; the index has embeddings of {dimension}.")
    wrong = np.flatnonzero(~np.isfinite(embedding))
    if wrong.size:
        place, value = int(wrong[0]), embedding[wrong[0]]
        raise InvalidInput(f"embedding[{place}]", f"embedding[{place}] is {value}; give finite numbers.")
    # The squares of large or small numbers would be infinite, or nothing.
    scaled = embedding.astype(np.float64)
    length = float(np.linalg.norm(scaled))
    if length == 0:
        raise InvalidInput("embedding", "embedding is 0 in all numbers; a cosine needs a direction.")
    return (scaled / length).astype(np.float32)


def unpaged(request: SearchRequest) -> SearchRequest:
    """Give what a page's token is bound to: the request without what may differ from page to page."""
    return replace(request, mode=request.scored_by, top_k=0, page_token="", explain=False, texts=True)


def _check_text(request: SearchRequest, mode: SearchMode) -> None:
    query = request.query
    check_characters("query", query)
    if not query.strip():
        if request.embedding is None:
            raise InvalidInput("query", "query is empty or only white space; say what to look for.")
        if query or mode is not SearchMode.DENSE:
            message = f"query is empty or only white space, and mode {mode.value} needs words; search in mode dense."
            raise InvalidInput("query", message)
    if len(query) > QUERY_CHARS_MAX:
        message = f"query has {len(query)} characters; the limit is {QUERY_CHARS_MAX}. Shorten it."
        raise InvalidInput("query", message)


def _check_fusion(choice: FusionChoice, mode: SearchMode) -> None:
    if mode is not SearchMode.HYBRID:
        raise InvalidInput("fusion", f"fusion is given, and mode {mode.value} fuses nothing; leave it out.")
    for name, weight in (("dense_weight", choice.dense_weight), ("sparse_weight", choice.sparse_weight)):
        if weight is not None:
            _check_number(f"fusion.{name}", weight, 0, FUSION_WEIGHT_MAX)
    if choice.dense_weight == 0 == choice.sparse_weight:
        raise InvalidInput("fusion", "fusion.dense_weight and fusion.sparse_weight are both 0; give one of them more.")
    if choice.rank_constant is not None:
        _check_number("fusion.rank_constant", choice.rank_constant, 1, RANK_CONSTANT_MAX)


def _check_number(name: str, value: float, least: float, most: float) -> None:
    # Written so that NaN, which is neither below nor above anything, is refused, too.
    if not (math.isfinite(value) and least <= value <= most):
        raise InvalidInput(name, f"{name} is {value}; {least} to {most} are allowed.")
