"""The encoder service as an :class:`encoder.interface.Encoder`. Knows gRPC, no model and no torch."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import Any, TypeVar

import grpc
import numpy as np
from mambasearch.v1 import encoder_pb2, encoder_pb2_grpc

from encoder.client_calls import Connection, StreamEnd, milliseconds
from encoder.client_document import DocumentAnswer, changed_model, document_requests
from encoder.client_requests import REQUEST_TOKENS_MAX, split_texts, split_token_rows
from encoder.document_slices import SLICE_TOKENS, TokenIds, cut_document, shifted
from encoder.errors import EncoderUnavailable, FingerprintMismatch, InvalidInput
from encoder.interface import Encoded, EncodedDocument, EncoderInfo
from encoder.traced_channel import TracedChannel

_Item = TypeVar("_Item", str, TokenIds)


class EncoderClient:
    """Calls the encoder service; make it inside the event loop that uses it.

    Long lists travel as several requests, at most ``concurrency_max`` at once; a document is one. A request that finds
    the service away or full is sent again, at most ``attempts_max`` times and never past ``timeout_s`` after its first
    sending; a document has ``timeout_s`` for each 65,536 tokens begun, as much as its text would have in passages. The
    service is told how much of that is left. ``token`` is the secret that the service expects, where it does.
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
        token: str | None = None,
    ) -> None:
        self._query_application = query_application
        self._passage_application = passage_application
        self._timeout_s = timeout_s
        self._turns = asyncio.Semaphore(concurrency_max)
        self._connection = Connection(target, attempts_max=attempts_max, token=token)
        self._stub = encoder_pb2_grpc.EncoderServiceStub(TracedChannel(self._connection.channel))
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

        def request(part: Sequence[str], time_left_ms: int) -> object:
            return encoder_pb2.EncodeQueriesRequest(queries=part, time_left_ms=time_left_ms)

        method, application = self._stub.EncodeQueries, self._query_application
        return await self._encode("queries", queries, split_texts, request, method, application)

    async def encode_passages(self, passages: Sequence[str]) -> Encoded:
        """Encode passages, the texts to be found."""

        def request(part: Sequence[str], time_left_ms: int) -> object:
            return encoder_pb2.EncodePassagesRequest(passages=part, time_left_ms=time_left_ms)

        method, application = self._stub.EncodePassages, self._passage_application
        return await self._encode("passages", passages, split_texts, request, method, application)

    async def encode_tokenized_passages(self, passages: Sequence[TokenIds]) -> Encoded:
        """Encode passages given as token ids."""

        def request(part: Sequence[TokenIds], time_left_ms: int) -> object:
            rows = [encoder_pb2.TokenizedPassage(token_ids=row) for row in part]
            return encoder_pb2.EncodePassagesRequest(tokenized_passages=rows, time_left_ms=time_left_ms)

        method, application = self._stub.EncodePassages, self._passage_application
        return await self._encode("passages", passages, split_token_rows, request, method, application)

    async def encode_document(
        self, token_ids: TokenIds, chunk_ends: TokenIds, *, state: bytes | None = None, keep_state: bool = False
    ) -> EncodedDocument:
        """Encode a document of any length in one pass, as one call."""
        if state == b"":
            raise InvalidInput("state", "state is empty; give what an earlier call answered, or None to begin anew.")
        spans = list(cut_document(token_ids, chunk_ends, SLICE_TOKENS))
        info = await self._info_of(self._passage_application)

        async def send(metadata: grpc.aio.Metadata, timeout_s: float) -> EncodedDocument:
            answer = DocumentAnswer(self._connection.service)
            requests = document_requests(
                spans, info, state=state, keep_state=keep_state, time_left_ms=milliseconds(timeout_s)
            )
            # gRPC sends from the iterator while responses are read here, so neither side waits for the other for ever.
            call = self._stub.EncodeDocument(requests, metadata=metadata, timeout=timeout_s)
            end = StreamEnd(call)
            try:
                async for response in call:
                    answer.add(response)
            except grpc.aio.AioRpcError as error:
                raise await end.told(error) from None
            finally:
                call.cancel()
            return answer.whole(info, len(chunk_ends), keep_state=keep_state)

        timeout_s = self._timeout_s * -(-len(token_ids) // REQUEST_TOKENS_MAX)
        async with self._turns:
            return await self._connection.call(send, self._passage_application, timeout_s)

    async def close(self) -> None:
        """Close the connection; calls under way fail."""
        await self._connection.close()

    async def _info_of(self, application: str) -> EncoderInfo:
        return self._infos.get(application) or await self._ask_info(application)

    async def _ask_info(self, application: str) -> EncoderInfo:
        def request(_: int) -> object:
            return encoder_pb2.GetEncoderInfoRequest()

        answer = await self._call(self._stub.GetEncoderInfo, request, application)
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
        items: Sequence[_Item],
        split: Callable[[str, Sequence[_Item], EncoderInfo], list[tuple[int, Sequence[_Item]]]],
        make_request: Callable[[Sequence[_Item], int], object],
        method: Callable[..., Awaitable[Any]],
        application: str,
    ) -> Encoded:
        if not items:
            raise InvalidInput(field, f"{field} is empty; give at least one text.")
        info = await self._info_of(application)

        async def send(start: int, part: Sequence[_Item]) -> Encoded:
            try:
                async with self._turns:
                    response = await self._call(method, partial(make_request, part), application)
            except InvalidInput as error:
                raise shifted(error, start, field) from None
            return self._read(response, len(part), info)

        sendings = [asyncio.ensure_future(send(start, part)) for start, part in split(field, items, info)]
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
            queue_time_s=max(part.queue_time_s for part in parts),
        )

    async def _call(
        self, method: Callable[..., Awaitable[Any]], make_request: Callable[[int], object], application: str
    ) -> Any:  # noqa: ANN401 - the response type follows the method
        def send(metadata: grpc.aio.Metadata, timeout_s: float) -> Awaitable[Any]:
            return method(make_request(milliseconds(timeout_s)), metadata=metadata, timeout=timeout_s)

        return await self._connection.call(send, application, self._timeout_s)

    def _read(self, response: encoder_pb2.EncodeResponse, count: int, info: EncoderInfo) -> Encoded:
        if response.fingerprint != info.fingerprint:
            raise changed_model(info, response.fingerprint)
        embeddings = np.frombuffer(response.embeddings, dtype="<f4").astype(np.float32, copy=False)
        if embeddings.size != count * info.dimension or len(response.token_counts) != count:
            raise EncoderUnavailable(
                f"{self._connection.service} answered {embeddings.size} floats for {count} texts of {info.dimension} "
                "each; it is not an encoder service of this version."
            )
        return Encoded(
            embeddings=embeddings.reshape(count, info.dimension),
            token_counts=tuple(response.token_counts),
            tokenize_time_s=response.timings.tokenize_time_ms / 1000,
            queue_time_s=response.timings.queue_time_ms / 1000,
        )


def joint_fingerprint(query_model: str, passage_model: str) -> str:
    """Join the fingerprints of two models that encode queries and passages; one model for both keeps its own."""
    return query_model if query_model == passage_model else f"{query_model}+{passage_model}"


def query_model_in(fingerprint: str) -> str:
    """Give the fingerprint of the model that encodes queries, out of :func:`joint_fingerprint`'s."""
    return fingerprint.partition("+")[0]
