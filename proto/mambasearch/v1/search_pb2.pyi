from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class SearchMode(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    SEARCH_MODE_UNSPECIFIED: _ClassVar[SearchMode]
    SEARCH_MODE_DENSE: _ClassVar[SearchMode]
    SEARCH_MODE_SPARSE: _ClassVar[SearchMode]
    SEARCH_MODE_HYBRID: _ClassVar[SearchMode]
SEARCH_MODE_UNSPECIFIED: SearchMode
SEARCH_MODE_DENSE: SearchMode
SEARCH_MODE_SPARSE: SearchMode
SEARCH_MODE_HYBRID: SearchMode

class SearchRequest(_message.Message):
    __slots__ = ("query", "mode", "top_k", "tenant")
    QUERY_FIELD_NUMBER: _ClassVar[int]
    MODE_FIELD_NUMBER: _ClassVar[int]
    TOP_K_FIELD_NUMBER: _ClassVar[int]
    TENANT_FIELD_NUMBER: _ClassVar[int]
    query: str
    mode: SearchMode
    top_k: int
    tenant: str
    def __init__(self, query: _Optional[str] = ..., mode: _Optional[_Union[SearchMode, str]] = ..., top_k: _Optional[int] = ..., tenant: _Optional[str] = ...) -> None: ...

class SearchResponse(_message.Message):
    __slots__ = ("hits", "query_tokens", "timings")
    HITS_FIELD_NUMBER: _ClassVar[int]
    QUERY_TOKENS_FIELD_NUMBER: _ClassVar[int]
    TIMINGS_FIELD_NUMBER: _ClassVar[int]
    hits: _containers.RepeatedCompositeFieldContainer[Hit]
    query_tokens: int
    timings: SearchTimings
    def __init__(self, hits: _Optional[_Iterable[_Union[Hit, _Mapping]]] = ..., query_tokens: _Optional[int] = ..., timings: _Optional[_Union[SearchTimings, _Mapping]] = ...) -> None: ...

class Hit(_message.Message):
    __slots__ = ("rank", "score", "document_id", "title", "source", "chunk_index", "char_start", "char_end", "text", "token_count", "document_chars", "dense_score", "sparse_score", "line_start", "line_end", "headings")
    RANK_FIELD_NUMBER: _ClassVar[int]
    SCORE_FIELD_NUMBER: _ClassVar[int]
    DOCUMENT_ID_FIELD_NUMBER: _ClassVar[int]
    TITLE_FIELD_NUMBER: _ClassVar[int]
    SOURCE_FIELD_NUMBER: _ClassVar[int]
    CHUNK_INDEX_FIELD_NUMBER: _ClassVar[int]
    CHAR_START_FIELD_NUMBER: _ClassVar[int]
    CHAR_END_FIELD_NUMBER: _ClassVar[int]
    TEXT_FIELD_NUMBER: _ClassVar[int]
    TOKEN_COUNT_FIELD_NUMBER: _ClassVar[int]
    DOCUMENT_CHARS_FIELD_NUMBER: _ClassVar[int]
    DENSE_SCORE_FIELD_NUMBER: _ClassVar[int]
    SPARSE_SCORE_FIELD_NUMBER: _ClassVar[int]
    LINE_START_FIELD_NUMBER: _ClassVar[int]
    LINE_END_FIELD_NUMBER: _ClassVar[int]
    HEADINGS_FIELD_NUMBER: _ClassVar[int]
    rank: int
    score: float
    document_id: str
    title: str
    source: str
    chunk_index: int
    char_start: int
    char_end: int
    text: str
    token_count: int
    document_chars: int
    dense_score: float
    sparse_score: float
    line_start: int
    line_end: int
    headings: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, rank: _Optional[int] = ..., score: _Optional[float] = ..., document_id: _Optional[str] = ..., title: _Optional[str] = ..., source: _Optional[str] = ..., chunk_index: _Optional[int] = ..., char_start: _Optional[int] = ..., char_end: _Optional[int] = ..., text: _Optional[str] = ..., token_count: _Optional[int] = ..., document_chars: _Optional[int] = ..., dense_score: _Optional[float] = ..., sparse_score: _Optional[float] = ..., line_start: _Optional[int] = ..., line_end: _Optional[int] = ..., headings: _Optional[_Iterable[str]] = ...) -> None: ...

class SearchTimings(_message.Message):
    __slots__ = ("encode_time_ms", "index_time_ms", "total_time_ms")
    ENCODE_TIME_MS_FIELD_NUMBER: _ClassVar[int]
    INDEX_TIME_MS_FIELD_NUMBER: _ClassVar[int]
    TOTAL_TIME_MS_FIELD_NUMBER: _ClassVar[int]
    encode_time_ms: float
    index_time_ms: float
    total_time_ms: float
    def __init__(self, encode_time_ms: _Optional[float] = ..., index_time_ms: _Optional[float] = ..., total_time_ms: _Optional[float] = ...) -> None: ...

class RetrieveRequest(_message.Message):
    __slots__ = ("query", "mode", "token_budget", "top_k", "tenant")
    QUERY_FIELD_NUMBER: _ClassVar[int]
    MODE_FIELD_NUMBER: _ClassVar[int]
    TOKEN_BUDGET_FIELD_NUMBER: _ClassVar[int]
    TOP_K_FIELD_NUMBER: _ClassVar[int]
    TENANT_FIELD_NUMBER: _ClassVar[int]
    query: str
    mode: SearchMode
    token_budget: int
    top_k: int
    tenant: str
    def __init__(self, query: _Optional[str] = ..., mode: _Optional[_Union[SearchMode, str]] = ..., token_budget: _Optional[int] = ..., top_k: _Optional[int] = ..., tenant: _Optional[str] = ...) -> None: ...

class RetrieveResponse(_message.Message):
    __slots__ = ("passages", "token_count", "timings")
    PASSAGES_FIELD_NUMBER: _ClassVar[int]
    TOKEN_COUNT_FIELD_NUMBER: _ClassVar[int]
    TIMINGS_FIELD_NUMBER: _ClassVar[int]
    passages: _containers.RepeatedCompositeFieldContainer[Passage]
    token_count: int
    timings: SearchTimings
    def __init__(self, passages: _Optional[_Iterable[_Union[Passage, _Mapping]]] = ..., token_count: _Optional[int] = ..., timings: _Optional[_Union[SearchTimings, _Mapping]] = ...) -> None: ...

class Passage(_message.Message):
    __slots__ = ("document_id", "title", "source", "chunk_index_first", "chunk_index_last", "char_start", "char_end", "text", "token_count", "score")
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
    def __init__(self, document_id: _Optional[str] = ..., title: _Optional[str] = ..., source: _Optional[str] = ..., chunk_index_first: _Optional[int] = ..., chunk_index_last: _Optional[int] = ..., char_start: _Optional[int] = ..., char_end: _Optional[int] = ..., text: _Optional[str] = ..., token_count: _Optional[int] = ..., score: _Optional[float] = ...) -> None: ...
