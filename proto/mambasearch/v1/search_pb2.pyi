from google.protobuf import any_pb2 as _any_pb2
from google.protobuf import field_mask_pb2 as _field_mask_pb2
from mambasearch.v1 import filter_pb2 as _filter_pb2
from mambasearch.v1 import hits_pb2 as _hits_pb2
from mambasearch.v1 import metadata_pb2 as _metadata_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union
from mambasearch.v1.hits_pb2 import Fusion as Fusion
from mambasearch.v1.hits_pb2 import Grouping as Grouping
from mambasearch.v1.hits_pb2 import Diversity as Diversity
from mambasearch.v1.hits_pb2 import Hit as Hit
from mambasearch.v1.hits_pb2 import Explanation as Explanation
from mambasearch.v1.hits_pb2 import DocumentGroup as DocumentGroup
from mambasearch.v1.hits_pb2 import SearchTimings as SearchTimings
from mambasearch.v1.hits_pb2 import Chunk as Chunk
from mambasearch.v1.hits_pb2 import SearchMode as SearchMode
from mambasearch.v1.hits_pb2 import FusionMethod as FusionMethod
from mambasearch.v1.hits_pb2 import ReadConsistency as ReadConsistency

DESCRIPTOR: _descriptor.FileDescriptor
SEARCH_MODE_UNSPECIFIED: _hits_pb2.SearchMode
SEARCH_MODE_DENSE: _hits_pb2.SearchMode
SEARCH_MODE_SPARSE: _hits_pb2.SearchMode
SEARCH_MODE_HYBRID: _hits_pb2.SearchMode
FUSION_METHOD_UNSPECIFIED: _hits_pb2.FusionMethod
FUSION_METHOD_FITTED: _hits_pb2.FusionMethod
FUSION_METHOD_RECIPROCAL_RANK: _hits_pb2.FusionMethod
READ_CONSISTENCY_UNSPECIFIED: _hits_pb2.ReadConsistency
READ_CONSISTENCY_MAJORITY: _hits_pb2.ReadConsistency
READ_CONSISTENCY_QUORUM: _hits_pb2.ReadConsistency
READ_CONSISTENCY_ALL: _hits_pb2.ReadConsistency

class PassageOrder(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    PASSAGE_ORDER_UNSPECIFIED: _ClassVar[PassageOrder]
    PASSAGE_ORDER_SCORE: _ClassVar[PassageOrder]
    PASSAGE_ORDER_DOCUMENT: _ClassVar[PassageOrder]
PASSAGE_ORDER_UNSPECIFIED: PassageOrder
PASSAGE_ORDER_SCORE: PassageOrder
PASSAGE_ORDER_DOCUMENT: PassageOrder

class SearchRequest(_message.Message):
    __slots__ = ("query", "mode", "top_k", "tenant", "embedding", "filter", "fusion", "group_by_document", "diversity", "min_score", "page_token", "read_mask", "consistency", "explain")
    QUERY_FIELD_NUMBER: _ClassVar[int]
    MODE_FIELD_NUMBER: _ClassVar[int]
    TOP_K_FIELD_NUMBER: _ClassVar[int]
    TENANT_FIELD_NUMBER: _ClassVar[int]
    EMBEDDING_FIELD_NUMBER: _ClassVar[int]
    FILTER_FIELD_NUMBER: _ClassVar[int]
    FUSION_FIELD_NUMBER: _ClassVar[int]
    GROUP_BY_DOCUMENT_FIELD_NUMBER: _ClassVar[int]
    DIVERSITY_FIELD_NUMBER: _ClassVar[int]
    MIN_SCORE_FIELD_NUMBER: _ClassVar[int]
    PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    READ_MASK_FIELD_NUMBER: _ClassVar[int]
    CONSISTENCY_FIELD_NUMBER: _ClassVar[int]
    EXPLAIN_FIELD_NUMBER: _ClassVar[int]
    query: str
    mode: _hits_pb2.SearchMode
    top_k: int
    tenant: str
    embedding: _containers.RepeatedScalarFieldContainer[float]
    filter: _filter_pb2.Filter
    fusion: _hits_pb2.Fusion
    group_by_document: _hits_pb2.Grouping
    diversity: _hits_pb2.Diversity
    min_score: float
    page_token: str
    read_mask: _field_mask_pb2.FieldMask
    consistency: _hits_pb2.ReadConsistency
    explain: bool
    def __init__(self, query: _Optional[str] = ..., mode: _Optional[_Union[_hits_pb2.SearchMode, str]] = ..., top_k: _Optional[int] = ..., tenant: _Optional[str] = ..., embedding: _Optional[_Iterable[float]] = ..., filter: _Optional[_Union[_filter_pb2.Filter, _Mapping]] = ..., fusion: _Optional[_Union[_hits_pb2.Fusion, _Mapping]] = ..., group_by_document: _Optional[_Union[_hits_pb2.Grouping, _Mapping]] = ..., diversity: _Optional[_Union[_hits_pb2.Diversity, _Mapping]] = ..., min_score: _Optional[float] = ..., page_token: _Optional[str] = ..., read_mask: _Optional[_Union[_field_mask_pb2.FieldMask, _Mapping]] = ..., consistency: _Optional[_Union[_hits_pb2.ReadConsistency, str]] = ..., explain: _Optional[bool] = ...) -> None: ...

class SearchResponse(_message.Message):
    __slots__ = ("hits", "query_tokens", "timings", "groups", "next_page_token", "depth_reached")
    HITS_FIELD_NUMBER: _ClassVar[int]
    QUERY_TOKENS_FIELD_NUMBER: _ClassVar[int]
    TIMINGS_FIELD_NUMBER: _ClassVar[int]
    GROUPS_FIELD_NUMBER: _ClassVar[int]
    NEXT_PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    DEPTH_REACHED_FIELD_NUMBER: _ClassVar[int]
    hits: _containers.RepeatedCompositeFieldContainer[_hits_pb2.Hit]
    query_tokens: int
    timings: _hits_pb2.SearchTimings
    groups: _containers.RepeatedCompositeFieldContainer[_hits_pb2.DocumentGroup]
    next_page_token: str
    depth_reached: bool
    def __init__(self, hits: _Optional[_Iterable[_Union[_hits_pb2.Hit, _Mapping]]] = ..., query_tokens: _Optional[int] = ..., timings: _Optional[_Union[_hits_pb2.SearchTimings, _Mapping]] = ..., groups: _Optional[_Iterable[_Union[_hits_pb2.DocumentGroup, _Mapping]]] = ..., next_page_token: _Optional[str] = ..., depth_reached: _Optional[bool] = ...) -> None: ...

class BatchSearchRequest(_message.Message):
    __slots__ = ("requests",)
    REQUESTS_FIELD_NUMBER: _ClassVar[int]
    requests: _containers.RepeatedCompositeFieldContainer[SearchRequest]
    def __init__(self, requests: _Optional[_Iterable[_Union[SearchRequest, _Mapping]]] = ...) -> None: ...

class BatchSearchResponse(_message.Message):
    __slots__ = ("outcomes",)
    OUTCOMES_FIELD_NUMBER: _ClassVar[int]
    outcomes: _containers.RepeatedCompositeFieldContainer[SearchOutcome]
    def __init__(self, outcomes: _Optional[_Iterable[_Union[SearchOutcome, _Mapping]]] = ...) -> None: ...

class SearchOutcome(_message.Message):
    __slots__ = ("response", "failure")
    RESPONSE_FIELD_NUMBER: _ClassVar[int]
    FAILURE_FIELD_NUMBER: _ClassVar[int]
    response: SearchResponse
    failure: Failure
    def __init__(self, response: _Optional[_Union[SearchResponse, _Mapping]] = ..., failure: _Optional[_Union[Failure, _Mapping]] = ...) -> None: ...

class Failure(_message.Message):
    __slots__ = ("code", "message", "details")
    CODE_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    DETAILS_FIELD_NUMBER: _ClassVar[int]
    code: int
    message: str
    details: _containers.RepeatedCompositeFieldContainer[_any_pb2.Any]
    def __init__(self, code: _Optional[int] = ..., message: _Optional[str] = ..., details: _Optional[_Iterable[_Union[_any_pb2.Any, _Mapping]]] = ...) -> None: ...

class SearchStreamRequest(_message.Message):
    __slots__ = ("request_id", "request")
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    REQUEST_FIELD_NUMBER: _ClassVar[int]
    request_id: str
    request: SearchRequest
    def __init__(self, request_id: _Optional[str] = ..., request: _Optional[_Union[SearchRequest, _Mapping]] = ...) -> None: ...

class SearchStreamResponse(_message.Message):
    __slots__ = ("request_id", "outcome")
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    OUTCOME_FIELD_NUMBER: _ClassVar[int]
    request_id: str
    outcome: SearchOutcome
    def __init__(self, request_id: _Optional[str] = ..., outcome: _Optional[_Union[SearchOutcome, _Mapping]] = ...) -> None: ...

class RetrieveRequest(_message.Message):
    __slots__ = ("query", "mode", "token_budget", "top_k", "tenant", "embedding", "filter", "fusion", "diversity", "min_score", "neighbours", "order", "read_mask", "consistency")
    QUERY_FIELD_NUMBER: _ClassVar[int]
    MODE_FIELD_NUMBER: _ClassVar[int]
    TOKEN_BUDGET_FIELD_NUMBER: _ClassVar[int]
    TOP_K_FIELD_NUMBER: _ClassVar[int]
    TENANT_FIELD_NUMBER: _ClassVar[int]
    EMBEDDING_FIELD_NUMBER: _ClassVar[int]
    FILTER_FIELD_NUMBER: _ClassVar[int]
    FUSION_FIELD_NUMBER: _ClassVar[int]
    DIVERSITY_FIELD_NUMBER: _ClassVar[int]
    MIN_SCORE_FIELD_NUMBER: _ClassVar[int]
    NEIGHBOURS_FIELD_NUMBER: _ClassVar[int]
    ORDER_FIELD_NUMBER: _ClassVar[int]
    READ_MASK_FIELD_NUMBER: _ClassVar[int]
    CONSISTENCY_FIELD_NUMBER: _ClassVar[int]
    query: str
    mode: _hits_pb2.SearchMode
    token_budget: int
    top_k: int
    tenant: str
    embedding: _containers.RepeatedScalarFieldContainer[float]
    filter: _filter_pb2.Filter
    fusion: _hits_pb2.Fusion
    diversity: _hits_pb2.Diversity
    min_score: float
    neighbours: int
    order: PassageOrder
    read_mask: _field_mask_pb2.FieldMask
    consistency: _hits_pb2.ReadConsistency
    def __init__(self, query: _Optional[str] = ..., mode: _Optional[_Union[_hits_pb2.SearchMode, str]] = ..., token_budget: _Optional[int] = ..., top_k: _Optional[int] = ..., tenant: _Optional[str] = ..., embedding: _Optional[_Iterable[float]] = ..., filter: _Optional[_Union[_filter_pb2.Filter, _Mapping]] = ..., fusion: _Optional[_Union[_hits_pb2.Fusion, _Mapping]] = ..., diversity: _Optional[_Union[_hits_pb2.Diversity, _Mapping]] = ..., min_score: _Optional[float] = ..., neighbours: _Optional[int] = ..., order: _Optional[_Union[PassageOrder, str]] = ..., read_mask: _Optional[_Union[_field_mask_pb2.FieldMask, _Mapping]] = ..., consistency: _Optional[_Union[_hits_pb2.ReadConsistency, str]] = ...) -> None: ...

class RetrieveResponse(_message.Message):
    __slots__ = ("passages", "token_count", "timings", "context", "context_tokens", "query_tokens")
    PASSAGES_FIELD_NUMBER: _ClassVar[int]
    TOKEN_COUNT_FIELD_NUMBER: _ClassVar[int]
    TIMINGS_FIELD_NUMBER: _ClassVar[int]
    CONTEXT_FIELD_NUMBER: _ClassVar[int]
    CONTEXT_TOKENS_FIELD_NUMBER: _ClassVar[int]
    QUERY_TOKENS_FIELD_NUMBER: _ClassVar[int]
    passages: _containers.RepeatedCompositeFieldContainer[Passage]
    token_count: int
    timings: _hits_pb2.SearchTimings
    context: str
    context_tokens: int
    query_tokens: int
    def __init__(self, passages: _Optional[_Iterable[_Union[Passage, _Mapping]]] = ..., token_count: _Optional[int] = ..., timings: _Optional[_Union[_hits_pb2.SearchTimings, _Mapping]] = ..., context: _Optional[str] = ..., context_tokens: _Optional[int] = ..., query_tokens: _Optional[int] = ...) -> None: ...

class Passage(_message.Message):
    __slots__ = ("document_id", "title", "source", "chunk_index_first", "chunk_index_last", "char_start", "char_end", "text", "token_count", "score", "number", "line_start", "line_end", "headings", "metadata")
    class MetadataEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: _metadata_pb2.MetadataValue
        def __init__(self, key: _Optional[str] = ..., value: _Optional[_Union[_metadata_pb2.MetadataValue, _Mapping]] = ...) -> None: ...
    DOCUMENT_ID_FIELD_NUMBER: _ClassVar[int]
    TITLE_FIELD_NUMBER: _ClassVar[int]
    SOURCE_FIELD_NUMBER: _ClassVar[int]
    CHUNK_INDEX_FIRST_FIELD_NUMBER: _ClassVar[int]
    CHUNK_INDEX_LAST_FIELD_NUMBER: _ClassVar[int]
    CHAR_START_FIELD_NUMBER: _ClassVar[int]
    CHAR_END_FIELD_NUMBER: _ClassVar[int]
    TEXT_FIELD_NUMBER: _ClassVar[int]
    TOKEN_COUNT_FIELD_NUMBER: _ClassVar[int]
    SCORE_FIELD_NUMBER: _ClassVar[int]
    NUMBER_FIELD_NUMBER: _ClassVar[int]
    LINE_START_FIELD_NUMBER: _ClassVar[int]
    LINE_END_FIELD_NUMBER: _ClassVar[int]
    HEADINGS_FIELD_NUMBER: _ClassVar[int]
    METADATA_FIELD_NUMBER: _ClassVar[int]
    document_id: str
    title: str
    source: str
    chunk_index_first: int
    chunk_index_last: int
    char_start: int
    char_end: int
    text: str
    token_count: int
    score: float
    number: int
    line_start: int
    line_end: int
    headings: _containers.RepeatedScalarFieldContainer[str]
    metadata: _containers.MessageMap[str, _metadata_pb2.MetadataValue]
    def __init__(self, document_id: _Optional[str] = ..., title: _Optional[str] = ..., source: _Optional[str] = ..., chunk_index_first: _Optional[int] = ..., chunk_index_last: _Optional[int] = ..., char_start: _Optional[int] = ..., char_end: _Optional[int] = ..., text: _Optional[str] = ..., token_count: _Optional[int] = ..., score: _Optional[float] = ..., number: _Optional[int] = ..., line_start: _Optional[int] = ..., line_end: _Optional[int] = ..., headings: _Optional[_Iterable[str]] = ..., metadata: _Optional[_Mapping[str, _metadata_pb2.MetadataValue]] = ...) -> None: ...

class SimilarDocumentsRequest(_message.Message):
    __slots__ = ("document_id", "top_k", "tenant", "filter", "min_score", "chunks_max", "read_mask", "consistency")
    DOCUMENT_ID_FIELD_NUMBER: _ClassVar[int]
    TOP_K_FIELD_NUMBER: _ClassVar[int]
    TENANT_FIELD_NUMBER: _ClassVar[int]
    FILTER_FIELD_NUMBER: _ClassVar[int]
    MIN_SCORE_FIELD_NUMBER: _ClassVar[int]
    CHUNKS_MAX_FIELD_NUMBER: _ClassVar[int]
    READ_MASK_FIELD_NUMBER: _ClassVar[int]
    CONSISTENCY_FIELD_NUMBER: _ClassVar[int]
    document_id: str
    top_k: int
    tenant: str
    filter: _filter_pb2.Filter
    min_score: float
    chunks_max: int
    read_mask: _field_mask_pb2.FieldMask
    consistency: _hits_pb2.ReadConsistency
    def __init__(self, document_id: _Optional[str] = ..., top_k: _Optional[int] = ..., tenant: _Optional[str] = ..., filter: _Optional[_Union[_filter_pb2.Filter, _Mapping]] = ..., min_score: _Optional[float] = ..., chunks_max: _Optional[int] = ..., read_mask: _Optional[_Union[_field_mask_pb2.FieldMask, _Mapping]] = ..., consistency: _Optional[_Union[_hits_pb2.ReadConsistency, str]] = ...) -> None: ...

class SimilarDocumentsResponse(_message.Message):
    __slots__ = ("documents", "timings")
    DOCUMENTS_FIELD_NUMBER: _ClassVar[int]
    TIMINGS_FIELD_NUMBER: _ClassVar[int]
    documents: _containers.RepeatedCompositeFieldContainer[_hits_pb2.DocumentGroup]
    timings: _hits_pb2.SearchTimings
    def __init__(self, documents: _Optional[_Iterable[_Union[_hits_pb2.DocumentGroup, _Mapping]]] = ..., timings: _Optional[_Union[_hits_pb2.SearchTimings, _Mapping]] = ...) -> None: ...

class ListChunksRequest(_message.Message):
    __slots__ = ("document_id", "tenant", "chunk_index_first", "page_size", "page_token", "read_mask", "consistency")
    DOCUMENT_ID_FIELD_NUMBER: _ClassVar[int]
    TENANT_FIELD_NUMBER: _ClassVar[int]
    CHUNK_INDEX_FIRST_FIELD_NUMBER: _ClassVar[int]
    PAGE_SIZE_FIELD_NUMBER: _ClassVar[int]
    PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    READ_MASK_FIELD_NUMBER: _ClassVar[int]
    CONSISTENCY_FIELD_NUMBER: _ClassVar[int]
    document_id: str
    tenant: str
    chunk_index_first: int
    page_size: int
    page_token: str
    read_mask: _field_mask_pb2.FieldMask
    consistency: _hits_pb2.ReadConsistency
    def __init__(self, document_id: _Optional[str] = ..., tenant: _Optional[str] = ..., chunk_index_first: _Optional[int] = ..., page_size: _Optional[int] = ..., page_token: _Optional[str] = ..., read_mask: _Optional[_Union[_field_mask_pb2.FieldMask, _Mapping]] = ..., consistency: _Optional[_Union[_hits_pb2.ReadConsistency, str]] = ...) -> None: ...

class ListChunksResponse(_message.Message):
    __slots__ = ("chunks", "next_page_token", "title", "source", "chunk_count", "document_chars", "metadata")
    class MetadataEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: _metadata_pb2.MetadataValue
        def __init__(self, key: _Optional[str] = ..., value: _Optional[_Union[_metadata_pb2.MetadataValue, _Mapping]] = ...) -> None: ...
    CHUNKS_FIELD_NUMBER: _ClassVar[int]
    NEXT_PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    TITLE_FIELD_NUMBER: _ClassVar[int]
    SOURCE_FIELD_NUMBER: _ClassVar[int]
    CHUNK_COUNT_FIELD_NUMBER: _ClassVar[int]
    DOCUMENT_CHARS_FIELD_NUMBER: _ClassVar[int]
    METADATA_FIELD_NUMBER: _ClassVar[int]
    chunks: _containers.RepeatedCompositeFieldContainer[_hits_pb2.Chunk]
    next_page_token: str
    title: str
    source: str
    chunk_count: int
    document_chars: int
    metadata: _containers.MessageMap[str, _metadata_pb2.MetadataValue]
    def __init__(self, chunks: _Optional[_Iterable[_Union[_hits_pb2.Chunk, _Mapping]]] = ..., next_page_token: _Optional[str] = ..., title: _Optional[str] = ..., source: _Optional[str] = ..., chunk_count: _Optional[int] = ..., document_chars: _Optional[int] = ..., metadata: _Optional[_Mapping[str, _metadata_pb2.MetadataValue]] = ...) -> None: ...
