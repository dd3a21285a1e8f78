"""How commands ask the ingestion worker: one call, or page after page."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, TypeVar

import grpc
from google.protobuf.json_format import MessageToDict
from google.protobuf.message import Message
from mambasearch.v1 import ingest_pb2_grpc

from services.cli.calling import call_error, open_channel
from services.cli.given import command_settings
from services.settings import CommandSettings

_Answer = TypeVar("_Answer")

PAGE_SIZE = 200


def worker_settings(target: str | None) -> CommandSettings:
    """Read settings; ``target`` is what an option says of where the worker is."""
    return command_settings({"ingest_target": target} if target else {})


async def ask(
    settings: CommandSettings, call: Callable[[ingest_pb2_grpc.IngestServiceStub, float], Awaitable[_Answer]]
) -> _Answer:
    """Make one call; it gets the stub and the longest time in seconds."""
    target = settings.ingest_target
    async with open_channel(target, settings) as channel:
        try:
            return await call(ingest_pb2_grpc.IngestServiceStub(channel), settings.command_timeout_s)
        except grpc.aio.AioRpcError as error:
            raise call_error(error, "ingestion worker", target, works_alone=False) from None


async def pages(
    settings: CommandSettings,
    method: str,
    request: Any,  # noqa: ANN401 - of any list
    field: str,
    limit: int,
) -> AsyncIterator[Any]:
    """Give the entries of a list, page after page, up to a number of them."""
    left = limit
    while left > 0:
        request.page_size = min(left, PAGE_SIZE)
        answer: Any = await ask(settings, lambda stub, time_s: getattr(stub, method)(request, timeout=time_s))
        for entry in getattr(answer, field):
            yield entry
            left -= 1
        request.page_token = answer.next_page_token
        if not request.page_token:
            return


def to_json(message: Message) -> str:
    """Write a message as one line of JSON, under the names of the protocol, what is zero included."""
    values = MessageToDict(message, preserving_proto_field_name=True, always_print_fields_with_no_presence=True)
    return json.dumps(values, ensure_ascii=False)
