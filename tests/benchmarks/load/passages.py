"""Passages through the encoder service: requests written beforehand, sent as bytes by several processes.

Writing and reading messages would keep the clients as busy as the service: each request's tokens are counted once, and
after that only the bytes that come are.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass

import grpc
from mambasearch.v1 import encoder_pb2

from encoder.client_calls import token_metadata
from encoder.client_requests import REQUEST_BYTES_MAX, REQUEST_TEXTS_MAX, REQUEST_TOKENS_MAX, split
from encoder.document_slices import TokenIds

_METHOD = "/mambasearch.v1.EncoderService/EncodePassages"
_MESSAGE_BYTES_MAX = 64 * 1024 * 1024
_WARM_UP_S = 2.0
_BACKOFF_S = 0.05


@dataclass(frozen=True, slots=True)
class Passing:
    """What one process had answered."""

    tokens: int
    refused: int  # by a full queue, and sent again
    ended: float  # of time.monotonic, which processes share


def requests_of_texts(texts: Sequence[str]) -> list[bytes]:
    """Write requests as :class:`encoder.client.EncoderClient` would send them."""
    parts = split(texts, [len(text.encode()) for text in texts], REQUEST_BYTES_MAX, REQUEST_TEXTS_MAX)
    return [encoder_pb2.EncodePassagesRequest(passages=part).SerializeToString() for _, part in parts]


def requests_of_ids(rows: Sequence[TokenIds]) -> list[bytes]:
    """Write requests as :class:`encoder.client.EncoderClient` would send them."""
    written = []
    for _, part in split(rows, [len(row) for row in rows], REQUEST_TOKENS_MAX, REQUEST_TEXTS_MAX):
        passages = [encoder_pb2.TokenizedPassage(token_ids=row) for row in part]
        written.append(encoder_pb2.EncodePassagesRequest(tokenized_passages=passages).SerializeToString())
    return written


def through(
    pool: ProcessPoolExecutor,
    processes: int,
    target: str,
    requests: Sequence[bytes],
    *,
    token: str,
    at_once: int,
    seconds: float,
) -> float:
    """Send requests from ``processes``, ``at_once`` in each; give tokens a second."""
    # A process that still imports what it needs would come too late.
    while len(set(pool.map(_process_id, range(processes)))) < processes:
        pass
    begin = time.monotonic() + _WARM_UP_S
    work = [
        pool.submit(send, target, requests, first * len(requests) // processes, token, at_once, begin, begin + seconds)
        for first in range(processes)
    ]
    found = [each.result() for each in work]
    refused = sum(each.refused for each in found)
    if refused:
        print(f"{refused} requests found the queue full", flush=True)
    return sum(each.tokens for each in found) / (max(each.ended for each in found) - begin)


def _process_id(_: int) -> int:
    time.sleep(0.2)  # so that another process takes the next
    return os.getpid()


def send(
    target: str, requests: Sequence[bytes], first: int, token: str, at_once: int, begin: float, end: float
) -> Passing:
    """Send requests again and again, from the ``first`` on; count those that were sent between two times."""
    return asyncio.run(_send(target, requests, first, token, at_once, begin, end))


async def _send(
    target: str, requests: Sequence[bytes], first: int, token: str, at_once: int, begin: float, end: float
) -> Passing:
    options = [
        ("grpc.max_send_message_length", _MESSAGE_BYTES_MAX),
        ("grpc.max_receive_message_length", _MESSAGE_BYTES_MAX),
    ]
    metadata = grpc.aio.Metadata(("application", "encoder"), *token_metadata(token))
    counts: dict[int, int] = {}
    tokens, refused, last = 0, 0, begin

    async with grpc.aio.insecure_channel(target, options=options) as channel:
        call = channel.unary_unary(_METHOD)  # bytes in, bytes out

        async def client(number: int) -> None:
            nonlocal tokens, refused, last
            while (sent := time.monotonic()) < end:
                place = (first + number) % len(requests)
                try:
                    answer = await call(requests[place], metadata=metadata)
                except grpc.aio.AioRpcError as error:
                    if error.code() is not grpc.StatusCode.RESOURCE_EXHAUSTED:
                        raise
                    refused += 1
                    await asyncio.sleep(_BACKOFF_S)
                    continue
                if place not in counts:
                    counts[place] = sum(encoder_pb2.EncodeResponse.FromString(answer).token_counts)
                if sent >= begin:
                    tokens += counts[place]
                    last = max(last, time.monotonic())
                number += at_once

        await asyncio.gather(*(client(number) for number in range(at_once)))
    return Passing(tokens, refused, last)
