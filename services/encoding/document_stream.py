"""One ``EncodeDocument`` call inside a replica: spans of tokens in, embeddings out. Knows no Ray and no torch.

Nothing is read ahead: a message is taken when the one before it has been encoded and its embeddings have been handed
over. gRPC's flow control lets the client wait meanwhile, so a replica's memory does not grow with the document.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterator, Sequence
from functools import partial
from typing import Protocol, TypeVar

import numpy as np
from mambasearch.v1 import encoder_pb2
from numpy.typing import NDArray

from encoder.document_slices import DocumentCutter
from encoder.errors import EncoderUnavailable, FingerprintMismatch, InvalidInput, TimedOut
from encoder.interface import EncoderInfo, StreamingEncoder
from services.encoding.scheduler import Scheduler
from services.malformed import checked

SPAN_TOKENS_MAX = 65_536
PART_BYTES_MAX = 1024 * 1024
STATE_BYTES_MAX = 512 * 1024 * 1024
# Named in encoder.proto.
IDLE_TIMEOUT_S = 30.0

_Response = encoder_pb2.EncodeDocumentResponse
_Result = TypeVar("_Result")


class RequestStream(Protocol):
    """The part of Ray Serve's ``gRPCInputStream`` that is used here."""

    def __aiter__(self) -> AsyncIterator[encoder_pb2.EncodeDocumentRequest]:
        """Iterate over the client's messages."""

    def is_cancelled(self) -> bool:
        """Say whether the stream ended because the call did, and not because the client closed its side."""


async def encode_document(
    stream: RequestStream,
    encoder: StreamingEncoder,
    scheduler: Scheduler,
    *,
    tokens_per_piece: int,
    idle_timeout_s: float = IDLE_TIMEOUT_S,
) -> AsyncGenerator[_Response, None]:
    """Answer one call. Nothing is read while the client is waited for; a document's place is held to the end.

    Raises the errors of :mod:`encoder.errors` that encoder.proto names, :class:`TimedOut` for a silent client.
    """
    messages = _Messages(stream, idle_timeout_s)
    info = await encoder.info()
    with scheduler.document():
        begin = _check_begin(await messages.next(), info)
        clock = _Clock(scheduler, deadline_of(begin.time_left_ms))
        state = await _read_state(messages, begin.state_bytes)
        cutter, chunk_count = DocumentCutter(tokens_per_piece), 0
        reading = await clock.piece(0, partial(encoder.open_document, state=state, keep_state=begin.keep_state))
        state = None
        while (message := await messages.next()) is not None:
            for part in cutter.cut(*_span(message)):
                embeddings = await clock.piece(len(part.token_ids), partial(part.read_by, reading))
                _check_finite(embeddings, chunk_count)
                chunk_count += len(embeddings)
                for response in _embedding_messages(embeddings):
                    yield response
        cutter.finish()
        state = await clock.piece(0, reading.finish)
        for start in range(0, len(state or b""), PART_BYTES_MAX):
            yield _Response(state=(state or b"")[start : start + PART_BYTES_MAX])
        yield _Response(
            summary=encoder_pb2.DocumentSummary(
                chunk_count=chunk_count,
                token_count=reading.token_count,
                state_bytes=len(state or b""),
                dimension=info.dimension,
                timings=clock.timings,
                fingerprint=info.fingerprint,
            )
        )


def deadline_of(time_left_ms: int) -> float:
    """Give the time of the event loop's clock at which a request ends; infinity for 0, which means never."""
    return asyncio.get_running_loop().time() + time_left_ms / 1000 if time_left_ms else float("inf")


class _Messages:
    """The client's messages, one at a time."""

    def __init__(self, stream: RequestStream, idle_timeout_s: float) -> None:
        self._stream = stream
        self._iterator = aiter(stream)
        self._idle_timeout_s = idle_timeout_s

    async def next(self) -> encoder_pb2.EncodeDocumentRequest | None:
        """Wait for the next message; None where the client has closed its side."""
        try:
            async with asyncio.timeout(self._idle_timeout_s):
                message: encoder_pb2.EncodeDocumentRequest = checked(await anext(self._iterator))
                return message
        except TimeoutError:
            raise TimedOut(
                f"No message of the document came for {self._idle_timeout_s:.0f} s, so its stream was ended; send the "
                "document again."
            ) from None
        except StopAsyncIteration:
            if self._stream.is_cancelled():
                raise EncoderUnavailable("The document's stream broke off; send the document again.") from None
            return None


class _Clock:
    """Has a document's pieces read, and adds up how long they waited and how long they took."""

    def __init__(self, scheduler: Scheduler, deadline: float) -> None:
        self._scheduler = scheduler
        self._deadline = deadline
        self.timings = encoder_pb2.EncodeTimings()

    async def piece(self, tokens: int, read: Callable[[], Awaitable[_Result]]) -> _Result:
        result, queue_time_s, read_time_s = await self._scheduler.read_piece(tokens, read, self._deadline)
        self.timings.queue_time_ms += queue_time_s * 1000
        self.timings.encode_time_ms += read_time_s * 1000
        return result


def _check_begin(message: encoder_pb2.EncodeDocumentRequest | None, info: EncoderInfo) -> encoder_pb2.BeginDocument:
    kind = message.WhichOneof("part") if message else None
    if message is None or kind != "begin":
        raise InvalidInput("begin", f"The stream's first message holds {kind or 'nothing'}; begin must come first.")
    begin = message.begin
    if begin.fingerprint and begin.fingerprint != info.fingerprint:
        raise FingerprintMismatch(
            f"The document is meant for the model {begin.fingerprint[:100]}; this encoder runs {info.fingerprint}. Ask "
            "for its limits again, and ingest again what the other model encoded."
        )
    if begin.state_bytes > STATE_BYTES_MAX:
        raise InvalidInput(
            "begin.state_bytes", f"begin.state_bytes is {begin.state_bytes}; the limit is {STATE_BYTES_MAX}."
        )
    return begin


async def _read_state(messages: _Messages, size: int) -> bytes | None:
    parts: list[bytes] = []
    missing = size
    while missing:
        message = await messages.next()
        kind = message.WhichOneof("part") if message else None
        if message is None or kind != "state":
            raise InvalidInput(
                "state", f"state has {size - missing} bytes of the {size} announced; {kind or 'nothing'} followed."
            )
        if not 1 <= len(message.state) <= min(PART_BYTES_MAX, missing):
            raise InvalidInput(
                "state",
                f"A part of state has {len(message.state)} bytes; 1 to {min(PART_BYTES_MAX, missing)} are allowed.",
            )
        parts.append(message.state)
        missing -= len(message.state)
    return b"".join(parts) if size else None


def _span(message: encoder_pb2.EncodeDocumentRequest) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    kind = message.WhichOneof("part")
    if kind != "span":
        raise InvalidInput(kind or "span", f"A message holds {kind or 'nothing'} where a span of tokens is expected.")
    count = len(message.span.token_ids)
    if not 1 <= count <= SPAN_TOKENS_MAX:
        raise InvalidInput("span", f"A span holds {count} tokens; 1 to {SPAN_TOKENS_MAX} are allowed.")
    if len(message.span.chunk_ends) > count:
        ends = len(message.span.chunk_ends)
        raise InvalidInput("span", f"A span of {count} tokens holds {ends} chunk ends; there can be one per token.")
    return _integers(message.span.token_ids), _integers(message.span.chunk_ends)


def _check_finite(embeddings: NDArray[np.float32], chunks_before: int) -> None:
    poisoned = np.flatnonzero(~np.isfinite(embeddings).all(axis=1))
    if poisoned.size:
        name = f"chunk_ends[{chunks_before + poisoned[0]}]"
        raise InvalidInput(
            name,
            f"The chunk that {name} ends has no embedding: the model computes no finite numbers for it. Leave it out, "
            "and what follows it in the document.",
        )


def _integers(values: Sequence[int]) -> NDArray[np.int64]:
    return np.asarray(values).astype(np.int64)


def _embedding_messages(embeddings: NDArray[np.float32]) -> Iterator[_Response]:
    """Cut embeddings ``(n, d)`` into messages of whole rows."""
    rows = max(1, PART_BYTES_MAX // (4 * embeddings.shape[1]))
    for start in range(0, len(embeddings), rows):
        part = embeddings[start : start + rows].astype("<f4", copy=False)
        yield _Response(embeddings=part.tobytes())
