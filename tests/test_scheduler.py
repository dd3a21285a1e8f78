"""What a replica reads next, in virtual time: batches, lanes, deadlines, limits, poison; and all at random."""

import asyncio
from collections.abc import Awaitable
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from encoder.errors import Overloaded, TimedOut
from encoder.interface import TokenRow
from services.encoding.hooks import Lane, Outcome
from services.encoding.scheduler import PASSED_OVER_MAX_S, Limits, Poisoned
from tests.encoding_scheduling import BREAK, POISON, Reader
from tests.virtual_time import run

QUERIES, PASSAGES = Lane.QUERIES, Lane.PASSAGES
LIMITS = Limits(batch_tokens=100, requests_max=8, tokens_max=2000, documents_max=2)


def row(name: int, length: int) -> TokenRow:
    return np.full(length, name, dtype=np.int32)


def test_a_batch_is_filled_from_several_requests_up_to_its_budget() -> None:
    async def main() -> None:
        reader = Reader(LIMITS)
        rows = [[row(10 * request + n, 30) for n in range(2)] for request in range(4)]
        answers = await asyncio.gather(*(reader.ask(PASSAGES, texts) for texts in rows))
        assert answers == [[10 * request, 10 * request + 1] for request in range(4)]
        assert [names for _, _, names in reader.batches] == [[0, 1, 10], [20, 21, 30], [11, 31]]
        first = reader.read[0]
        assert (first.texts, first.tokens, first.tokens_max, first.requests) == (3, 90, 100, 2)
        assert first.forward_s == pytest.approx(0.09)
        assert reader.read[1].waited_s == pytest.approx((0.09, 0.09))
        assert reader.read[2].waited_s == ()

    run(main())


def test_a_long_request_keeps_no_short_one_waiting_for_its_end() -> None:
    async def main() -> None:
        reader = Reader(LIMITS)
        long = asyncio.ensure_future(reader.ask(PASSAGES, [row(1, 50)] * 30))
        await asyncio.sleep(0.01)
        await reader.ask(PASSAGES, [row(2, 50)])
        assert asyncio.get_running_loop().time() < 0.31
        assert len(await long) == 30

    run(main())


def test_queries_go_first_and_passages_do_not_starve() -> None:
    async def main() -> None:
        reader = Reader(LIMITS)
        passages = asyncio.ensure_future(reader.ask(PASSAGES, [row(1, 100)] * 20))
        stop = asyncio.Event()

        async def client() -> int:
            answered = 0
            while not stop.is_set():
                await reader.ask(QUERIES, [row(2, 40)])
                answered += 1
            return answered

        clients = [asyncio.ensure_future(client()) for _ in range(6)]
        await passages
        stop.set()
        answered = sum(await asyncio.gather(*clients))
        begun = [at for lane, at, _ in reader.batches if lane is PASSAGES]
        gaps = [later - earlier for earlier, later in pairwise(begun)]
        # Passed over for a quarter of a second, then the query batch under way; and its own tenth.
        assert max(gaps) <= PASSED_OVER_MAX_S + 0.08 + 0.1 + 1e-9
        assert min(gaps) > PASSED_OVER_MAX_S
        assert answered > 60

    run(main())


def test_side_by_side_a_query_waits_for_no_passage() -> None:
    async def main() -> None:
        reader = Reader(LIMITS, side_by_side=True)
        passages = asyncio.ensure_future(reader.ask(PASSAGES, [row(1, 100)] * 5))
        await asyncio.sleep(0.05)
        await reader.ask(QUERIES, [row(2, 10)])
        assert asyncio.get_running_loop().time() == pytest.approx(0.06)
        await passages

    run(main())


def test_pieces_take_turns_with_passages_and_queries_pass_between_them() -> None:
    async def main() -> None:
        reader = Reader(LIMITS)

        async def document() -> None:
            for name in range(3):
                assert await reader.piece(100, 100 + name) == 100 + name

        reading = asyncio.ensure_future(document())
        await asyncio.sleep(0.05)
        await asyncio.gather(reader.ask(PASSAGES, [row(1, 60)] * 2), reader.ask(QUERIES, [row(2, 10)]), reading)
        assert [names[0] for _, _, names in reader.batches] == [100, 2, 1, 101, 1, 102]

    run(main())


def test_who_gives_up_or_is_late_costs_nothing() -> None:
    async def main() -> None:
        reader = Reader(LIMITS)
        first = asyncio.ensure_future(reader.ask(PASSAGES, [row(1, 100)]))
        await asyncio.sleep(0.001)
        late = asyncio.ensure_future(reader.ask(PASSAGES, [row(2, 10)], timeout_s=0.05))
        gone = asyncio.ensure_future(reader.ask(QUERIES, [row(3, 10)]))
        piece = asyncio.ensure_future(reader.piece(10, 4, timeout_s=0.05))
        await asyncio.sleep(0.02)
        assert reader.scheduler.queue_state(PASSAGES).requests == 2
        gone.cancel()
        for waiting in (late, piece):
            with pytest.raises(TimedOut, match="time was over before"):
                await waiting
        # At its deadline, and not when its turn would have come.
        assert asyncio.get_running_loop().time() == pytest.approx(0.051)
        await first
        assert [names for _, _, names in reader.batches] == [[1]]
        assert gone.cancelled()
        assert sorted(outcome.value for _, outcome in reader.outcomes) == ["cancelled", "done", "expired", "expired"]
        assert reader.scheduler.tokens_present() == 0

    run(main())


def test_one_that_expires_while_it_is_read_harms_nobody() -> None:
    async def main() -> None:
        reader = Reader(LIMITS)
        short = asyncio.ensure_future(reader.ask(QUERIES, [row(1, 50)], timeout_s=0.01))
        other = asyncio.ensure_future(reader.ask(QUERIES, [row(2, 50)]))
        with pytest.raises(TimedOut):
            await short
        assert await other == [2]

    run(main())


def test_full_queues_refuse_with_an_honest_delay() -> None:
    async def main() -> None:
        reader = Reader(LIMITS)
        with pytest.raises(TimedOut):  # teaches the scheduler how fast the reader is
            await reader.ask(PASSAGES, [row(0, 100)] * 200, timeout_s=9.95)
        asked = [asyncio.ensure_future(reader.ask(PASSAGES, [row(n, 100)])) for n in range(9)]
        await asyncio.sleep(0)
        with pytest.raises(Overloaded, match=r"queue of passages is full \(8 requests are waiting\)") as refusal:
            await reader.ask(PASSAGES, [row(9, 1)])
        assert refusal.value.retry_after_s == pytest.approx(0.9, rel=0.2)
        assert await reader.ask(QUERIES, [row(10, 1)]) == [10], "queries have places of their own"
        await asyncio.gather(*asked)
        large = asyncio.ensure_future(reader.ask(PASSAGES, [row(1, 100)] * 50))
        await asyncio.sleep(0)
        with pytest.raises(Overloaded, match="5000 tokens are waiting, and with 100 more it were over 2000"):
            await reader.ask(PASSAGES, [row(2, 100)])
        assert len(await large) == 50, "alone, a request may have more tokens than may wait"
        assert [outcome for _, outcome in reader.outcomes].count(Outcome.REFUSED) == 2

    run(main())


def test_documents_have_places_of_their_own() -> None:
    reader = Reader(LIMITS)
    with reader.scheduler.document(), reader.scheduler.document():
        with pytest.raises(Overloaded, match="reading 2 documents") as refusal, reader.scheduler.document():
            pass
        assert refusal.value.retry_after_s > 0
    with reader.scheduler.document():
        pass


@pytest.mark.parametrize(("culprit", "kind"), [(POISON, Poisoned), (BREAK, RuntimeError)])
def test_a_failing_batch_is_split_until_the_culprit_is_alone(culprit: int, kind: type[Exception]) -> None:
    async def main() -> None:
        reader = Reader(LIMITS)
        rows = [[row(10 * n + 1, 5), row(10 * n + 2, 5)] for n in range(8)]
        rows[5][1] = row(culprit, 5)
        results = await asyncio.gather(*(reader.ask(PASSAGES, texts) for texts in rows), return_exceptions=True)
        assert isinstance(results[5], kind)
        if isinstance(results[5], Poisoned):
            assert results[5].place == 1
        assert [result for n, result in enumerate(results) if n != 5] == [
            [10 * n + 1, 10 * n + 2] for n in range(8) if n != 5
        ]
        assert len(reader.batches) <= 10

    run(main())


def test_a_probe_goes_first_whatever_waits() -> None:
    async def main() -> None:
        reader = Reader(LIMITS)
        asked = [asyncio.ensure_future(reader.ask(QUERIES, [row(n, 100)])) for n in range(1, 10)]
        await asyncio.sleep(0.05)
        assert (await reader.scheduler.probe(row(50, 10), deadline=1.0))[0] == 50
        assert asyncio.get_running_loop().time() == pytest.approx(0.11)
        await asyncio.gather(*asked)
        reader.free.clear()
        with pytest.raises(TimedOut):
            await reader.scheduler.probe(row(51, 10), deadline=5.0)
        assert reader.scheduler.reading_s() > 3
        reader.free.set()

    run(main())


def test_a_second_batch_is_given_while_a_large_one_is_read() -> None:
    async def main() -> None:
        reader = Reader(LIMITS, ahead=True)
        passages = asyncio.ensure_future(reader.ask(PASSAGES, [row(n, 100) for n in range(1, 6)]))
        await asyncio.sleep(0.01)
        await reader.ask(QUERIES, [row(50, 10)])
        assert asyncio.get_running_loop().time() == pytest.approx(0.21), "after the two that were given"
        assert await passages == [1, 2, 3, 4, 5]
        assert [names for _, _, names in reader.batches] == [[1], [2], [50], [3], [4], [5]]
        assert [at for _, at, _ in reader.batches] == pytest.approx([0, 0, 0.1, 0.21, 0.21, 0.31])
        assert [batch.forward_s for batch in reader.read] == pytest.approx([0.1, 0.1, 0.01, 0.1, 0.1, 0.1])
        assert reader.scheduler.busy_s() == pytest.approx(0.51)

    run(main())


def test_of_small_batches_more_is_gathered_while_one_is_read() -> None:
    async def main() -> None:
        reader = Reader(LIMITS, ahead=True)
        asked = []
        for number in range(1, 5):
            asked.append(asyncio.ensure_future(reader.ask(QUERIES, [row(number, 20)])))
            await asyncio.sleep(0.001)
        await asyncio.gather(*asked)
        assert [names for _, _, names in reader.batches] == [[1], [2, 3, 4]]

    run(main())


REQUESTS = st.lists(
    st.tuples(
        st.sampled_from(["queries", "passages", "piece", "probe"]),
        st.lists(st.integers(1, 150), min_size=1, max_size=6),  # lengths of the rows
        st.floats(0, 2),  # when it comes
        st.one_of(st.none(), st.floats(0, 1)),  # its deadline
        st.one_of(st.none(), st.floats(0, 1)),  # when its caller goes
        st.booleans(),  # whether a row is poisoned
    ),
    max_size=40,
)


@settings(max_examples=60, deadline=None)
@given(REQUESTS, st.booleans(), st.booleans())
def test_whatever_comes_nothing_is_lost_and_nothing_answered_twice(
    requests: list[tuple[str, list[int], float, float | None, float | None, bool]],
    side_by_side: bool,
    ahead: bool,
) -> None:
    async def main() -> None:
        reader = Reader(LIMITS, side_by_side=side_by_side, ahead=ahead)
        loop = asyncio.get_running_loop()

        async def one(number: int) -> None:
            kind, lengths, at, timeout_s, gone_s, poisoned = requests[number]
            await asyncio.sleep(at)
            due_s = float("inf") if timeout_s is None else timeout_s
            rows = [row(1000 + 10 * number + place, length) for place, length in enumerate(lengths)]
            if poisoned and kind in ("queries", "passages"):
                rows[-1][0] = POISON
            work: Awaitable[object]
            if kind == "piece":
                work = reader.piece(lengths[0], number, due_s)
            elif kind == "probe":
                work = reader.scheduler.probe(rows[0], loop.time() + due_s)
            else:
                work = reader.ask(Lane(kind), rows, due_s)
            begun = loop.time()
            try:
                async with asyncio.timeout(gone_s):
                    answer = await work
            except TimedOut:
                assert timeout_s is not None
                assert loop.time() >= begun + timeout_s - 1e-9
            except TimeoutError:
                assert gone_s is not None
            except Overloaded:
                assert kind in ("queries", "passages")
            except Poisoned:
                assert poisoned
            else:
                assert loop.time() <= begun + due_s + 1e-9
                if kind in ("queries", "passages"):
                    assert not poisoned
                    assert answer == [names[0] for names in rows]
            assert reader.scheduler.queue_state(PASSAGES).tokens >= 0

        async with asyncio.timeout(500):
            await asyncio.gather(*(one(number) for number in range(len(requests))))
        async with asyncio.timeout(500):
            while reader.scheduler.reading_s() or reader.scheduler.tokens_present():  # noqa: ASYNC110 - tells nobody
                await asyncio.sleep(0.1)
        for lane in Lane:
            state = reader.scheduler.queue_state(lane)
            assert (state.requests, state.tokens, state.oldest_s) == (0, 0, 0)
        for batch in reader.read:
            assert batch.tokens <= LIMITS.batch_tokens or batch.texts == 1
        # Each text is read once, but for those that shared a batch with a poisoned one.
        if not any(poisoned for *_, poisoned in requests):
            names = [name for _, _, batch in reader.batches for name in batch if name >= 1000]
            assert len(names) == len(set(names))

    run(main())
