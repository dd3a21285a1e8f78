"""One lane's waiting requests: who is in the next batch. Knows no clock and no model.

Requests take turns: a batch takes texts of one after the other up to its budget of tokens, and who has texts left goes
to the end. So a request of a thousand passages does not keep a request of one waiting for all of them.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from encoder.call_context import Span
from encoder.interface import TokenRow


@dataclass(eq=False, slots=True)
class Request:
    """Rows to embed, or one piece of a document to read; and what came of it."""

    answer: asyncio.Future[Any]  # of a piece's result, or of nothing once all rows are embedded
    since: float
    deadline: float
    tokens: int  # of what was not taken yet
    rows: Sequence[TokenRow] = ()
    piece: Callable[[], Awaitable[Any]] | None = None
    taken: int = 0  # rows that are in a batch or were in one
    embeddings: dict[int, NDArray[np.float32]] = field(default_factory=dict)  # by the first row's place, (n, d) each
    begun: bool = False
    forward_s: float = 0.0  # of the batches it had a part in
    cause: Span | None = None  # what it is read for, where that is traced
    waiting: Span | None = None  # until its first batch begins

    def stop_waiting(self) -> None:
        """Say that the wait is over, once."""
        if self.waiting is not None:
            self.waiting.end()
            self.waiting = None

    def is_embedded(self) -> bool:
        """Say whether no row is left to embed."""
        return sum(map(len, self.embeddings.values())) == len(self.rows)

    def joined(self) -> NDArray[np.float32]:
        """Give all rows' embeddings, in their order: ``(n, d)``."""
        return np.concatenate([self.embeddings[first] for first in sorted(self.embeddings)])


@dataclass(frozen=True, slots=True)
class Part:
    """What a batch takes from one request: its rows from ``first`` on, or its piece."""

    request: Request
    tokens: int
    first: int = 0
    rows: Sequence[TokenRow] = ()

    def halves(self) -> list[Part]:
        """Divide the rows, of which there are several."""
        half = len(self.rows) // 2
        cuts = ((self.first, self.rows[:half]), (self.first + half, self.rows[half:]))
        return [Part(self.request, sum(map(len, rows)), first, rows) for first, rows in cuts]


@dataclass(slots=True)
class LaneQueue:
    """First come, first served, in turns; ``tokens`` and ``len(requests)`` are what waits."""

    requests: deque[Request] = field(default_factory=deque)
    tokens: int = 0
    passed_over_since: float | None = None  # since when something waits and nothing of this lane was taken

    def add(self, request: Request) -> None:
        """Put a request at the end."""
        self._note(request)
        self.requests.append(request)

    def add_first(self, request: Request) -> None:
        """Put a request before all others."""
        self._note(request)
        self.requests.appendleft(request)

    def remove(self, request: Request) -> None:
        """Take out what nobody waits for any more, if it is still here."""
        if request in self.requests:
            self.requests.remove(request)
            self.tokens -= request.tokens
            self._settle(self.passed_over_since)

    def oldest_since(self) -> float | None:
        """Say since when the request waits that has waited longest."""
        return min((request.since for request in self.requests), default=None)

    def take(self, tokens_max: int, now: float) -> list[Part]:
        """Take the next batch: texts of at most ``tokens_max`` tokens (or one text, however long), or one piece.

        What has ended or whose deadline has passed is dropped. Nothing where nothing waits.
        """
        batch: list[Part] = []
        room = tokens_max
        while self.requests:
            request = self.requests[0]
            if request.answer.done() or request.deadline <= now:
                self.requests.popleft()
                self.tokens -= request.tokens
                continue
            if request.piece is not None and not batch:
                self.requests.popleft()
                batch.append(Part(request, request.tokens))
                self._count(request, request.tokens)
                break
            rows = _fitting(request, room, must=not batch)
            if not rows:
                break
            size = sum(map(len, rows))
            batch.append(Part(request, size, request.taken, rows))
            request.taken += len(rows)
            room -= size
            self._count(request, size)
            self.requests.popleft()
            if request.taken < len(request.rows):
                self.requests.append(request)
        self._settle(now)
        return batch

    def _note(self, request: Request) -> None:
        if not self.requests:
            self.passed_over_since = request.since
        self.tokens += request.tokens

    def _count(self, request: Request, tokens: int) -> None:
        request.tokens -= tokens
        self.tokens -= tokens

    def _settle(self, since: float | None) -> None:
        self.passed_over_since = since if self.requests else None


def _fitting(request: Request, room: int, *, must: bool) -> Sequence[TokenRow]:
    """Give the request's next rows that fit, at least one where the batch is empty; none of a piece."""
    stop = request.taken
    while stop < len(request.rows):
        size = len(request.rows[stop])
        if size > room and not (must and stop == request.taken):
            break
        room -= size
        stop += 1
    return request.rows[request.taken : stop]
