"""What search and ingestion need from other processes, connected and reconnected: the encoder service and the index.

Knows neither search nor ingestion: it makes what it is told to make of both, and says whether they answer.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Generic, TypeVar

from encoder.call_context import trace_with
from encoder.client import EncoderClient
from encoder.errors import EncoderUnavailable, IndexMoved, MambaSearchError, Overloaded, TimedOut
from encoder.fingerprint import index_fingerprint
from encoder.interface import Encoder, EncoderInfo
from ingest.index.interface import IndexStats, VectorIndex
from ingest.index.opening import open_index
from services.grpc_server import GrpcServer
from services.setting_groups import EncoderTargetSettings
from services.settings import BackendSettings

# How often both are asked whether they answer, and how long they may take.
CHECK_PERIOD_S = 1.0
CHECK_TIMEOUT_S = 5.0
# Requests at once to the encoder; others wait for them to end. Ray Serve's proxy ends what is above 1000 and not begun
# with CANCELLED, in which nobody can see that it is to come again.
ENCODER_CALLS_MAX = 256

OpenIndex = Callable[[int, str], Awaitable[VectorIndex]]  # dimension and fingerprint to an index

_Made = TypeVar("_Made")

logger = logging.getLogger(__name__)


class Backends(Generic[_Made]):
    """Holds what ``make`` makes of encoder and index, from their first meeting on.

    It stays while one of them is away: searching by words needs no encoder, and ingestion waits for both. It is
    given up when the encoder comes back with another model. Where the index's name comes to lead to another index, that
    one is taken in its place; where that is another model's, this one is kept for those who still ask, and called
    unhealthy.
    """

    def __init__(
        self,
        encoder: Encoder,
        open_index: OpenIndex,
        make: Callable[[Encoder, VectorIndex], _Made],
        chunker_fingerprint: str,
        on_stats: Callable[[IndexStats], None] | None = None,
    ) -> None:
        self._on_stats = on_stats
        self._encoder = encoder
        self._open_index = open_index
        self._make = make
        self._chunker_fingerprint = chunker_fingerprint
        self._index: VectorIndex | None = None
        self._made: _Made | None = None
        self._model = ""
        self._lost_index = False
        self._moved = False
        self._retired: VectorIndex | None = None  # searches that began before it was exchanged may still ask it
        self._problem: MambaSearchError | None = EncoderUnavailable("The service is starting; try again in a moment.")

    @property
    def encoder(self) -> Encoder:
        """The encoder, which may be away."""
        return self._encoder

    def get(self) -> _Made:
        """Give what was made; raises why there is nothing."""
        if self._made is None:
            assert self._problem is not None
            raise self._problem
        return self._made

    async def watch(self, tell: Callable[[bool], Awaitable[None]]) -> None:
        """Check again and again, and tell whether all is well each time that this changes."""
        trace_with(None)  # nobody looks for the traces of these checks
        told: str | None = None
        while True:
            problem = await self.check()
            now = "" if problem is None else str(problem)
            if now != told:
                if problem is None:
                    logger.info("encoder and index answer: serving")
                else:
                    logger.warning("not serving: %s", problem)
                await tell(problem is None)
                told = now
            await asyncio.sleep(CHECK_PERIOD_S)

    async def check(self) -> MambaSearchError | None:
        """Ask both whether they answer, and connect what is not; give what is wrong, None where nothing is.

        One that refuses because it is full does answer: its callers are told so, each for itself.
        """
        problem = await self._check()
        self._problem = None if isinstance(problem, Overloaded) and self._made is not None else problem
        return self._problem

    async def close(self) -> None:
        """Let go of encoder and index."""
        await self._disconnect()
        await self._encoder.close()

    async def _disconnect(self) -> None:
        self._made = None
        self._problem = self._problem or EncoderUnavailable("The service is connecting anew; try again in a moment.")
        indexes, self._index, self._retired = (self._index, self._retired), None, None
        for index in indexes:
            if index is not None:
                await index.close()

    async def _check(self) -> MambaSearchError | None:
        try:
            async with asyncio.timeout(CHECK_TIMEOUT_S):
                try:
                    info = await self._encoder.info()
                except MambaSearchError as error:
                    return await self._check_index() or error
                if self._index is None or info.fingerprint != self._model:
                    await self._connect(info)
                elif self._moved:
                    await self._follow(info)
                elif self._lost_index:
                    # An owner that was started again has to be told to open its index.
                    await (await self._open(info)).close()
                return await self._check_index()
        except MambaSearchError as error:
            return error
        except TimeoutError:
            return TimedOut(f"The encoder service or the index gave no answer within {CHECK_TIMEOUT_S:.0f} s.")

    async def _connect(self, info: EncoderInfo) -> None:
        await self._disconnect()
        self._index = await self._open(info)
        self._model = info.fingerprint
        self._made = self._make(self._encoder, self._index)

    async def _follow(self, info: EncoderInfo) -> None:
        """Take the index that the name leads to now; raises, and keeps this one, where it is another model's."""
        found = await self._open(info)
        replaced, self._index, self._retired = self._retired, found, self._index
        self._made, self._moved = self._make(self._encoder, found), False
        if replaced is not None:
            await replaced.close()

    async def _open(self, info: EncoderInfo) -> VectorIndex:
        fingerprint = index_fingerprint(info.fingerprint, self._chunker_fingerprint)
        return await self._open_index(info.dimension, fingerprint)

    async def _check_index(self) -> MambaSearchError | None:
        if self._index is None:
            return None
        try:
            stats = await self._index.stats()
        except Overloaded as error:
            return error
        except MambaSearchError as error:
            self._lost_index, self._moved = True, isinstance(error, IndexMoved)
            return error
        self._lost_index = False
        if self._on_stats:
            self._on_stats(stats)
        return None


def encoder_service(settings: EncoderTargetSettings, *, timeout_s: float, requests_max: int) -> EncoderClient:
    """Make the client of the encoder service that settings name; call it inside the event loop."""
    return EncoderClient(
        settings.encoder_target,
        query_application=settings.encoder_query_application,
        passage_application=settings.encoder_passage_application,
        timeout_s=timeout_s,
        concurrency_max=min(requests_max, ENCODER_CALLS_MAX),
        token=settings.shown_token(),
    )


def make_backends(
    settings: BackendSettings,
    encoder: Encoder,
    make: Callable[[Encoder, VectorIndex], _Made],
    chunker_fingerprint: str,
    *,
    on_stats: Callable[[IndexStats], None] | None = None,
) -> Backends[_Made]:
    """Make the backends that settings name, and take over ``encoder``.

    ``on_stats`` is told the size of the index each time that it is asked whether it answers.
    """

    async def open_named(dimension: int, fingerprint: str) -> VectorIndex:
        return await open_index(
            dimension=dimension,
            fingerprint=fingerprint,
            qdrant=settings.qdrant_server(),
            qdrant_collection=settings.qdrant_collection,
            target=settings.index_target,
            token=settings.index_token.get_secret_value() if settings.index_token else None,
        )

    return Backends(encoder, open_named, make, chunker_fingerprint, on_stats)


async def serve_until(stop: asyncio.Event, server: GrpcServer, host: str, port: int, backends: Backends[_Made]) -> None:
    """Serve until ``stop``, healthy as long as the backends answer; then let running calls end."""
    await server.start(host, port)
    logger.info("listening on %s:%d", host, server.port)
    watching = asyncio.ensure_future(backends.watch(server.set_serving))
    stopping = asyncio.ensure_future(stop.wait())
    try:
        await asyncio.wait({watching, stopping}, return_when=asyncio.FIRST_COMPLETED)
        if watching.done():
            watching.result()
    finally:
        watching.cancel()
        stopping.cancel()
        await server.stop()
        await backends.close()
