from mambasearch.v1 import metadata_pb2 as _metadata_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Filter(_message.Message):
    __slots__ = ("equals", "is_in", "range", "exists", "document_id_prefix", "all_of", "any_of", "negated")
    EQUALS_FIELD_NUMBER: _ClassVar[int]
    IS_IN_FIELD_NUMBER: _ClassVar[int]
    RANGE_FIELD_NUMBER: _ClassVar[int]
    EXISTS_FIELD_NUMBER: _ClassVar[int]
    DOCUMENT_ID_PREFIX_FIELD_NUMBER: _ClassVar[int]
    ALL_OF_FIELD_NUMBER: _ClassVar[int]
    ANY_OF_FIELD_NUMBER: _ClassVar[int]
    NEGATED_FIELD_NUMBER: _ClassVar[int]
    equals: FieldEquals
    is_in: FieldIsIn
    range: FieldRange
    exists: str
    document_id_prefix: str
    all_of: Filters
    any_of: Filters
    negated: Filter
    def __init__(self, equals: _Optional[_Union[FieldEquals, _Mapping]] = ..., is_in: _Optional[_Union[FieldIsIn, _Mapping]] = ..., range: _Optional[_Union[FieldRange, _Mapping]] = ..., exists: _Optional[str] = ..., document_id_prefix: _Optional[str] = ..., all_of: _Optional[_Union[Filters, _Mapping]] = ..., any_of: _Optional[_Union[Filters, _Mapping]] = ..., negated: _Optional[_Union[Filter, _Mapping]] = ...) -> None: ...

class Filters(_message.Message):
    __slots__ = ("filters",)
    FILTERS_FIELD_NUMBER: _ClassVar[int]
    filters: _containers.RepeatedCompositeFieldContainer[Filter]
    def __init__(self, filters: _Optional[_Iterable[_Union[Filter, _Mapping]]] = ...) -> None: ...

class FieldEquals(_message.Message):
    __slots__ = ("field", "value")
    FIELD_FIELD_NUMBER: _ClassVar[int]
    VALUE_FIELD_NUMBER: _ClassVar[int]
    field: str
    value: _metadata_pb2.MetadataValue
    def __init__(self, field: _Optional[str] = ..., value: _Optional[_Union[_metadata_pb2.MetadataValue, _Mapping]] = ...) -> None: ...

class FieldIsIn(_message.Message):
    __slots__ = ("field", "values")
    FIELD_FIELD_NUMBER: _ClassVar[int]
    VALUES_FIELD_NUMBER: _ClassVar[int]
    field: str
    values: _containers.RepeatedCompositeFieldContainer[_metadata_pb2.MetadataValue]
    def __init__(self, field: _Optional[str] = ..., values: _Optional[_Iterable[_Union[_metadata_pb2.MetadataValue, _Mapping]]] = ...) -> None: ...

class FieldRange(_message.Message):
    __slots__ = ("field", "above", "at_least", "below", "at_most")
    FIELD_FIELD_NUMBER: _ClassVar[int]
    ABOVE_FIELD_NUMBER: _ClassVar[int]
    AT_LEAST_FIELD_NUMBER: _ClassVar[int]
    BELOW_FIELD_NUMBER: _ClassVar[int]
    AT_MOST_FIELD_NUMBER: _ClassVar[int]
    field: str
    above: _metadata_pb2.MetadataValue
    at_least: _metadata_pb2.MetadataValue
    below: _metadata_pb2.MetadataValue
    at_most: _metadata_pb2.MetadataValue
    def __init__(self, field: _Optional[str] = ..., above: _Optional[_Union[_metadata_pb2.MetadataValue, _Mapping]] = ..., at_least: _Optional[_Union[_metadata_pb2.MetadataValue, _Mapping]] = ..., below: _Optional[_Union[_metadata_pb2.MetadataValue, _Mapping]] = ..., at_most: _Optional[_Union[_metadata_pb2.MetadataValue, _Mapping]] = ...) -> None: ...
