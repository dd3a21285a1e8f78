"""Many searches in one call: a list of them, or a stream. Each answers or fails on its own.

What a stream holds is bounded: at most :data:`STREAM_SEARCHES_MAX` searches are under way, or answered and not yet
taken, and the next request is read when one of these has gone out.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass

from mambasearch.v1 import search_pb2

from encoder.errors import InvalidInput, MambaSearchError, TimedOut
from services.search.answer_messages import failure_to_message
from services.search.unknown_fields import refuse_unknown_fields
from services.status import unexpected

BATCH_MAX = 100
BATCH_SEARCHES_MAX = 8  # of a batch, at once
STREAM_SEARCHES_MAX = 16
REQUEST_ID_CHARS_MAX = 128

Answer = Callable[[search_pb2.SearchRequest], Awaitable[search_pb2.SearchResponse]]


@dataclass(frozen=True, slots=True)
class StreamLimits:
    """How long a stream is waited for, in seconds."""

    idle_s: float  # for its next request
    send_s: float  # for an answer to be taken


async def outcome_of(answer: Answer, request: search_pb2.SearchRequest) -> search_pb2.SearchOutcome:
    """Answer one search of many, or say why it has no answer."""
    error: MambaSearchError
    try:
        return search_pb2.SearchOutcome(response=await answer(request))
    except MambaSearchError as known:
        error = known
    except TimeoutError:
        error = TimedOut("No answer within the deadline; try again, or allow more time.")
    except Exception as unforeseen:  # noqa: BLE001 - the others of the call have their answers
        error = unexpected(unforeseen, "a search of many")
    return search_pb2.SearchOutcome(failure=failure_to_message(error))


async def answer_batch(
    answer: Answer, requests: Sequence[search_pb2.SearchRequest], at_once: int
) -> list[search_pb2.SearchOutcome]:
    """Answer searches, some of them at once, in their order."""
    turns = asyncio.Semaphore(at_once)

    async def answer_one(request: search_pb2.SearchRequest) -> search_pb2.SearchOutcome:
        async with turns:
            return await outcome_of(answer, request)

    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(answer_one(request)) for request in requests]
    return [task.result() for task in tasks]


def check_batch(request: search_pb2.BatchSearchRequest) -> None:
    """Refuse an empty batch and one that is too long: :class:`InvalidInput` names ``requests``."""
    refuse_unknown_fields(request, inside=False)
    if not 1 <= (count := len(request.requests)) <= BATCH_MAX:
        raise InvalidInput("requests", f"requests has {count} searches; 1 to {BATCH_MAX} are allowed.")


async def answer_stream(
    answer: Answer,
    requests: AsyncIterator[search_pb2.SearchStreamRequest],
    send: Callable[[search_pb2.SearchStreamResponse], Awaitable[None]],
    limits: StreamLimits,
) -> None:
    """Answer searches as they come, each when it is ready, until the client has no more.

    :class:`TimedOut` where none comes for too long while none is under way, or an answer is not taken for too long.
    """
    stream = _Stream(answer, requests, limits)
    reading = asyncio.create_task(stream.read())
    try:
        while (response := await stream.ready.get()) is not None:
            try:
                async with asyncio.timeout(limits.send_s):
                    await send(response)
            except TimeoutError:
                message = f"No answer was taken for {limits.send_s:g} s; open a new stream, and read while writing."
                raise TimedOut(message) from None
            stream.gone_out()
        await reading
    finally:
        reading.cancel()
        await asyncio.gather(reading, return_exceptions=True)


class _Stream:
    """One client's stream: what was read, what is under way, what is ready to go out."""

    def __init__(
        self, answer: Answer, requests: AsyncIterator[search_pb2.SearchStreamRequest], limits: StreamLimits
    ) -> None:
        self._answer = answer
        self._requests = requests
        self._limits = limits
        self._places = asyncio.Semaphore(STREAM_SEARCHES_MAX)
        self._unanswered = 0
        # Never longer than there are places; None is the end.
        self.ready: asyncio.Queue[search_pb2.SearchStreamResponse | None] = asyncio.Queue()
        self._under_way: set[asyncio.Task[None]] = set()

    def gone_out(self) -> None:
        """Note that the client has taken an answer."""
        self._unanswered -= 1
        self._places.release()

    async def read(self) -> None:
        """Read requests and begin their searches until there are no more, and all have their answers."""
        try:
            while True:
                await self._places.acquire()
                request = await self._next()
                if request is None:
                    break
                self._unanswered += 1
                search = asyncio.create_task(self._search(request))
                self._under_way.add(search)
                search.add_done_callback(self._under_way.discard)
            if self._under_way:
                await asyncio.wait(self._under_way)
        finally:
            for search in list(self._under_way):
                search.cancel()
            self.ready.put_nowait(None)

    async def _next(self) -> search_pb2.SearchStreamRequest | None:
        """Wait for the next request; None at the end."""
        coming = asyncio.ensure_future(anext(self._requests, None))
        try:
            while not (await asyncio.wait({coming}, timeout=self._limits.idle_s))[0]:
                if not self._unanswered:
                    raise TimedOut(f"No request came for {self._limits.idle_s:g} s; open a new stream when one does.")
            return coming.result()
        finally:
            coming.cancel()
            await asyncio.gather(coming, return_exceptions=True)

    async def _search(self, request: search_pb2.SearchStreamRequest) -> None:
        outcome = await outcome_of(lambda search: self._answer(_checked(request, search)), request.request)
        request_id = request.request_id[:REQUEST_ID_CHARS_MAX]
        self.ready.put_nowait(search_pb2.SearchStreamResponse(request_id=request_id, outcome=outcome))


def _checked(request: search_pb2.SearchStreamRequest, search: search_pb2.SearchRequest) -> search_pb2.SearchRequest:
    if (size := len(request.request_id)) > REQUEST_ID_CHARS_MAX:
        message = f"request_id has {size} characters; the limit is {REQUEST_ID_CHARS_MAX}. Shorten it."
        raise InvalidInput("request_id", message)
    refuse_unknown_fields(request, inside=False)
    return search
