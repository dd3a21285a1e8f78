from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class EncodeQueriesRequest(_message.Message):
    __slots__ = ("queries", "time_left_ms")
    QUERIES_FIELD_NUMBER: _ClassVar[int]
    TIME_LEFT_MS_FIELD_NUMBER: _ClassVar[int]
    queries: _containers.RepeatedScalarFieldContainer[str]
    time_left_ms: int
    def __init__(self, queries: _Optional[_Iterable[str]] = ..., time_left_ms: _Optional[int] = ...) -> None: ...

class EncodePassagesRequest(_message.Message):
    __slots__ = ("passages", "tokenized_passages", "time_left_ms")
    PASSAGES_FIELD_NUMBER: _ClassVar[int]
    TOKENIZED_PASSAGES_FIELD_NUMBER: _ClassVar[int]
    TIME_LEFT_MS_FIELD_NUMBER: _ClassVar[int]
    passages: _containers.RepeatedScalarFieldContainer[str]
    tokenized_passages: _containers.RepeatedCompositeFieldContainer[TokenizedPassage]
    time_left_ms: int
    def __init__(self, passages: _Optional[_Iterable[str]] = ..., tokenized_passages: _Optional[_Iterable[_Union[TokenizedPassage, _Mapping]]] = ..., time_left_ms: _Optional[int] = ...) -> None: ...

class TokenizedPassage(_message.Message):
    __slots__ = ("token_ids",)
    TOKEN_IDS_FIELD_NUMBER: _ClassVar[int]
    token_ids: _containers.RepeatedScalarFieldContainer[int]
    def __init__(self, token_ids: _Optional[_Iterable[int]] = ...) -> None: ...

class EncodeDocumentRequest(_message.Message):
    __slots__ = ("begin", "state", "span")
    BEGIN_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    SPAN_FIELD_NUMBER: _ClassVar[int]
    begin: BeginDocument
    state: bytes
    span: TokenSpan
    def __init__(self, begin: _Optional[_Union[BeginDocument, _Mapping]] = ..., state: _Optional[bytes] = ..., span: _Optional[_Union[TokenSpan, _Mapping]] = ...) -> None: ...

class BeginDocument(_message.Message):
    __slots__ = ("fingerprint", "keep_state", "state_bytes", "time_left_ms")
    FINGERPRINT_FIELD_NUMBER: _ClassVar[int]
    KEEP_STATE_FIELD_NUMBER: _ClassVar[int]
    STATE_BYTES_FIELD_NUMBER: _ClassVar[int]
    TIME_LEFT_MS_FIELD_NUMBER: _ClassVar[int]
    fingerprint: str
    keep_state: bool
    state_bytes: int
    time_left_ms: int
    def __init__(self, fingerprint: _Optional[str] = ..., keep_state: _Optional[bool] = ..., state_bytes: _Optional[int] = ..., time_left_ms: _Optional[int] = ...) -> None: ...

class TokenSpan(_message.Message):
    __slots__ = ("token_ids", "chunk_ends")
    TOKEN_IDS_FIELD_NUMBER: _ClassVar[int]
    CHUNK_ENDS_FIELD_NUMBER: _ClassVar[int]
    token_ids: _containers.RepeatedScalarFieldContainer[int]
    chunk_ends: _containers.RepeatedScalarFieldContainer[int]
    def __init__(self, token_ids: _Optional[_Iterable[int]] = ..., chunk_ends: _Optional[_Iterable[int]] = ...) -> None: ...

class EncodeDocumentResponse(_message.Message):
    __slots__ = ("embeddings", "state", "summary")
    EMBEDDINGS_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    SUMMARY_FIELD_NUMBER: _ClassVar[int]
    embeddings: bytes
    state: bytes
    summary: DocumentSummary
    def __init__(self, embeddings: _Optional[bytes] = ..., state: _Optional[bytes] = ..., summary: _Optional[_Union[DocumentSummary, _Mapping]] = ...) -> None: ...

class DocumentSummary(_message.Message):
    __slots__ = ("chunk_count", "token_count", "state_bytes", "dimension", "timings", "fingerprint")
    CHUNK_COUNT_FIELD_NUMBER: _ClassVar[int]
    TOKEN_COUNT_FIELD_NUMBER: _ClassVar[int]
    STATE_BYTES_FIELD_NUMBER: _ClassVar[int]
    DIMENSION_FIELD_NUMBER: _ClassVar[int]
    TIMINGS_FIELD_NUMBER: _ClassVar[int]
    FINGERPRINT_FIELD_NUMBER: _ClassVar[int]
    chunk_count: int
    token_count: int
    state_bytes: int
    dimension: int
    timings: EncodeTimings
    fingerprint: str
    def __init__(self, chunk_count: _Optional[int] = ..., token_count: _Optional[int] = ..., state_bytes: _Optional[int] = ..., dimension: _Optional[int] = ..., timings: _Optional[_Union[EncodeTimings, _Mapping]] = ..., fingerprint: _Optional[str] = ...) -> None: ...

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
