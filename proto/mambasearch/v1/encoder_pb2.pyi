from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class EncodeQueriesRequest(_message.Message):
    __slots__ = ("queries",)
    QUERIES_FIELD_NUMBER: _ClassVar[int]
    queries: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, queries: _Optional[_Iterable[str]] = ...) -> None: ...

class EncodePassagesRequest(_message.Message):
    __slots__ = ("passages",)
    PASSAGES_FIELD_NUMBER: _ClassVar[int]
    passages: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, passages: _Optional[_Iterable[str]] = ...) -> None: ...

class EncodeResponse(_message.Message):
    __slots__ = ("embeddings", "dimension", "token_counts", "timings", "fingerprint")
    EMBEDDINGS_FIELD_NUMBER: _ClassVar[int]
    DIMENSION_FIELD_NUMBER: _ClassVar[int]
    TOKEN_COUNTS_FIELD_NUMBER: _ClassVar[int]
    TIMINGS_FIELD_NUMBER: _ClassVar[int]
    FINGERPRINT_FIELD_NUMBER: _ClassVar[int]
    embeddings: bytes
    dimension: int
    token_counts: _containers.RepeatedScalarFieldContainer[int]
    timings: EncodeTimings
    fingerprint: str
    def __init__(self, embeddings: _Optional[bytes] = ..., dimension: _Optional[int] = ..., token_counts: _Optional[_Iterable[int]] = ..., timings: _Optional[_Union[EncodeTimings, _Mapping]] = ..., fingerprint: _Optional[str] = ...) -> None: ...

class EncodeTimings(_message.Message):
    __slots__ = ("queue_time_ms", "tokenize_time_ms", "encode_time_ms")
    QUEUE_TIME_MS_FIELD_NUMBER: _ClassVar[int]
    TOKENIZE_TIME_MS_FIELD_NUMBER: _ClassVar[int]
    ENCODE_TIME_MS_FIELD_NUMBER: _ClassVar[int]
    queue_time_ms: float
    tokenize_time_ms: float
    encode_time_ms: float
    def __init__(self, queue_time_ms: _Optional[float] = ..., tokenize_time_ms: _Optional[float] = ..., encode_time_ms: _Optional[float] = ...) -> None: ...

class GetEncoderInfoRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class EncoderInfo(_message.Message):
    __slots__ = ("model", "fingerprint", "dimension", "query_tokens_max", "passage_tokens_max", "batch_size_max")
    MODEL_FIELD_NUMBER: _ClassVar[int]
    FINGERPRINT_FIELD_NUMBER: _ClassVar[int]
    DIMENSION_FIELD_NUMBER: _ClassVar[int]
    QUERY_TOKENS_MAX_FIELD_NUMBER: _ClassVar[int]
    PASSAGE_TOKENS_MAX_FIELD_NUMBER: _ClassVar[int]
    BATCH_SIZE_MAX_FIELD_NUMBER: _ClassVar[int]
    model: str
    fingerprint: str
    dimension: int
    query_tokens_max: int
    passage_tokens_max: int
    batch_size_max: int
    def __init__(self, model: _Optional[str] = ..., fingerprint: _Optional[str] = ..., dimension: _Optional[int] = ..., query_tokens_max: _Optional[int] = ..., passage_tokens_max: _Optional[int] = ..., batch_size_max: _Optional[int] = ...) -> None: ...
