"""The journal: each number once, leases that run out, garbage that waits."""

from __future__ import annotations

import asyncio
import importlib.util
import multiprocessing
import sqlite3
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from encoder.errors import InvalidInput, JournalUnavailable
from ingest.index.interface import DocumentKey
from ingest.journal import Attempt, Garbage, Journal, journal_url
from tests.pipelining import Clock

A, B = DocumentKey("default", "a"), DocumentKey("default", "b")
OTHER_TENANTS_A = DocumentKey("other", "a")


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
async def journals(database_url: str, clock: Clock) -> AsyncIterator[tuple[Journal, Journal]]:
    """Two owners of one journal."""
    opened = [await Journal.open(database_url, lease_s=30, now=clock) for _ in range(2)]
    yield opened[0], opened[1]
    for journal in opened:
        await journal.close()


async def test_a_number_is_given_once_whoever_asks_and_whatever_became_of_it(
    journals: tuple[Journal, Journal],
) -> None:
    one, other = journals
    assert await one.begin([A, B], {}) == {A: 1, B: 1}
    assert await other.begin([A], {}) == {A: 2}
    await one.withdraw(Attempt(A, 1))
    await other.finish_deletion(Attempt(A, 2), 0)
    (garbage,) = await one.due(10)
    await one.collected([garbage])
    assert await one.begin([A, OTHER_TENANTS_A], {}) == {A: 3, OTHER_TENANTS_A: 1}


async def test_numbers_lie_above_what_the_index_has_seen(journals: tuple[Journal, Journal]) -> None:
    one, _ = journals
    assert await one.begin([A, B], {A: 7}) == {A: 8, B: 1}
    assert await one.begin([A], {A: 3}) == {A: 9}


async def test_leases_run_out_by_the_clock_of_the_database(database_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    one = await Journal.open(database_url)
    await one.begin([A], {})
    # As on a machine whose clock is an hour ahead: it does not take the other one for dead.
    monkeypatch.setattr("ingest.journal_clock.time.time", lambda: 4e9)
    ahead = await Journal.open(database_url)
    assert await ahead.abandoned(10) == []
    await ahead.begin([B], {})
    monkeypatch.undo()
    assert await one.abandoned(10) == []
    # Between two questions the steady clock counts: a clock that is set back or forth ends no lease.
    steady = time.monotonic
    monkeypatch.setattr("ingest.journal_clock.time.monotonic", lambda: steady() + 1000)
    assert not one.holds(Attempt(A, 1))
    assert [attempt.key for attempt in await one.abandoned(10)] == [B]
    await one.renew()
    assert one.holds(Attempt(A, 1))
    for journal in (one, ahead):
        await journal.close()


async def test_numbers_survive_a_restart(database_url: str) -> None:
    first = await Journal.open(database_url)
    await first.begin([A], {})
    await first.close()
    second = await Journal.open(database_url)
    assert await second.begin([A], {}) == {A: 2}
    await second.close()


async def test_what_is_not_renewed_is_abandoned(journals: tuple[Journal, Journal], clock: Clock) -> None:
    one, other = journals
    await one.begin([A], {})
    await other.begin([B], {})
    clock.now += 20
    await one.renew()
    assert await one.abandoned(10) == []
    clock.now += 20
    assert await one.abandoned(10) == [Attempt(B, 1)]
    assert await other.abandoned(10) == []  # it goes on with its own, if only it is let
    assert one.holds(Attempt(A, 1))
    assert not other.holds(Attempt(B, 1))
    other.let_go([Attempt(B, 1)])
    assert await other.abandoned(10) == [Attempt(B, 1)]
    await other.withdraw(Attempt(B, 1))
    assert await one.abandoned(10) == []


async def test_finished_attempts_are_not_abandoned(journals: tuple[Journal, Journal], clock: Clock) -> None:
    one, _ = journals
    generations = await one.begin([A, B], {})
    await one.finish([Attempt(key, generation) for key, generation in generations.items()], 60)
    clock.now += 1000
    assert await one.abandoned(10) == []


async def test_documents_that_somebody_writes_are_known(journals: tuple[Journal, Journal]) -> None:
    one, other = journals
    await one.begin([A], {})
    assert await other.under_way([A, B]) == {A}
    await one.finish([Attempt(A, 1)], 0)
    assert await other.under_way([A, B]) == set()


async def test_what_may_have_been_visible_waits_as_garbage_does(journals: tuple[Journal, Journal]) -> None:
    one, _ = journals
    await one.begin([A], {})
    await one.discard(Attempt(A, 1), 60)
    assert await one.due(10) == []
    assert await one.due(10, within_s=60) == [Garbage(A, 2, 0)]


async def test_garbage_waits_for_the_last_who_may_read_it(journals: tuple[Journal, Journal], clock: Clock) -> None:
    """What an attempt left that came to nothing, and the version that the next one replaces, are one entry."""
    one, _ = journals
    await one.begin([A], {A: 1})
    await one.discard(Attempt(A, 2), 60)
    await one.begin([A], {})
    clock.now += 50
    await one.finish([Attempt(A, 3)], 60)
    clock.now += 59
    assert await one.due(10) == []
    clock.now += 1
    assert await one.due(10) == [Garbage(A, 3, 0)]


async def test_garbage_that_comes_while_some_is_collected_is_kept(journals: tuple[Journal, Journal]) -> None:
    """They are one entry: what was replaced meanwhile has yet to be collected."""
    one, other = journals
    await one.begin([A], {A: 1})
    await one.discard(Attempt(A, 2), 0)
    found = await other.due(10)
    await one.begin([A], {})
    await one.finish([Attempt(A, 3)], 60)
    await other.collected(found)
    assert await other.due(10, within_s=60) == [Garbage(A, 3, 0)]


async def test_who_is_alone_takes_over_at_once(journals: tuple[Journal, Journal]) -> None:
    one, other = journals
    await one.begin([A], {})
    await other.begin([B], {})
    await other.abandon_others()
    assert await other.abandoned(10) == [Attempt(A, 1)]


async def test_garbage_waits_for_the_longest_search(journals: tuple[Journal, Journal], clock: Clock) -> None:
    one, _ = journals
    for _ in range(3):
        generations = await one.begin([A], {})
        await one.finish([Attempt(A, generations[A])], 60)  # of the first, which comes after nothing, there is none
        clock.now += 40
    # The first version's garbage is due, although the second one's came later.
    assert await one.due(10) == [Garbage(A, 2, 0)]
    assert await one.due(10, within_s=60) == [Garbage(A, 2, 0), Garbage(A, 3, 0)]
    oldest = await one.due(1, within_s=60)
    assert oldest == [Garbage(A, 2, 0)]
    await one.collected(oldest)
    assert await one.due(10, within_s=60) == [Garbage(A, 3, 0)]


async def test_a_deletions_mark_stays_while_an_attempt_that_it_fences_is_open(
    journals: tuple[Journal, Journal],
) -> None:
    one, other = journals
    await other.begin([A, OTHER_TENANTS_A], {})
    await one.begin([A], {})
    await one.finish_deletion(Attempt(A, 2), 0)
    assert await one.due(10) == []
    await other.withdraw(Attempt(A, 1))
    assert await one.due(10) == [Garbage(A, 3, 2)]


async def test_finishing_twice_is_finishing_once(journals: tuple[Journal, Journal]) -> None:
    one, _ = journals
    await one.begin([A], {A: 1})
    await one.finish([Attempt(A, 2)], 0)
    await one.finish([Attempt(A, 2)], 0)
    assert await one.due(10) == [Garbage(A, 2, 0)]


def _begin_many(url: str, times: int) -> list[int]:
    async def begin() -> list[int]:
        journal = await Journal.open(url)
        try:
            return [(await journal.begin([A], {}))[A] for _ in range(times)]
        finally:
            await journal.close()

    return asyncio.run(begin())


async def test_processes_never_get_the_same_number(database_url: str) -> None:
    with multiprocessing.get_context("spawn").Pool(3) as pool:
        found = await asyncio.to_thread(pool.starmap, _begin_many, [(database_url, 50)] * 3)
    assert sorted(number for numbers in found for number in numbers) == list(range(1, 151))


async def test_another_format_is_refused(tmp_path: Path) -> None:
    await (await Journal.open(journal_url(tmp_path))).close()
    with sqlite3.connect(tmp_path / "journal.sqlite") as connection:
        connection.execute("UPDATE about SET value = '99'")
    connection.close()
    with pytest.raises(JournalUnavailable, match="format 99, this program needs 1"):
        await Journal.open(journal_url(tmp_path))


@pytest.mark.parametrize("url", ["mysql://x/y", "nonsense"])
async def test_other_databases_are_refused(url: str) -> None:
    with pytest.raises(InvalidInput, match="journal_url"):
        await Journal.open(url)


async def test_a_missing_driver_is_named() -> None:
    if importlib.util.find_spec("psycopg"):
        pytest.skip("psycopg is installed")
    with pytest.raises(InvalidInput, match=r"needs the package psycopg; install mamba-search\[postgres\]"):
        await Journal.open("postgresql+psycopg://nobody@nowhere/none")


async def test_a_file_that_is_no_database_is_told(tmp_path: Path) -> None:
    (tmp_path / "journal.sqlite").write_bytes(b"not a database, but long enough to be read as one" * 100)
    with pytest.raises(JournalUnavailable, match=r"journal\.sqlite failed \(file is not a database\)"):
        await Journal.open(journal_url(tmp_path))
