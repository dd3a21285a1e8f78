from mambasearch.v1 import filter_pb2 as _filter_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class IndexScope(_message.Message):
    __slots__ = ("tenant", "only", "without", "filter")
    TENANT_FIELD_NUMBER: _ClassVar[int]
    ONLY_FIELD_NUMBER: _ClassVar[int]
    WITHOUT_FIELD_NUMBER: _ClassVar[int]
    FILTER_FIELD_NUMBER: _ClassVar[int]
    tenant: str
    only: ScopedDocuments
    without: ScopedDocuments
    filter: _filter_pb2.Filter
    def __init__(self, tenant: _Optional[str] = ..., only: _Optional[_Union[ScopedDocuments, _Mapping]] = ..., without: _Optional[_Union[ScopedDocuments, _Mapping]] = ..., filter: _Optional[_Union[_filter_pb2.Filter, _Mapping]] = ...) -> None: ...

class ScopedDocuments(_message.Message):
    __slots__ = ("documents",)
    DOCUMENTS_FIELD_NUMBER: _ClassVar[int]
    documents: _containers.RepeatedCompositeFieldContainer[ScopedDocument]
    def __init__(self, documents: _Optional[_Iterable[_Union[ScopedDocument, _Mapping]]] = ...) -> None: ...

class ScopedDocument(_message.Message):
    __slots__ = ("document_id", "generations")
    DOCUMENT_ID_FIELD_NUMBER: _ClassVar[int]
    GENERATIONS_FIELD_NUMBER: _ClassVar[int]
    document_id: str
    generations: _containers.RepeatedScalarFieldContainer[int]
    def __init__(self, document_id: _Optional[str] = ..., generations: _Optional[_Iterable[int]] = ...) -> None: ...
