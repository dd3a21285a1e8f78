import datetime

from google.protobuf import timestamp_pb2 as _timestamp_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class OpenIndexRequest(_message.Message):
    __slots__ = ("fingerprint", "dimension")
    FINGERPRINT_FIELD_NUMBER: _ClassVar[int]
    DIMENSION_FIELD_NUMBER: _ClassVar[int]
    fingerprint: str
    dimension: int
    def __init__(self, fingerprint: _Optional[str] = ..., dimension: _Optional[int] = ...) -> None: ...

class OpenIndexResponse(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class TermWeights(_message.Message):
    __slots__ = ("indices", "values")
    INDICES_FIELD_NUMBER: _ClassVar[int]
    VALUES_FIELD_NUMBER: _ClassVar[int]
    indices: _containers.RepeatedScalarFieldContainer[int]
    values: _containers.RepeatedScalarFieldContainer[float]
    def __init__(self, indices: _Optional[_Iterable[int]] = ..., values: _Optional[_Iterable[float]] = ...) -> None: ...

class IndexChunk(_message.Message):
    __slots__ = ("document_id", "generation", "chunk_index", "char_start", "char_end", "token_count", "text")
    DOCUMENT_ID_FIELD_NUMBER: _ClassVar[int]
    GENERATION_FIELD_NUMBER: _ClassVar[int]
    CHUNK_INDEX_FIELD_NUMBER: _ClassVar[int]
    CHAR_START_FIELD_NUMBER: _ClassVar[int]
    CHAR_END_FIELD_NUMBER: _ClassVar[int]
    TOKEN_COUNT_FIELD_NUMBER: _ClassVar[int]
    TEXT_FIELD_NUMBER: _ClassVar[int]
    document_id: str
    generation: int
    chunk_index: int
    char_start: int
    char_end: int
    token_count: int
    text: str
    def __init__(self, document_id: _Optional[str] = ..., generation: _Optional[int] = ..., chunk_index: _Optional[int] = ..., char_start: _Optional[int] = ..., char_end: _Optional[int] = ..., token_count: _Optional[int] = ..., text: _Optional[str] = ...) -> None: ...

class UpsertChunksRequest(_message.Message):
    __slots__ = ("chunks", "embeddings", "sparse")
    CHUNKS_FIELD_NUMBER: _ClassVar[int]
    EMBEDDINGS_FIELD_NUMBER: _ClassVar[int]
    SPARSE_FIELD_NUMBER: _ClassVar[int]
    chunks: _containers.RepeatedCompositeFieldContainer[IndexChunk]
    embeddings: bytes
    sparse: _containers.RepeatedCompositeFieldContainer[TermWeights]
    def __init__(self, chunks: _Optional[_Iterable[_Union[IndexChunk, _Mapping]]] = ..., embeddings: _Optional[bytes] = ..., sparse: _Optional[_Iterable[_Union[TermWeights, _Mapping]]] = ...) -> None: ...

class UpsertChunksResponse(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class CountChunksRequest(_message.Message):
    __slots__ = ("document_id", "generation")
    DOCUMENT_ID_FIELD_NUMBER: _ClassVar[int]
    GENERATION_FIELD_NUMBER: _ClassVar[int]
    document_id: str
    generation: int
    def __init__(self, document_id: _Optional[str] = ..., generation: _Optional[int] = ...) -> None: ...

class CountChunksResponse(_message.Message):
    __slots__ = ("count",)
    COUNT_FIELD_NUMBER: _ClassVar[int]
    count: int
    def __init__(self, count: _Optional[int] = ...) -> None: ...

class IndexRecord(_message.Message):
    __slots__ = ("document_id", "title", "source", "generation", "chunk_count", "token_count", "char_count", "content_hash", "ingested_at")
    DOCUMENT_ID_FIELD_NUMBER: _ClassVar[int]
    TITLE_FIELD_NUMBER: _ClassVar[int]
    SOURCE_FIELD_NUMBER: _ClassVar[int]
    GENERATION_FIELD_NUMBER: _ClassVar[int]
    CHUNK_COUNT_FIELD_NUMBER: _ClassVar[int]
    TOKEN_COUNT_FIELD_NUMBER: _ClassVar[int]
    CHAR_COUNT_FIELD_NUMBER: _ClassVar[int]
    CONTENT_HASH_FIELD_NUMBER: _ClassVar[int]
    INGESTED_AT_FIELD_NUMBER: _ClassVar[int]
    document_id: str
    title: str
    source: str
    generation: int
    chunk_count: int
    token_count: int
    char_count: int
    content_hash: str
    ingested_at: _timestamp_pb2.Timestamp
    def __init__(self, document_id: _Optional[str] = ..., title: _Optional[str] = ..., source: _Optional[str] = ..., generation: _Optional[int] = ..., chunk_count: _Optional[int] = ..., token_count: _Optional[int] = ..., char_count: _Optional[int] = ..., content_hash: _Optional[str] = ..., ingested_at: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ...) -> None: ...

class CommitRecordRequest(_message.Message):
    __slots__ = ("record",)
    RECORD_FIELD_NUMBER: _ClassVar[int]
    record: IndexRecord
    def __init__(self, record: _Optional[_Union[IndexRecord, _Mapping]] = ...) -> None: ...

class CommitRecordResponse(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class GetRecordsRequest(_message.Message):
    __slots__ = ("document_ids",)
    DOCUMENT_IDS_FIELD_NUMBER: _ClassVar[int]
    document_ids: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, document_ids: _Optional[_Iterable[str]] = ...) -> None: ...

class GetRecordsResponse(_message.Message):
    __slots__ = ("records",)
    RECORDS_FIELD_NUMBER: _ClassVar[int]
    records: _containers.RepeatedCompositeFieldContainer[IndexRecord]
    def __init__(self, records: _Optional[_Iterable[_Union[IndexRecord, _Mapping]]] = ...) -> None: ...

class GetChunksRequest(_message.Message):
    __slots__ = ("document_id", "generation", "first", "last")
    DOCUMENT_ID_FIELD_NUMBER: _ClassVar[int]
    GENERATION_FIELD_NUMBER: _ClassVar[int]
    FIRST_FIELD_NUMBER: _ClassVar[int]
    LAST_FIELD_NUMBER: _ClassVar[int]
    document_id: str
    generation: int
    first: int
    last: int
    def __init__(self, document_id: _Optional[str] = ..., generation: _Optional[int] = ..., first: _Optional[int] = ..., last: _Optional[int] = ...) -> None: ...

class GetChunksResponse(_message.Message):
    __slots__ = ("chunks",)
    CHUNKS_FIELD_NUMBER: _ClassVar[int]
    chunks: _containers.RepeatedCompositeFieldContainer[IndexChunk]
    def __init__(self, chunks: _Optional[_Iterable[_Union[IndexChunk, _Mapping]]] = ...) -> None: ...

class DeleteGenerationsRequest(_message.Message):
    __slots__ = ("document_id", "keep")
    DOCUMENT_ID_FIELD_NUMBER: _ClassVar[int]
    KEEP_FIELD_NUMBER: _ClassVar[int]
    document_id: str
    keep: int
    def __init__(self, document_id: _Optional[str] = ..., keep: _Optional[int] = ...) -> None: ...

class DeleteGenerationsResponse(_message.Message):
    __slots__ = ("count",)
    COUNT_FIELD_NUMBER: _ClassVar[int]
    count: int
    def __init__(self, count: _Optional[int] = ...) -> None: ...

class DeleteIndexedDocumentRequest(_message.Message):
    __slots__ = ("document_id",)
    DOCUMENT_ID_FIELD_NUMBER: _ClassVar[int]
    document_id: str
    def __init__(self, document_id: _Optional[str] = ...) -> None: ...

class DeleteIndexedDocumentResponse(_message.Message):
    __slots__ = ("count",)
    COUNT_FIELD_NUMBER: _ClassVar[int]
    count: int
    def __init__(self, count: _Optional[int] = ...) -> None: ...

class SearchDenseRequest(_message.Message):
    __slots__ = ("embedding", "limit")
    EMBEDDING_FIELD_NUMBER: _ClassVar[int]
    LIMIT_FIELD_NUMBER: _ClassVar[int]
    embedding: bytes
    limit: int
    def __init__(self, embedding: _Optional[bytes] = ..., limit: _Optional[int] = ...) -> None: ...

class SearchSparseRequest(_message.Message):
    __slots__ = ("sparse", "limit")
    SPARSE_FIELD_NUMBER: _ClassVar[int]
    LIMIT_FIELD_NUMBER: _ClassVar[int]
    sparse: TermWeights
    limit: int
    def __init__(self, sparse: _Optional[_Union[TermWeights, _Mapping]] = ..., limit: _Optional[int] = ...) -> None: ...

class SearchIndexResponse(_message.Message):
    __slots__ = ("hits",)
    HITS_FIELD_NUMBER: _ClassVar[int]
    hits: _containers.RepeatedCompositeFieldContainer[IndexSearchHit]
    def __init__(self, hits: _Optional[_Iterable[_Union[IndexSearchHit, _Mapping]]] = ...) -> None: ...

class IndexSearchHit(_message.Message):
    __slots__ = ("chunk", "score")
    CHUNK_FIELD_NUMBER: _ClassVar[int]
    SCORE_FIELD_NUMBER: _ClassVar[int]
    chunk: IndexChunk
    score: float
    def __init__(self, chunk: _Optional[_Union[IndexChunk, _Mapping]] = ..., score: _Optional[float] = ...) -> None: ...

class GetIndexStatsRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class GetIndexStatsResponse(_message.Message):
    __slots__ = ("document_count", "chunk_count")
    DOCUMENT_COUNT_FIELD_NUMBER: _ClassVar[int]
    CHUNK_COUNT_FIELD_NUMBER: _ClassVar[int]
    document_count: int
    chunk_count: int
    def __init__(self, document_count: _Optional[int] = ..., chunk_count: _Optional[int] = ...) -> None: ...
