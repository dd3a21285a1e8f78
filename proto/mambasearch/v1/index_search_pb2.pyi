from mambasearch.v1 import index_scope_pb2 as _index_scope_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class TermWeights(_message.Message):
    __slots__ = ("indices", "values")
    INDICES_FIELD_NUMBER: _ClassVar[int]
    VALUES_FIELD_NUMBER: _ClassVar[int]
    indices: _containers.RepeatedScalarFieldContainer[int]
    values: _containers.RepeatedScalarFieldContainer[float]
    def __init__(self, indices: _Optional[_Iterable[int]] = ..., values: _Optional[_Iterable[float]] = ...) -> None: ...

class SearchIndexRequest(_message.Message):
    __slots__ = ("embedding", "sparse", "limit", "scope", "read_first")
    EMBEDDING_FIELD_NUMBER: _ClassVar[int]
    SPARSE_FIELD_NUMBER: _ClassVar[int]
    LIMIT_FIELD_NUMBER: _ClassVar[int]
    SCOPE_FIELD_NUMBER: _ClassVar[int]
    READ_FIRST_FIELD_NUMBER: _ClassVar[int]
    embedding: bytes
    sparse: TermWeights
    limit: int
    scope: _index_scope_pb2.IndexScope
    read_first: int
    def __init__(self, embedding: _Optional[bytes] = ..., sparse: _Optional[_Union[TermWeights, _Mapping]] = ..., limit: _Optional[int] = ..., scope: _Optional[_Union[_index_scope_pb2.IndexScope, _Mapping]] = ..., read_first: _Optional[int] = ...) -> None: ...

class SearchIndexResponse(_message.Message):
    __slots__ = ("document_ids", "dense", "sparse", "committed_documents", "committed_generations", "dense_s", "sparse_s", "written")
    DOCUMENT_IDS_FIELD_NUMBER: _ClassVar[int]
    DENSE_FIELD_NUMBER: _ClassVar[int]
    SPARSE_FIELD_NUMBER: _ClassVar[int]
    COMMITTED_DOCUMENTS_FIELD_NUMBER: _ClassVar[int]
    COMMITTED_GENERATIONS_FIELD_NUMBER: _ClassVar[int]
    DENSE_S_FIELD_NUMBER: _ClassVar[int]
    SPARSE_S_FIELD_NUMBER: _ClassVar[int]
    WRITTEN_FIELD_NUMBER: _ClassVar[int]
    document_ids: _containers.RepeatedScalarFieldContainer[str]
    dense: IndexHits
    sparse: IndexHits
    committed_documents: _containers.RepeatedScalarFieldContainer[int]
    committed_generations: _containers.RepeatedScalarFieldContainer[int]
    dense_s: float
    sparse_s: float
    written: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, document_ids: _Optional[_Iterable[str]] = ..., dense: _Optional[_Union[IndexHits, _Mapping]] = ..., sparse: _Optional[_Union[IndexHits, _Mapping]] = ..., committed_documents: _Optional[_Iterable[int]] = ..., committed_generations: _Optional[_Iterable[int]] = ..., dense_s: _Optional[float] = ..., sparse_s: _Optional[float] = ..., written: _Optional[_Iterable[str]] = ...) -> None: ...

class IndexHits(_message.Message):
    __slots__ = ("documents", "generations", "chunk_indexes", "scores")
    DOCUMENTS_FIELD_NUMBER: _ClassVar[int]
    GENERATIONS_FIELD_NUMBER: _ClassVar[int]
    CHUNK_INDEXES_FIELD_NUMBER: _ClassVar[int]
    SCORES_FIELD_NUMBER: _ClassVar[int]
    documents: _containers.RepeatedScalarFieldContainer[int]
    generations: _containers.RepeatedScalarFieldContainer[int]
    chunk_indexes: _containers.RepeatedScalarFieldContainer[int]
    scores: _containers.RepeatedScalarFieldContainer[float]
    def __init__(self, documents: _Optional[_Iterable[int]] = ..., generations: _Optional[_Iterable[int]] = ..., chunk_indexes: _Optional[_Iterable[int]] = ..., scores: _Optional[_Iterable[float]] = ...) -> None: ...
