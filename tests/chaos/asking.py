"""Searches without a pause while parts fail: answers are compared with known ones, errors kept with their moments."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import grpc
from mambasearch.v1 import search_pb2, search_pb2_grpc

from tests.chaos.answers import KNOWN, TOP_K, Known, fault_of, remember

MODES = (search_pb2.SEARCH_MODE_DENSE, search_pb2.SEARCH_MODE_SPARSE, search_pb2.SEARCH_MODE_HYBRID)
DEADLINE_S = 2.0
PAUSE_S = 0.02  # of a client, between two questions
# What a service may answer while a part of it is away; anything else is a fault of ours.
HONEST = {
    grpc.StatusCode.UNAVAILABLE,
    grpc.StatusCode.DEADLINE_EXCEEDED,
    grpc.StatusCode.RESOURCE_EXHAUSTED,
}

Question = tuple[str, "search_pb2.SearchMode"]
OpenChannel = Callable[[str], grpc.aio.Channel]  # to a part of the node


@dataclass(frozen=True, slots=True)
class Asked:
    """One search: when it was sent and answered, and what became of it."""

    sent: float
    answered: float
    code: grpc.StatusCode
    message: str = ""


@dataclass(slots=True)
class Searches:
    """All searches of a run."""

    asked: list[Asked] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)

    def dishonest(self) -> list[str]:
        """Name errors that no honest service answers."""
        return [
            f"{each.code.name}: {each.message[:200]}"
            for each in self.asked
            if each.code is not grpc.StatusCode.OK and each.code not in HONEST
        ]

    def recovered(self, since: float) -> tuple[float, int]:
        """Give the seconds from a moment until every search was answered again, and how many were not till then."""
        failed = [each.sent for each in self.asked if each.sent >= since - DEADLINE_S and not _is_ok(each)]
        if not failed:
            return 0.0, 0
        first = min((each.answered for each in self.asked if each.sent > failed[-1] and _is_ok(each)), default=None)
        return (first if first is not None else time.monotonic()) - since, len(failed)

    def ok_in_a_row(self, since: float) -> int:
        """Count the right answers since the last error, to searches that were sent after a moment."""
        for back, each in enumerate(reversed(self.asked)):
            if not _is_ok(each) or each.sent < since:
                return back
        return len(self.asked)


async def learn(open_channel: OpenChannel, texts: Sequence[str]) -> dict[Question, Known]:
    """Ask every question in every mode while nothing is wrong."""
    known = {}
    async with open_channel("search") as channel:
        stub = search_pb2_grpc.SearchServiceStub(channel)
        for text in texts:
            for mode in MODES:
                request = search_pb2.SearchRequest(query=text, mode=mode, top_k=KNOWN)
                known[text, mode] = remember(await stub.Search(request, timeout=30))
    return known


async def ask_until(
    done: asyncio.Event, open_channel: OpenChannel, known: Mapping[Question, Known], searches: Searches, first: int
) -> None:
    """Ask one question after another, beginning with number ``first``."""
    questions = list(known)
    number = first
    async with open_channel("search") as channel:
        stub = search_pb2_grpc.SearchServiceStub(channel)
        while not done.is_set():
            text, mode = questions[number % len(questions)]
            number += 1
            sent = time.monotonic()
            code, message = grpc.StatusCode.OK, ""
            try:
                request = search_pb2.SearchRequest(query=text, mode=mode, top_k=TOP_K)
                answer = await stub.Search(request, timeout=DEADLINE_S)
            except grpc.aio.AioRpcError as error:
                code, message = error.code(), error.details() or ""
            else:
                fault = fault_of(answer, known[text, mode])
                if fault:
                    searches.wrong.append(f"{text!r}, mode {mode}: {fault}")
            searches.asked.append(Asked(sent, time.monotonic(), code, message))
            await asyncio.sleep(PAUSE_S)


def _is_ok(each: Asked) -> bool:
    return each.code is grpc.StatusCode.OK
