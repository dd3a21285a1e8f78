"""What search and ingestion need from other processes, connected and reconnected: the encoder service and the index.

Knows neither search nor ingestion: it makes what it is told to make of both, and says whether they answer.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Generic, TypeVar

from encoder.client import EncoderClient
from encoder.errors import EncoderUnavailable, IndexMoved, MambaSearchError, TimedOut
from encoder.fingerprint import index_fingerprint
from encoder.interface import Encoder, EncoderInfo
from ingest.index.interface import VectorIndex
from ingest.index.opening import open_index
from services.grpc_server import GrpcServer
from services.settings import BackendSettings

# How often both are asked whether they answer, and how long they may take.
CHECK_PERIOD_S = 1.0
CHECK_TIMEOUT_S = 5.0

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
    ) -> None:
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

    def get(self) -> _Made:
        """Give what was made; raises why there is nothing."""
        if self._made is None:
            assert self._problem is not None
            raise self._problem
        return self._made

    async def watch(self, tell: Callable[[bool], Awaitable[None]]) -> None:
        """Check again and again, and tell whether all is well each time that this changes."""
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
        """Ask both whether they answer, and connect what is not; give what is wrong, None where nothing is."""
        self._problem = await self._check()
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
            await self._index.stats()
        except MambaSearchError as error:
            self._lost_index, self._moved = True, isinstance(error, IndexMoved)
            return error
        self._lost_index = False
        return None


def make_backends(
    settings: BackendSettings,
    make: Callable[[Encoder, VectorIndex], _Made],
    chunker_fingerprint: str,
    *,
    encoder_timeout_s: float,
    requests_max: int,
) -> Backends[_Made]:
    """Make the backends that settings name; call it inside the event loop."""
    encoder = EncoderClient(
        settings.encoder_target,
        query_application=settings.encoder_query_application,
        passage_application=settings.encoder_passage_application,
        timeout_s=encoder_timeout_s,
        concurrency_max=requests_max,
    )

    async def open_named(dimension: int, fingerprint: str) -> VectorIndex:
        return await open_index(
            dimension=dimension,
            fingerprint=fingerprint,
            qdrant_url=settings.qdrant_url,
            qdrant_collection=settings.qdrant_collection,
            target=settings.index_target,
        )

    return Backends(encoder, open_named, make, chunker_fingerprint)


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
