"""The encoder service as an :class:`encoder.interface.Encoder`. Knows gRPC, no model and no torch."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from typing import Any

import grpc
import numpy as np
from mambasearch.v1 import encoder_pb2, encoder_pb2_grpc

from encoder.errors import EncoderUnavailable, FingerprintMismatch, InvalidInput, MambaSearchError, Overloaded
from encoder.grpc_errors import error_of, shifted
from encoder.interface import Encoded, EncoderInfo
from encoder.tokenizer import check_characters

# About 64,000 tokens: half a minute for a replica on a CPU, so that a request ends well within its deadline.
REQUEST_BYTES_MAX = 256 * 1024
REQUEST_TEXTS_MAX = 64
# One text may be longer than REQUEST_BYTES_MAX; it travels alone, up to this size.
TEXT_BYTES_MAX = 3 * 1024 * 1024
_MESSAGE_BYTES_MAX = 64 * 1024 * 1024
_BACKOFF_FIRST_S = 0.1
_BACKOFF_MAX_S = 2.0
_TEMPORARY = (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.RESOURCE_EXHAUSTED)


class EncoderClient:
    """Calls the encoder service; make it inside the event loop that uses it.

    Long lists travel as several requests, at most ``concurrency_max`` at once. A request that finds the service away
    or full is sent again, at most ``attempts_max`` times and never past ``timeout_s`` after its first sending.
    Where queries and passages have a model each, their applications differ; :meth:`info` then joins both fingerprints.
    """

    def __init__(
        self,
        target: str,
        *,
        query_application: str = "encoder",
        passage_application: str = "encoder",
        timeout_s: float = 120.0,
        attempts_max: int = 5,
        concurrency_max: int = 4,
    ) -> None:
        self._service = f"the encoder service at {target}"
        self._query_application = query_application
        self._passage_application = passage_application
        self._timeout_s = timeout_s
        self._attempts_max = attempts_max
        self._turns = asyncio.Semaphore(concurrency_max)
        self._channel = grpc.aio.insecure_channel(
            target,
            options=[
                ("grpc.max_send_message_length", _MESSAGE_BYTES_MAX),
                ("grpc.max_receive_message_length", _MESSAGE_BYTES_MAX),
                # A restarted encoder is found again within two seconds (gRPC's own maximum is two minutes).
                ("grpc.initial_reconnect_backoff_ms", 200),
                ("grpc.max_reconnect_backoff_ms", 2000),
            ],
        )
        self._stub = encoder_pb2_grpc.EncoderServiceStub(self._channel)
        self._infos: dict[str, EncoderInfo] = {}

    async def info(self) -> EncoderInfo:
        """Ask the service which model encodes, and its limits."""
        queries = await self._ask_info(self._query_application)
        if self._query_application == self._passage_application:
            return queries
        passages = await self._ask_info(self._passage_application)
        if queries.dimension != passages.dimension:
            raise FingerprintMismatch(
                f"Queries become embeddings of length {queries.dimension} (model {queries.model}), passages of "
                f"length {passages.dimension} (model {passages.model}); deploy two models that belong together."
            )
        return EncoderInfo(
            model=f"{queries.model}+{passages.model}",
            fingerprint=joint_fingerprint(queries.fingerprint, passages.fingerprint),
            dimension=queries.dimension,
            query_tokens_max=queries.query_tokens_max,
            passage_tokens_max=passages.passage_tokens_max,
            batch_size_max=min(queries.batch_size_max, passages.batch_size_max),
        )

    async def encode_queries(self, queries: Sequence[str]) -> Encoded:
        """Encode search queries."""

        def request(part: Sequence[str]) -> object:
            return encoder_pb2.EncodeQueriesRequest(queries=part)

        return await self._encode("queries", queries, self._query_application, self._stub.EncodeQueries, request)

    async def encode_passages(self, passages: Sequence[str]) -> Encoded:
        """Encode passages, the texts to be found."""

        def request(part: Sequence[str]) -> object:
            return encoder_pb2.EncodePassagesRequest(passages=part)

        return await self._encode("passages", passages, self._passage_application, self._stub.EncodePassages, request)

    async def close(self) -> None:
        """Close the connection; calls under way fail."""
        await self._channel.close()

    async def _ask_info(self, application: str) -> EncoderInfo:
        answer = await self._call(self._stub.GetEncoderInfo, encoder_pb2.GetEncoderInfoRequest(), application)
        self._infos[application] = EncoderInfo(
            model=answer.model,
            fingerprint=answer.fingerprint,
            dimension=answer.dimension,
            query_tokens_max=answer.query_tokens_max,
            passage_tokens_max=answer.passage_tokens_max,
            batch_size_max=answer.batch_size_max,
        )
        return self._infos[application]

    async def _encode(
        self,
        field: str,
        texts: Sequence[str],
        application: str,
        method: Callable[..., Awaitable[Any]],
        make_request: Callable[[Sequence[str]], object],
    ) -> Encoded:
        if not texts:
            raise InvalidInput(field, f"{field} is empty; give at least one text.")
        info = self._infos.get(application) or await self._ask_info(application)

        async def send(start: int, part: Sequence[str]) -> Encoded:
            try:
                async with self._turns:
                    response = await self._call(method, make_request(part), application)
            except InvalidInput as error:
                raise shifted(error, start) from None
            return self._read(response, len(part), info)

        requests = list(_split(field, texts, info.batch_size_max))
        sendings = [asyncio.ensure_future(send(start, part)) for start, part in requests]
        try:
            parts = await asyncio.gather(*sendings)
        except BaseException:
            for sending in sendings:
                sending.cancel()
            await asyncio.gather(*sendings, return_exceptions=True)
            raise
        return Encoded(
            embeddings=np.concatenate([part.embeddings for part in parts]),
            token_counts=tuple(count for part in parts for count in part.token_counts),
            tokenize_time_s=sum(part.tokenize_time_s for part in parts),
        )

    def _read(self, response: encoder_pb2.EncodeResponse, count: int, info: EncoderInfo) -> Encoded:
        if response.fingerprint != info.fingerprint:
            raise FingerprintMismatch(
                f"The encoder service changed its model while in use, from {info.fingerprint} to "
                f"{response.fingerprint}; restart what uses it, and ingest again what the old model encoded."
            )
        embeddings = np.frombuffer(response.embeddings, dtype="<f4").astype(np.float32, copy=False)
        if embeddings.size != count * info.dimension or len(response.token_counts) != count:
            raise EncoderUnavailable(
                f"{self._service} answered {embeddings.size} floats for {count} texts of {info.dimension} each; "
                "it is not an encoder service of this version."
            )
        return Encoded(embeddings=embeddings.reshape(count, info.dimension), token_counts=tuple(response.token_counts))

    async def _call(self, method: Callable[..., Awaitable[Any]], request: object, application: str) -> Any:  # noqa: ANN401 - the response type follows the method
        metadata = grpc.aio.Metadata(("application", application))
        deadline = time.monotonic() + self._timeout_s
        backoff_s = _BACKOFF_FIRST_S
        for attempt in range(1, self._attempts_max + 1):
            try:
                return await method(request, metadata=metadata, timeout=max(deadline - time.monotonic(), 0.001))
            except grpc.aio.AioRpcError as rpc_error:
                code, error = rpc_error.code(), self._error_of(rpc_error)
            wait_s = backoff_s * random.uniform(0.75, 1.25)  # noqa: S311 - spreads clients, hides nothing
            if isinstance(error, Overloaded):
                wait_s = max(wait_s, error.retry_after_s)
            if code not in _TEMPORARY or attempt == self._attempts_max or time.monotonic() + wait_s >= deadline:
                raise error
            await asyncio.sleep(wait_s)
            backoff_s = min(2 * backoff_s, _BACKOFF_MAX_S)
        raise AssertionError("attempts_max is at least 1")

    def _error_of(self, error: grpc.aio.AioRpcError) -> MambaSearchError:
        return error_of(
            error.code(),
            error.details() or "",
            tuple(error.trailing_metadata()),
            unavailable=EncoderUnavailable,
            service=self._service,
        )


def joint_fingerprint(query_model: str, passage_model: str) -> str:
    """Join the fingerprints of two models that encode queries and passages; one model for both keeps its own."""
    return query_model if query_model == passage_model else f"{query_model}+{passage_model}"


def _split(field: str, texts: Sequence[str], batch_size_max: int) -> Iterator[tuple[int, Sequence[str]]]:
    """Cut a list into requests: each one's first place, and its texts."""
    start, size = 0, 0
    for place, text in enumerate(texts):
        check_characters(f"{field}[{place}]", text)
        text_bytes = len(text.encode())
        if text_bytes > TEXT_BYTES_MAX:
            raise InvalidInput(
                f"{field}[{place}]", f"{field}[{place}] has {text_bytes} bytes; the limit is {TEXT_BYTES_MAX}. Cut it."
            )
        full = place - start >= min(batch_size_max, REQUEST_TEXTS_MAX) or size + text_bytes > REQUEST_BYTES_MAX
        if place > start and full:
            yield start, texts[start:place]
            start, size = place, 0
        size += text_bytes
    yield start, texts[start:]
