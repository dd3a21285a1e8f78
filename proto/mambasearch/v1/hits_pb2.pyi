from mambasearch.v1 import metadata_pb2 as _metadata_pb2
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

class FusionMethod(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    FUSION_METHOD_UNSPECIFIED: _ClassVar[FusionMethod]
    FUSION_METHOD_FITTED: _ClassVar[FusionMethod]
    FUSION_METHOD_RECIPROCAL_RANK: _ClassVar[FusionMethod]

class ReadConsistency(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    READ_CONSISTENCY_UNSPECIFIED: _ClassVar[ReadConsistency]
    READ_CONSISTENCY_MAJORITY: _ClassVar[ReadConsistency]
    READ_CONSISTENCY_QUORUM: _ClassVar[ReadConsistency]
    READ_CONSISTENCY_ALL: _ClassVar[ReadConsistency]
SEARCH_MODE_UNSPECIFIED: SearchMode
SEARCH_MODE_DENSE: SearchMode
SEARCH_MODE_SPARSE: SearchMode
SEARCH_MODE_HYBRID: SearchMode
FUSION_METHOD_UNSPECIFIED: FusionMethod
FUSION_METHOD_FITTED: FusionMethod
FUSION_METHOD_RECIPROCAL_RANK: FusionMethod
READ_CONSISTENCY_UNSPECIFIED: ReadConsistency
READ_CONSISTENCY_MAJORITY: ReadConsistency
READ_CONSISTENCY_QUORUM: ReadConsistency
READ_CONSISTENCY_ALL: ReadConsistency

class Fusion(_message.Message):
    __slots__ = ("method", "dense_weight", "sparse_weight", "rank_constant")
    METHOD_FIELD_NUMBER: _ClassVar[int]
    DENSE_WEIGHT_FIELD_NUMBER: _ClassVar[int]
    SPARSE_WEIGHT_FIELD_NUMBER: _ClassVar[int]
    RANK_CONSTANT_FIELD_NUMBER: _ClassVar[int]
    method: FusionMethod
    dense_weight: float
    sparse_weight: float
    rank_constant: int
    def __init__(self, method: _Optional[_Union[FusionMethod, str]] = ..., dense_weight: _Optional[float] = ..., sparse_weight: _Optional[float] = ..., rank_constant: _Optional[int] = ...) -> None: ...

class Grouping(_message.Message):
    __slots__ = ("chunks_max",)
    CHUNKS_MAX_FIELD_NUMBER: _ClassVar[int]
    chunks_max: int
    def __init__(self, chunks_max: _Optional[int] = ...) -> None: ...

class Diversity(_message.Message):
    __slots__ = ("mmr_lambda",)
    MMR_LAMBDA_FIELD_NUMBER: _ClassVar[int]
    mmr_lambda: float
    def __init__(self, mmr_lambda: _Optional[float] = ...) -> None: ...

class Hit(_message.Message):
    __slots__ = ("rank", "score", "document_id", "title", "source", "chunk_index", "char_start", "char_end", "text", "token_count", "document_chars", "dense_score", "sparse_score", "line_start", "line_end", "headings", "metadata", "explanation")
    class MetadataEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: _metadata_pb2.MetadataValue
        def __init__(self, key: _Optional[str] = ..., value: _Optional[_Union[_metadata_pb2.MetadataValue, _Mapping]] = ...) -> None: ...
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
    METADATA_FIELD_NUMBER: _ClassVar[int]
    EXPLANATION_FIELD_NUMBER: _ClassVar[int]
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
    metadata: _containers.MessageMap[str, _metadata_pb2.MetadataValue]
    explanation: Explanation
    def __init__(self, rank: _Optional[int] = ..., score: _Optional[float] = ..., document_id: _Optional[str] = ..., title: _Optional[str] = ..., source: _Optional[str] = ..., chunk_index: _Optional[int] = ..., char_start: _Optional[int] = ..., char_end: _Optional[int] = ..., text: _Optional[str] = ..., token_count: _Optional[int] = ..., document_chars: _Optional[int] = ..., dense_score: _Optional[float] = ..., sparse_score: _Optional[float] = ..., line_start: _Optional[int] = ..., line_end: _Optional[int] = ..., headings: _Optional[_Iterable[str]] = ..., metadata: _Optional[_Mapping[str, _metadata_pb2.MetadataValue]] = ..., explanation: _Optional[_Union[Explanation, _Mapping]] = ...) -> None: ...

class Explanation(_message.Message):
    __slots__ = ("dense_rank", "sparse_rank", "fusion", "dense_value", "sparse_value", "dense_weight", "sparse_weight", "dense_part", "sparse_part", "similarity_before", "diverse_score", "summary")
    DENSE_RANK_FIELD_NUMBER: _ClassVar[int]
    SPARSE_RANK_FIELD_NUMBER: _ClassVar[int]
    FUSION_FIELD_NUMBER: _ClassVar[int]
    DENSE_VALUE_FIELD_NUMBER: _ClassVar[int]
    SPARSE_VALUE_FIELD_NUMBER: _ClassVar[int]
    DENSE_WEIGHT_FIELD_NUMBER: _ClassVar[int]
    SPARSE_WEIGHT_FIELD_NUMBER: _ClassVar[int]
    DENSE_PART_FIELD_NUMBER: _ClassVar[int]
    SPARSE_PART_FIELD_NUMBER: _ClassVar[int]
    SIMILARITY_BEFORE_FIELD_NUMBER: _ClassVar[int]
    DIVERSE_SCORE_FIELD_NUMBER: _ClassVar[int]
    SUMMARY_FIELD_NUMBER: _ClassVar[int]
    dense_rank: int
    sparse_rank: int
    fusion: FusionMethod
    dense_value: float
    sparse_value: float
    dense_weight: float
    sparse_weight: float
    dense_part: float
    sparse_part: float
    similarity_before: float
    diverse_score: float
    summary: str
    def __init__(self, dense_rank: _Optional[int] = ..., sparse_rank: _Optional[int] = ..., fusion: _Optional[_Union[FusionMethod, str]] = ..., dense_value: _Optional[float] = ..., sparse_value: _Optional[float] = ..., dense_weight: _Optional[float] = ..., sparse_weight: _Optional[float] = ..., dense_part: _Optional[float] = ..., sparse_part: _Optional[float] = ..., similarity_before: _Optional[float] = ..., diverse_score: _Optional[float] = ..., summary: _Optional[str] = ...) -> None: ...

class DocumentGroup(_message.Message):
    __slots__ = ("rank", "score", "document_id", "title", "source", "metadata", "document_chars", "chunk_count", "hits")
    class MetadataEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: _metadata_pb2.MetadataValue
        def __init__(self, key: _Optional[str] = ..., value: _Optional[_Union[_metadata_pb2.MetadataValue, _Mapping]] = ...) -> None: ...
    RANK_FIELD_NUMBER: _ClassVar[int]
    SCORE_FIELD_NUMBER: _ClassVar[int]
    DOCUMENT_ID_FIELD_NUMBER: _ClassVar[int]
    TITLE_FIELD_NUMBER: _ClassVar[int]
    SOURCE_FIELD_NUMBER: _ClassVar[int]
    METADATA_FIELD_NUMBER: _ClassVar[int]
    DOCUMENT_CHARS_FIELD_NUMBER: _ClassVar[int]
    CHUNK_COUNT_FIELD_NUMBER: _ClassVar[int]
    HITS_FIELD_NUMBER: _ClassVar[int]
    rank: int
    score: float
    document_id: str
    title: str
    source: str
    metadata: _containers.MessageMap[str, _metadata_pb2.MetadataValue]
    document_chars: int
    chunk_count: int
    hits: _containers.RepeatedCompositeFieldContainer[Hit]
    def __init__(self, rank: _Optional[int] = ..., score: _Optional[float] = ..., document_id: _Optional[str] = ..., title: _Optional[str] = ..., source: _Optional[str] = ..., metadata: _Optional[_Mapping[str, _metadata_pb2.MetadataValue]] = ..., document_chars: _Optional[int] = ..., chunk_count: _Optional[int] = ..., hits: _Optional[_Iterable[_Union[Hit, _Mapping]]] = ...) -> None: ...

class SearchTimings(_message.Message):
    __slots__ = ("encode_time_ms", "index_time_ms", "total_time_ms", "queue_time_ms", "tokenize_time_ms", "dense_time_ms", "sparse_time_ms", "records_time_ms", "fuse_time_ms")
    ENCODE_TIME_MS_FIELD_NUMBER: _ClassVar[int]
    INDEX_TIME_MS_FIELD_NUMBER: _ClassVar[int]
    TOTAL_TIME_MS_FIELD_NUMBER: _ClassVar[int]
    QUEUE_TIME_MS_FIELD_NUMBER: _ClassVar[int]
    TOKENIZE_TIME_MS_FIELD_NUMBER: _ClassVar[int]
    DENSE_TIME_MS_FIELD_NUMBER: _ClassVar[int]
    SPARSE_TIME_MS_FIELD_NUMBER: _ClassVar[int]
    RECORDS_TIME_MS_FIELD_NUMBER: _ClassVar[int]
    FUSE_TIME_MS_FIELD_NUMBER: _ClassVar[int]
    encode_time_ms: float
    index_time_ms: float
    total_time_ms: float
    queue_time_ms: float
    tokenize_time_ms: float
    dense_time_ms: float
    sparse_time_ms: float
    records_time_ms: float
    fuse_time_ms: float
    def __init__(self, encode_time_ms: _Optional[float] = ..., index_time_ms: _Optional[float] = ..., total_time_ms: _Optional[float] = ..., queue_time_ms: _Optional[float] = ..., tokenize_time_ms: _Optional[float] = ..., dense_time_ms: _Optional[float] = ..., sparse_time_ms: _Optional[float] = ..., records_time_ms: _Optional[float] = ..., fuse_time_ms: _Optional[float] = ...) -> None: ...

class Chunk(_message.Message):
    __slots__ = ("chunk_index", "char_start", "char_end", "line_start", "line_end", "headings", "token_count", "text")
    CHUNK_INDEX_FIELD_NUMBER: _ClassVar[int]
    CHAR_START_FIELD_NUMBER: _ClassVar[int]
    CHAR_END_FIELD_NUMBER: _ClassVar[int]
    LINE_START_FIELD_NUMBER: _ClassVar[int]
    LINE_END_FIELD_NUMBER: _ClassVar[int]
    HEADINGS_FIELD_NUMBER: _ClassVar[int]
    TOKEN_COUNT_FIELD_NUMBER: _ClassVar[int]
    TEXT_FIELD_NUMBER: _ClassVar[int]
    chunk_index: int
    char_start: int
    char_end: int
    line_start: int
    line_end: int
    headings: _containers.RepeatedScalarFieldContainer[str]
    token_count: int
    text: str
    def __init__(self, chunk_index: _Optional[int] = ..., char_start: _Optional[int] = ..., char_end: _Optional[int] = ..., line_start: _Optional[int] = ..., line_end: _Optional[int] = ..., headings: _Optional[_Iterable[str]] = ..., token_count: _Optional[int] = ..., text: _Optional[str] = ...) -> None: ...
