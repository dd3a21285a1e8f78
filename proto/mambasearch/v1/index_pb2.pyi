import datetime

from google.protobuf import timestamp_pb2 as _timestamp_pb2
from mambasearch.v1 import index_search_pb2 as _index_search_pb2
from mambasearch.v1 import metadata_pb2 as _metadata_pb2
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

class IndexDocumentKey(_message.Message):
    __slots__ = ("tenant", "document_id")
    TENANT_FIELD_NUMBER: _ClassVar[int]
    DOCUMENT_ID_FIELD_NUMBER: _ClassVar[int]
    tenant: str
    document_id: str
    def __init__(self, tenant: _Optional[str] = ..., document_id: _Optional[str] = ...) -> None: ...

class IndexChunk(_message.Message):
    __slots__ = ("key", "generation", "chunk_index", "char_start", "char_end", "line_start", "line_end", "headings", "token_count", "text")
    KEY_FIELD_NUMBER: _ClassVar[int]
    GENERATION_FIELD_NUMBER: _ClassVar[int]
    CHUNK_INDEX_FIELD_NUMBER: _ClassVar[int]
    CHAR_START_FIELD_NUMBER: _ClassVar[int]
    CHAR_END_FIELD_NUMBER: _ClassVar[int]
    LINE_START_FIELD_NUMBER: _ClassVar[int]
    LINE_END_FIELD_NUMBER: _ClassVar[int]
    HEADINGS_FIELD_NUMBER: _ClassVar[int]
    TOKEN_COUNT_FIELD_NUMBER: _ClassVar[int]
    TEXT_FIELD_NUMBER: _ClassVar[int]
    key: IndexDocumentKey
    generation: int
    chunk_index: int
    char_start: int
    char_end: int
    line_start: int
    line_end: int
    headings: _containers.RepeatedScalarFieldContainer[str]
    token_count: int
    text: str
    def __init__(self, key: _Optional[_Union[IndexDocumentKey, _Mapping]] = ..., generation: _Optional[int] = ..., chunk_index: _Optional[int] = ..., char_start: _Optional[int] = ..., char_end: _Optional[int] = ..., line_start: _Optional[int] = ..., line_end: _Optional[int] = ..., headings: _Optional[_Iterable[str]] = ..., token_count: _Optional[int] = ..., text: _Optional[str] = ...) -> None: ...

class UpsertChunksRequest(_message.Message):
    __slots__ = ("chunks", "embeddings", "sparse", "fields", "fields_of")
    CHUNKS_FIELD_NUMBER: _ClassVar[int]
    EMBEDDINGS_FIELD_NUMBER: _ClassVar[int]
    SPARSE_FIELD_NUMBER: _ClassVar[int]
    FIELDS_FIELD_NUMBER: _ClassVar[int]
    FIELDS_OF_FIELD_NUMBER: _ClassVar[int]
    chunks: _containers.RepeatedCompositeFieldContainer[IndexChunk]
    embeddings: bytes
    sparse: _containers.RepeatedCompositeFieldContainer[_index_search_pb2.TermWeights]
    fields: _containers.RepeatedCompositeFieldContainer[IndexFields]
    fields_of: _containers.RepeatedScalarFieldContainer[int]
    def __init__(self, chunks: _Optional[_Iterable[_Union[IndexChunk, _Mapping]]] = ..., embeddings: _Optional[bytes] = ..., sparse: _Optional[_Iterable[_Union[_index_search_pb2.TermWeights, _Mapping]]] = ..., fields: _Optional[_Iterable[_Union[IndexFields, _Mapping]]] = ..., fields_of: _Optional[_Iterable[int]] = ...) -> None: ...

class IndexFields(_message.Message):
    __slots__ = ("tokens", "ranges")
    class RangesEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: float
        def __init__(self, key: _Optional[str] = ..., value: _Optional[float] = ...) -> None: ...
    TOKENS_FIELD_NUMBER: _ClassVar[int]
    RANGES_FIELD_NUMBER: _ClassVar[int]
    tokens: _containers.RepeatedScalarFieldContainer[int]
    ranges: _containers.ScalarMap[str, float]
    def __init__(self, tokens: _Optional[_Iterable[int]] = ..., ranges: _Optional[_Mapping[str, float]] = ...) -> None: ...

class UpsertChunksResponse(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class IndexVersions(_message.Message):
    __slots__ = ("key", "generations")
    KEY_FIELD_NUMBER: _ClassVar[int]
    GENERATIONS_FIELD_NUMBER: _ClassVar[int]
    key: IndexDocumentKey
    generations: _containers.RepeatedScalarFieldContainer[int]
    def __init__(self, key: _Optional[_Union[IndexDocumentKey, _Mapping]] = ..., generations: _Optional[_Iterable[int]] = ...) -> None: ...

class CountChunksRequest(_message.Message):
    __slots__ = ("versions",)
    VERSIONS_FIELD_NUMBER: _ClassVar[int]
    versions: _containers.RepeatedCompositeFieldContainer[IndexVersions]
    def __init__(self, versions: _Optional[_Iterable[_Union[IndexVersions, _Mapping]]] = ...) -> None: ...

class CountChunksResponse(_message.Message):
    __slots__ = ("counts",)
    COUNTS_FIELD_NUMBER: _ClassVar[int]
    counts: _containers.RepeatedScalarFieldContainer[int]
    def __init__(self, counts: _Optional[_Iterable[int]] = ...) -> None: ...

class IndexRecord(_message.Message):
    __slots__ = ("key", "title", "source", "metadata", "generation", "chunk_count", "token_count", "char_count", "content_hash", "metadata_hash", "ingested_at", "earlier")
    class MetadataEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: _metadata_pb2.MetadataValue
        def __init__(self, key: _Optional[str] = ..., value: _Optional[_Union[_metadata_pb2.MetadataValue, _Mapping]] = ...) -> None: ...
    KEY_FIELD_NUMBER: _ClassVar[int]
    TITLE_FIELD_NUMBER: _ClassVar[int]
    SOURCE_FIELD_NUMBER: _ClassVar[int]
    METADATA_FIELD_NUMBER: _ClassVar[int]
    GENERATION_FIELD_NUMBER: _ClassVar[int]
    CHUNK_COUNT_FIELD_NUMBER: _ClassVar[int]
    TOKEN_COUNT_FIELD_NUMBER: _ClassVar[int]
    CHAR_COUNT_FIELD_NUMBER: _ClassVar[int]
    CONTENT_HASH_FIELD_NUMBER: _ClassVar[int]
    METADATA_HASH_FIELD_NUMBER: _ClassVar[int]
    INGESTED_AT_FIELD_NUMBER: _ClassVar[int]
    EARLIER_FIELD_NUMBER: _ClassVar[int]
    key: IndexDocumentKey
    title: str
    source: str
    metadata: _containers.MessageMap[str, _metadata_pb2.MetadataValue]
    generation: int
    chunk_count: int
    token_count: int
    char_count: int
    content_hash: str
    metadata_hash: str
    ingested_at: _timestamp_pb2.Timestamp
    earlier: _containers.RepeatedCompositeFieldContainer[IndexSegment]
    def __init__(self, key: _Optional[_Union[IndexDocumentKey, _Mapping]] = ..., title: _Optional[str] = ..., source: _Optional[str] = ..., metadata: _Optional[_Mapping[str, _metadata_pb2.MetadataValue]] = ..., generation: _Optional[int] = ..., chunk_count: _Optional[int] = ..., token_count: _Optional[int] = ..., char_count: _Optional[int] = ..., content_hash: _Optional[str] = ..., metadata_hash: _Optional[str] = ..., ingested_at: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., earlier: _Optional[_Iterable[_Union[IndexSegment, _Mapping]]] = ...) -> None: ...

class IndexSegment(_message.Message):
    __slots__ = ("generation", "chunk_count")
    GENERATION_FIELD_NUMBER: _ClassVar[int]
    CHUNK_COUNT_FIELD_NUMBER: _ClassVar[int]
    generation: int
    chunk_count: int
    def __init__(self, generation: _Optional[int] = ..., chunk_count: _Optional[int] = ...) -> None: ...

class IndexCommit(_message.Message):
    __slots__ = ("record", "in_place_of")
    RECORD_FIELD_NUMBER: _ClassVar[int]
    IN_PLACE_OF_FIELD_NUMBER: _ClassVar[int]
    record: IndexRecord
    in_place_of: int
    def __init__(self, record: _Optional[_Union[IndexRecord, _Mapping]] = ..., in_place_of: _Optional[int] = ...) -> None: ...

class CommitRecordsRequest(_message.Message):
    __slots__ = ("commits",)
    COMMITS_FIELD_NUMBER: _ClassVar[int]
    commits: _containers.RepeatedCompositeFieldContainer[IndexCommit]
    def __init__(self, commits: _Optional[_Iterable[_Union[IndexCommit, _Mapping]]] = ...) -> None: ...

class CommitRecordsResponse(_message.Message):
    __slots__ = ("committed",)
    COMMITTED_FIELD_NUMBER: _ClassVar[int]
    committed: _containers.RepeatedScalarFieldContainer[bool]
    def __init__(self, committed: _Optional[_Iterable[bool]] = ...) -> None: ...

class FenceDocumentRequest(_message.Message):
    __slots__ = ("key", "generation")
    KEY_FIELD_NUMBER: _ClassVar[int]
    GENERATION_FIELD_NUMBER: _ClassVar[int]
    key: IndexDocumentKey
    generation: int
    def __init__(self, key: _Optional[_Union[IndexDocumentKey, _Mapping]] = ..., generation: _Optional[int] = ...) -> None: ...

class FenceDocumentResponse(_message.Message):
    __slots__ = ("record",)
    RECORD_FIELD_NUMBER: _ClassVar[int]
    record: IndexRecord
    def __init__(self, record: _Optional[_Union[IndexRecord, _Mapping]] = ...) -> None: ...

class GetFencesRequest(_message.Message):
    __slots__ = ("keys",)
    KEYS_FIELD_NUMBER: _ClassVar[int]
    keys: _containers.RepeatedCompositeFieldContainer[IndexDocumentKey]
    def __init__(self, keys: _Optional[_Iterable[_Union[IndexDocumentKey, _Mapping]]] = ...) -> None: ...

class GetFencesResponse(_message.Message):
    __slots__ = ("fences",)
    FENCES_FIELD_NUMBER: _ClassVar[int]
    fences: _containers.RepeatedCompositeFieldContainer[IndexFence]
    def __init__(self, fences: _Optional[_Iterable[_Union[IndexFence, _Mapping]]] = ...) -> None: ...

class IndexFence(_message.Message):
    __slots__ = ("key", "generation")
    KEY_FIELD_NUMBER: _ClassVar[int]
    GENERATION_FIELD_NUMBER: _ClassVar[int]
    key: IndexDocumentKey
    generation: int
    def __init__(self, key: _Optional[_Union[IndexDocumentKey, _Mapping]] = ..., generation: _Optional[int] = ...) -> None: ...

class GetRecordsRequest(_message.Message):
    __slots__ = ("keys",)
    KEYS_FIELD_NUMBER: _ClassVar[int]
    keys: _containers.RepeatedCompositeFieldContainer[IndexDocumentKey]
    def __init__(self, keys: _Optional[_Iterable[_Union[IndexDocumentKey, _Mapping]]] = ...) -> None: ...

class GetRecordsResponse(_message.Message):
    __slots__ = ("written",)
    WRITTEN_FIELD_NUMBER: _ClassVar[int]
    written: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, written: _Optional[_Iterable[str]] = ...) -> None: ...

class ListRecordsRequest(_message.Message):
    __slots__ = ("tenant", "after", "limit")
    TENANT_FIELD_NUMBER: _ClassVar[int]
    AFTER_FIELD_NUMBER: _ClassVar[int]
    LIMIT_FIELD_NUMBER: _ClassVar[int]
    tenant: str
    after: str
    limit: int
    def __init__(self, tenant: _Optional[str] = ..., after: _Optional[str] = ..., limit: _Optional[int] = ...) -> None: ...

class ListRecordsResponse(_message.Message):
    __slots__ = ("records", "next")
    RECORDS_FIELD_NUMBER: _ClassVar[int]
    NEXT_FIELD_NUMBER: _ClassVar[int]
    records: _containers.RepeatedCompositeFieldContainer[IndexRecord]
    next: str
    def __init__(self, records: _Optional[_Iterable[_Union[IndexRecord, _Mapping]]] = ..., next: _Optional[str] = ...) -> None: ...

class GetChunksRequest(_message.Message):
    __slots__ = ("key", "generation", "first", "last")
    KEY_FIELD_NUMBER: _ClassVar[int]
    GENERATION_FIELD_NUMBER: _ClassVar[int]
    FIRST_FIELD_NUMBER: _ClassVar[int]
    LAST_FIELD_NUMBER: _ClassVar[int]
    key: IndexDocumentKey
    generation: int
    first: int
    last: int
    def __init__(self, key: _Optional[_Union[IndexDocumentKey, _Mapping]] = ..., generation: _Optional[int] = ..., first: _Optional[int] = ..., last: _Optional[int] = ...) -> None: ...

class GetChunksResponse(_message.Message):
    __slots__ = ("chunks",)
    CHUNKS_FIELD_NUMBER: _ClassVar[int]
    chunks: _containers.RepeatedCompositeFieldContainer[IndexChunk]
    def __init__(self, chunks: _Optional[_Iterable[_Union[IndexChunk, _Mapping]]] = ...) -> None: ...

class IndexChunkKey(_message.Message):
    __slots__ = ("key", "generation", "chunk_index")
    KEY_FIELD_NUMBER: _ClassVar[int]
    GENERATION_FIELD_NUMBER: _ClassVar[int]
    CHUNK_INDEX_FIELD_NUMBER: _ClassVar[int]
    key: IndexDocumentKey
    generation: int
    chunk_index: int
    def __init__(self, key: _Optional[_Union[IndexDocumentKey, _Mapping]] = ..., generation: _Optional[int] = ..., chunk_index: _Optional[int] = ...) -> None: ...

class ReadChunksRequest(_message.Message):
    __slots__ = ("chunks",)
    CHUNKS_FIELD_NUMBER: _ClassVar[int]
    chunks: _containers.RepeatedCompositeFieldContainer[IndexChunkKey]
    def __init__(self, chunks: _Optional[_Iterable[_Union[IndexChunkKey, _Mapping]]] = ...) -> None: ...

class ReadChunksResponse(_message.Message):
    __slots__ = ("chunks",)
    CHUNKS_FIELD_NUMBER: _ClassVar[int]
    chunks: _containers.RepeatedCompositeFieldContainer[IndexChunk]
    def __init__(self, chunks: _Optional[_Iterable[_Union[IndexChunk, _Mapping]]] = ...) -> None: ...

class ReadHitsRequest(_message.Message):
    __slots__ = ("chunks",)
    CHUNKS_FIELD_NUMBER: _ClassVar[int]
    chunks: _containers.RepeatedCompositeFieldContainer[IndexChunkKey]
    def __init__(self, chunks: _Optional[_Iterable[_Union[IndexChunkKey, _Mapping]]] = ...) -> None: ...

class ReadHitsResponse(_message.Message):
    __slots__ = ("written",)
    WRITTEN_FIELD_NUMBER: _ClassVar[int]
    written: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, written: _Optional[_Iterable[str]] = ...) -> None: ...

class GetEmbeddingsRequest(_message.Message):
    __slots__ = ("chunks",)
    CHUNKS_FIELD_NUMBER: _ClassVar[int]
    chunks: _containers.RepeatedCompositeFieldContainer[IndexChunkKey]
    def __init__(self, chunks: _Optional[_Iterable[_Union[IndexChunkKey, _Mapping]]] = ...) -> None: ...

class GetEmbeddingsResponse(_message.Message):
    __slots__ = ("chunks", "embeddings")
    CHUNKS_FIELD_NUMBER: _ClassVar[int]
    EMBEDDINGS_FIELD_NUMBER: _ClassVar[int]
    chunks: _containers.RepeatedCompositeFieldContainer[IndexChunkKey]
    embeddings: bytes
    def __init__(self, chunks: _Optional[_Iterable[_Union[IndexChunkKey, _Mapping]]] = ..., embeddings: _Optional[bytes] = ...) -> None: ...

class DeleteRecordRequest(_message.Message):
    __slots__ = ("key", "generation")
    KEY_FIELD_NUMBER: _ClassVar[int]
    GENERATION_FIELD_NUMBER: _ClassVar[int]
    key: IndexDocumentKey
    generation: int
    def __init__(self, key: _Optional[_Union[IndexDocumentKey, _Mapping]] = ..., generation: _Optional[int] = ...) -> None: ...

class DeleteRecordResponse(_message.Message):
    __slots__ = ("deleted",)
    DELETED_FIELD_NUMBER: _ClassVar[int]
    deleted: bool
    def __init__(self, deleted: _Optional[bool] = ...) -> None: ...

class DropTombstoneRequest(_message.Message):
    __slots__ = ("key", "generation")
    KEY_FIELD_NUMBER: _ClassVar[int]
    GENERATION_FIELD_NUMBER: _ClassVar[int]
    key: IndexDocumentKey
    generation: int
    def __init__(self, key: _Optional[_Union[IndexDocumentKey, _Mapping]] = ..., generation: _Optional[int] = ...) -> None: ...

class DropTombstoneResponse(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class DeleteChunksRequest(_message.Message):
    __slots__ = ("key", "generation", "below", "keep")
    KEY_FIELD_NUMBER: _ClassVar[int]
    GENERATION_FIELD_NUMBER: _ClassVar[int]
    BELOW_FIELD_NUMBER: _ClassVar[int]
    KEEP_FIELD_NUMBER: _ClassVar[int]
    key: IndexDocumentKey
    generation: int
    below: int
    keep: _containers.RepeatedScalarFieldContainer[int]
    def __init__(self, key: _Optional[_Union[IndexDocumentKey, _Mapping]] = ..., generation: _Optional[int] = ..., below: _Optional[int] = ..., keep: _Optional[_Iterable[int]] = ...) -> None: ...

class DeleteChunksResponse(_message.Message):
    __slots__ = ("count",)
    COUNT_FIELD_NUMBER: _ClassVar[int]
    count: int
    def __init__(self, count: _Optional[int] = ...) -> None: ...

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

class FlushIndexRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class FlushIndexResponse(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...
