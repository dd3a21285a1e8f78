"""What a replica's model reads next: batches from several requests, queries before passages. Knows no encoder.

A batch is filled by a budget of tokens, from as many requests as fit; what is longer than the budget is read in pieces,
with its state carried on, so that others pass between two pieces. Where one thread reads all (a GPU), queries go first,
and passages that were passed over for ``PASSED_OVER_MAX_S`` go before them: neither starves. Where queries are read
beside passages (a CPU), each lane has a worker of its own, and the operating system shares the cores by niceness.

A GPU would stand still while one batch's answers are made and the next is put together. So a second batch may be given
to it while it reads the first, if that is a large one; of small ones (queries) it is better to gather more meanwhile.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from encoder.call_context import batch_span, current_span
from encoder.errors import Overloaded, TimedOut
from encoder.interface import TokenRow
from services.encoding.hooks import BatchRead, Hooks, Lane, Outcome, QueueState
from services.encoding.queue import LaneQueue, Part, Request

# Passages get a batch this often however many queries come: on a GPU, a fifth of its time or more.
PASSED_OVER_MAX_S = 0.25
_RETRY_AFTER_MIN_S = 0.1
_RETRY_AFTER_MAX_S = 10.0
# How long a document takes follows from its length, which nobody here knows.
_RETRY_DOCUMENT_AFTER_S = 1.0
# A batch of this part of the budget takes longer to read than to make ready.
_LARGE = 1 / 2
_BATCHES_AHEAD = 2
_TOKENS_PER_S_AT_FIRST = 10_000.0
_NEWEST_WEIGHT = 0.2

Embed = Callable[[Sequence[TokenRow]], Awaitable[NDArray[np.float32]]]
_Result = TypeVar("_Result")


@dataclass(frozen=True, slots=True)
class Limits:
    """How much may wait, and how much is read at once."""

    batch_tokens: int
    requests_max: int  # waiting, of each lane
    tokens_max: int  # waiting, of each lane; one request alone may have more
    documents_max: int


@dataclass(frozen=True, slots=True)
class Embedded:
    """A request's answer."""

    embeddings: NDArray[np.float32]  # (n, d)
    queue_time_s: float
    forward_time_s: float


class Poisoned(Exception):
    """The model has no finite embedding for the row at this place of its request."""

    def __init__(self, place: int) -> None:
        super().__init__(place)
        self.place = place


@dataclass(frozen=True, slots=True, eq=False)
class _Batch:
    """What is being read."""

    since: float
    tokens: int


@dataclass(slots=True)
class _Worker:
    """Reads batches from its lanes: one after the other, or the next while one is read."""

    lanes: tuple[Lane, ...]
    batches_max: int = 1
    tasks: set[asyncio.Task[None]] = field(default_factory=set)
    batches: list[_Batch] = field(default_factory=list)  # under way, the oldest first
    busy_since: float | None = None
    busy_s: float = 0.0  # until none was under way
    last_end: float = -math.inf  # of a batch

    def tokens(self) -> int:
        return sum(batch.tokens for batch in self.batches)


class Scheduler:
    """Belongs to one event loop, whose clock is used throughout; deadlines are times of that clock."""

    def __init__(
        self,
        embed: Mapping[Lane, Embed],
        limits: Limits,
        *,
        side_by_side: bool,
        ahead: bool = False,
        hooks: Hooks | None = None,
    ) -> None:
        """``side_by_side``: queries may be read while passages are; ``ahead``: a batch be given while one is read."""
        self._embed = embed
        self._limits = limits
        self._hooks = hooks or Hooks()
        self._queues = {lane: LaneQueue() for lane in Lane}
        self._present = dict.fromkeys(Lane, 0)
        self._documents = 0
        lanes = [(Lane.QUERIES,), (Lane.PASSAGES,)] if side_by_side else [tuple(Lane)]
        self._workers = [_Worker(each, _BATCHES_AHEAD if ahead else 1) for each in lanes]
        self._tokens_per_s = dict.fromkeys(Lane, _TOKENS_PER_S_AT_FIRST)  # of the latest batches

    @contextmanager
    def place(self, lane: Lane, tokens: int) -> Iterator[None]:
        """Hold a request's place in a lane; :class:`Overloaded` where all are taken, or too many tokens wait."""
        queue, limits = self._queues[lane], self._limits
        if self._present[lane] > limits.requests_max:
            raise self._overloaded(lane, f"{limits.requests_max} requests are waiting")
        if queue.tokens and queue.tokens + tokens > limits.tokens_max:
            raise self._overloaded(
                lane, f"{queue.tokens} tokens are waiting, and with {tokens} more it were over {limits.tokens_max}"
            )
        self._present[lane] += 1
        try:
            yield
        finally:
            self._present[lane] -= 1

    @contextmanager
    def document(self) -> Iterator[None]:
        """Hold a place for one document's stream; :class:`Overloaded` where all are taken."""
        if self._documents >= self._limits.documents_max:
            raise Overloaded(
                f"The encoder is reading {self._documents} documents, as many as it may (encoder_documents_max); "
                f"try again in {_RETRY_DOCUMENT_AFTER_S:.1f} s.",
                _RETRY_DOCUMENT_AFTER_S,
            )
        self._documents += 1
        try:
            yield
        finally:
            self._documents -= 1

    async def embed(self, lane: Lane, rows: Sequence[TokenRow], deadline: float) -> Embedded:
        """Embed rows (at least one), each in a batch with others or, longer than that, alone; the caller holds a place.

        :class:`TimedOut` where the deadline passes, :class:`Poisoned` where the model has no embedding for a row, and
        what the encoder raises for a row alone.
        """
        request = self._request(deadline, rows=rows)
        self._queues[lane].add(request)
        return await self._embedded(lane, request)

    async def probe(self, row: TokenRow, deadline: float) -> NDArray[np.float32]:
        """Embed one row as the next query, whether there is a place or not: ``(d,)``. Errors as for :meth:`embed`."""
        request = self._request(deadline, rows=[row])
        self._queues[Lane.QUERIES].add_first(request)
        found: NDArray[np.float32] = (await self._embedded(Lane.QUERIES, request)).embeddings[0]
        return found

    async def read_piece(
        self, tokens: int, read: Callable[[], Awaitable[_Result]], deadline: float
    ) -> tuple[_Result, float, float]:
        """Let ``read`` run when passages' turn comes; gives its result, the seconds waited and the seconds it took."""
        request = self._request(deadline, piece=read, tokens=tokens)
        self._queues[Lane.PASSAGES].add(request)
        result: _Result = await self._ended(Lane.PASSAGES, request)
        queue_time_s = self._now() - request.since - request.forward_s
        return result, max(queue_time_s, 0.0), request.forward_s

    def queue_state(self, lane: Lane) -> QueueState:
        """Say what waits."""
        queue = self._queues[lane]
        oldest = queue.oldest_since()
        return QueueState(len(queue.requests), queue.tokens, 0.0 if oldest is None else self._now() - oldest)

    def tokens_present(self) -> int:
        """Count the tokens that wait or are being read."""
        return sum(queue.tokens for queue in self._queues.values()) + sum(worker.tokens() for worker in self._workers)

    def busy_s(self) -> float:
        """Give the time that the model has been reading so far: of the worker that read most."""
        now = self._now()
        return max(
            worker.busy_s + (0.0 if worker.busy_since is None else now - worker.busy_since) for worker in self._workers
        )

    def reading_s(self) -> float:
        """Say how long the oldest batch under way has been read; 0 where none is."""
        now = self._now()
        return max((now - batch.since for worker in self._workers for batch in worker.batches), default=0.0)

    @staticmethod
    def _now() -> float:
        return asyncio.get_running_loop().time()

    def _overloaded(self, lane: Lane, why: str) -> Overloaded:
        self._hooks.request_ended(lane, Outcome.REFUSED)
        tokens = self._queues[lane].tokens + sum(worker.tokens() for worker in self._workers if lane in worker.lanes)
        retry_after_s = min(max(tokens / self._tokens_per_s[lane], _RETRY_AFTER_MIN_S), _RETRY_AFTER_MAX_S)
        return Overloaded(
            f"The encoder's queue of {lane.value} is full ({why}); try again in {retry_after_s:.1f} s.", retry_after_s
        )

    def _request(
        self,
        deadline: float,
        *,
        rows: Sequence[TokenRow] = (),
        piece: Callable[[], Awaitable[object]] | None = None,
        tokens: int = 0,
    ) -> Request:
        loop, cause = asyncio.get_running_loop(), current_span()
        return Request(
            answer=loop.create_future(),
            since=loop.time(),
            deadline=deadline,
            tokens=tokens or sum(map(len, rows)),
            rows=rows,
            piece=piece,
            cause=cause,
            waiting=cause.child("encoder queue") if cause else None,
        )

    async def _embedded(self, lane: Lane, request: Request) -> Embedded:
        await self._ended(lane, request)
        return Embedded(
            request.joined(),
            max(self._now() - request.since - request.forward_s, 0.0),
            request.forward_s,
        )

    async def _ended(self, lane: Lane, request: Request) -> Any:  # noqa: ANN401 - a piece's result, or None
        self._wake(lane)
        outcome = Outcome.FAILED
        try:
            async with asyncio.timeout_at(None if math.isinf(request.deadline) else request.deadline):
                result = await request.answer
            outcome = Outcome.DONE
        except TimeoutError:
            outcome = Outcome.EXPIRED
            raise TimedOut("The request's time was over before the encoder had read it; allow it more time.") from None
        except asyncio.CancelledError:
            outcome = Outcome.CANCELLED
            raise
        except Poisoned:
            outcome = Outcome.POISONED
            raise
        finally:
            # Not left to the next batch: while that is long in coming, who gives up must not fill the queue.
            self._queues[lane].remove(request)
            request.stop_waiting()
            self._hooks.request_ended(lane, outcome)
        return result

    def _wake(self, lane: Lane) -> None:
        for worker in self._workers:
            if lane in worker.lanes:
                self._start(worker)

    def _start(self, worker: _Worker) -> None:
        """Have the worker's next batch read, unless as many are under way as may be."""
        if len(worker.tasks) < worker.batches_max and self._has_room(worker):
            worker.tasks.add(asyncio.get_running_loop().create_task(self._work(worker)))

    def _has_room(self, worker: _Worker) -> bool:
        return all(batch.tokens >= _LARGE * self._limits.batch_tokens for batch in worker.batches)

    async def _work(self, worker: _Worker) -> None:
        """Read batches until nothing waits in the worker's lanes, or no other may be under way."""
        try:
            while self._has_room(worker):
                lane, batch = self._next(worker)
                if not batch:
                    return
                await self._read(worker, lane, batch)
        finally:
            # At once: whoever comes next must find that nobody looks any more.
            worker.tasks = {task for task in worker.tasks if task is not asyncio.current_task()}

    def _next(self, worker: _Worker) -> tuple[Lane, list[Part]]:
        now = self._now()
        since = self._queues[Lane.PASSAGES].passed_over_since
        due = since is not None and now - since >= PASSED_OVER_MAX_S
        for lane in reversed(worker.lanes) if due else worker.lanes:
            batch = self._queues[lane].take(self._limits.batch_tokens, now)
            if batch:
                return lane, batch
        return worker.lanes[0], []

    async def _read(self, worker: _Worker, lane: Lane, batch: list[Part]) -> None:
        started = self._now()
        waited_s = tuple(started - part.request.since for part in batch if not part.request.begun)
        tokens = sum(part.tokens for part in batch)
        under_way = _Batch(started, tokens)
        worker.batches.append(under_way)
        if worker.busy_since is None:
            worker.busy_since = started
        self._start(worker)
        for part in batch:
            part.request.stop_waiting()
        causes = [part.request.cause for part in batch]
        try:
            with batch_span("encoder batch", causes, {"lane": lane.value, "tokens": tokens, "requests": len(batch)}):
                results = await self._embed_or_read(lane, batch)
        finally:
            now = self._now()
            # Given while another was read, it waited for that one first.
            elapsed = now - max(started, worker.last_end)
            worker.last_end = now
            worker.batches.remove(under_way)
            if not worker.batches and worker.busy_since is not None:
                worker.busy_s += now - worker.busy_since
                worker.busy_since = None
        for part, result in zip(batch, results, strict=True):
            request = part.request
            request.begun = True
            request.forward_s += elapsed
            if request.is_embedded() and not request.answer.done():
                request.answer.set_result(result)
        if elapsed > 0:
            self._tokens_per_s[lane] += _NEWEST_WEIGHT * (tokens / elapsed - self._tokens_per_s[lane])
        texts = sum(len(part.rows) for part in batch) or 1
        budget = self._limits.batch_tokens
        self._hooks.batch_read(BatchRead(lane, texts, tokens, budget, len(batch), waited_s, elapsed))

    async def _embed_or_read(self, lane: Lane, batch: list[Part]) -> list[object]:
        """Read a piece of a document, or embed the rows of requests; give what is to answer each part."""
        piece = batch[0].request.piece
        if piece is not None:
            return [await _attempt(batch[0].request, piece)]
        await self._embed_apart(lane, batch)
        return [None] * len(batch)

    async def _embed_apart(self, lane: Lane, parts: list[Part]) -> None:
        """Embed the rows of parts; a batch that fails is halved until one row does."""
        parts = [part for part in parts if not part.request.answer.done()]
        if not parts:
            return
        failure: Exception
        try:
            embeddings = await self._embed[lane]([row for part in parts for row in part.rows])
        except Exception as error:  # noqa: BLE001 - whatever the model's libraries raise
            failure = error
        else:
            if np.isfinite(embeddings).all():
                ends = np.cumsum([len(part.rows) for part in parts])
                for part, found in zip(parts, np.split(embeddings, ends[:-1]), strict=True):
                    part.request.embeddings[part.first] = found
                return
            failure = Poisoned(parts[0].first)
        if len(parts) == 1:
            if len(parts[0].rows) == 1:
                _fail(parts[0].request, failure)
                return
            parts = parts[0].halves()
        half = len(parts) // 2
        await self._embed_apart(lane, parts[:half])
        await self._embed_apart(lane, parts[half:])


async def _attempt(request: Request, piece: Callable[[], Awaitable[object]]) -> object:
    """Let a piece be read; what it raises is the request's."""
    try:
        return await piece()
    except Exception as error:  # noqa: BLE001 - raised where the piece is waited for
        _fail(request, error)
        return None


def _fail(request: Request, error: Exception) -> None:
    if not request.answer.done():
        request.answer.set_exception(error)
