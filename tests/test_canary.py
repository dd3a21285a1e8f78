"""Whether a replica still embeds: wedged, wrong and busy ones told apart, in virtual time."""

import asyncio

import numpy as np
import pytest
from numpy.typing import NDArray

from encoder.errors import EncoderUnavailable
from services.encoding.canary import PERIOD_S, PROBE_TIMEOUT_S, READING_MAX_S, Canary
from services.encoding.hooks import Hooks, Lane
from services.encoding.scheduler import Limits
from tests.encoding_scheduling import Reader
from tests.virtual_time import run

LIMITS = Limits(batch_tokens=1000, requests_max=8, tokens_max=100_000, documents_max=2)


class Watched:
    """A canary of a reader, whose every probe is counted."""

    def __init__(self) -> None:
        self.reader = Reader(LIMITS, side_by_side=True)
        self.probes: list[bool] = []
        self.turned = 0.0
        hooks = Hooks(canary_checked=lambda well, _: self.probes.append(well))
        self.canary = Canary(self._probe, self.reader.scheduler.reading_s, hooks)

    async def _probe(self, deadline: float) -> NDArray[np.float32]:
        await self.reader.scheduler.probe([1] * 3, deadline)
        return np.array([np.cos(self.turned), np.sin(self.turned)], dtype=np.float32)

    async def state(self) -> str:
        try:
            await self.canary.check()
        except EncoderUnavailable as problem:
            return str(problem)
        return ""


def test_it_probes_now_and_then_only() -> None:
    async def main() -> None:
        watched = Watched()
        for _ in range(100):
            assert not await watched.state()
            await asyncio.sleep(0.2)
        assert len(watched.probes) == 100 * 0.2 / PERIOD_S

    run(main())


def test_a_wedged_encoder_is_unwell_until_it_reads_again() -> None:
    async def main() -> None:
        watched = Watched()
        assert not await watched.state()
        await asyncio.sleep(PERIOD_S)
        watched.reader.free.clear()
        asked = asyncio.get_running_loop().time()
        assert not await watched.state(), "not known yet"
        assert asyncio.get_running_loop().time() < asked + 3, "nobody waits for the whole probe"
        await asyncio.sleep(PROBE_TIMEOUT_S)
        assert "does not embed (of a tiny text: " in await watched.state()
        watched.reader.free.set()
        await asyncio.sleep(2 * PERIOD_S)
        assert not await watched.state()
        assert watched.probes == [True, False, True]

    run(main())


def test_a_busy_encoder_is_well() -> None:
    async def main() -> None:
        watched = Watched()
        asked = [
            asyncio.ensure_future(watched.reader.ask(lane, [np.full(1000, 7, dtype=np.int32)] * 20))
            for lane in Lane
            for _ in range(4)
        ]
        for _ in range(60):
            assert not await watched.state()
            await asyncio.sleep(1)
        assert not all(request.done() for request in asked)
        await asyncio.gather(*asked)
        assert all(watched.probes)

    run(main())


@pytest.mark.parametrize("turned", [0.5, 3.0, float("nan")])
def test_an_encoder_that_gives_something_else_is_unwell(turned: float) -> None:
    async def main() -> None:
        watched = Watched()
        watched.turned = 0.1
        assert not await watched.state()
        await asyncio.sleep(PERIOD_S)
        watched.turned += turned
        assert "embedding now and at the start is" in await watched.state()

    run(main())


def test_passages_that_do_not_end_are_noticed_beside_queries_that_do() -> None:
    async def main() -> None:
        watched = Watched()

        async def for_ever() -> None:
            await asyncio.sleep(10 * READING_MAX_S)

        piece = asyncio.ensure_future(watched.reader.scheduler.read_piece(10, for_ever, float("inf")))
        await asyncio.sleep(READING_MAX_S - 1)
        assert not await watched.state()
        await asyncio.sleep(2)
        assert "a batch has been read for 121 s" in await watched.state()
        piece.cancel()

    run(main())
