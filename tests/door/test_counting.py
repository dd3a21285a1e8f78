"""Token buckets and places, with a clock that tests set."""

from __future__ import annotations

from contextlib import ExitStack

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from encoder.errors import Overloaded
from services.door.places import Places
from services.door.principal import ANYONE, NO_LIMITS, Limits, Principal, Role
from services.door.quotas import Quotas

KEY = Principal("key:1", frozenset({Role.SEARCH}), frozenset({"t"}))


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def test_a_bucket_gives_its_burst_and_then_its_rate() -> None:
    clock = Clock()
    quotas = Quotas(Limits(requests_per_s=2, requests_burst=3), now=clock)
    for _ in range(3):
        quotas.admit(KEY, "t")
    with pytest.raises(Overloaded, match=r"try again in 0\.5 s") as failure:
        quotas.admit(KEY, "t")
    assert failure.value.retry_after_s == 0.5
    clock.now = 0.5
    quotas.admit(KEY, "t")
    quotas.admit(KEY, "other")
    with pytest.raises(Overloaded):
        quotas.admit(KEY, "t")
    clock.now = 100
    for _ in range(3):
        quotas.admit(KEY, "t")
    with pytest.raises(Overloaded):
        quotas.admit(KEY, "t")


def test_what_is_refused_costs_nothing() -> None:
    clock = Clock()
    caller = Principal("key:2", KEY.roles, KEY.tenants, Limits(requests_per_s=1, requests_burst=1))
    quotas = Quotas(Limits(requests_per_s=1, requests_burst=5), now=clock)
    quotas.admit(caller, "t")
    for _ in range(10):
        with pytest.raises(Overloaded, match="of this caller"):
            quotas.admit(caller, "t")
    for _ in range(4):
        quotas.admit(KEY, "t")
    with pytest.raises(Overloaded, match="of this tenant"):
        quotas.admit(KEY, "t")


def test_tokens_are_paid_afterwards() -> None:
    clock = Clock()
    quotas = Quotas(Limits(tokens_per_s=10), now=clock)
    quotas.admit(KEY, "t")
    quotas.charge(KEY, "t", 150)  # a burst is ten seconds' worth
    assert quotas.wait_s(KEY, "t") == 5
    with pytest.raises(Overloaded, match="quota of tokens"):
        quotas.admit(KEY, "t")
    clock.now = 5
    quotas.admit(KEY, "t")


def test_a_batch_that_is_larger_than_the_burst_waits_for_a_full_bucket_and_no_longer() -> None:
    clock = Clock()
    quotas = Quotas(Limits(requests_per_s=1, requests_burst=10), now=clock)
    quotas.admit(KEY, "t", 50)
    assert quotas.wait_s(KEY, "t") == 41
    clock.now = 41
    quotas.admit(KEY, "t")


def test_without_limits_nothing_is_counted() -> None:
    quotas = Quotas(NO_LIMITS)
    for _ in range(1000):
        quotas.admit(ANYONE, "t")
        quotas.charge(ANYONE, "t", 10**9)
    assert quotas.wait_s(ANYONE, "t") == 0
    assert len(quotas._buckets) == 0


def test_few_tenants_are_remembered() -> None:
    quotas = Quotas(Limits(requests_per_s=1), tracked_max=10)
    for number in range(1000):
        quotas.admit(ANYONE, f"t{number}")
    assert len(quotas._buckets) == 10


@given(
    rate=st.floats(0.1, 1000),
    burst=st.floats(1, 100),
    steps=st.lists(st.tuples(st.floats(0, 10), st.integers(1, 5)), max_size=40),
)
@settings(max_examples=60, deadline=None)
def test_no_more_is_let_in_than_burst_and_rate_allow(rate: float, burst: float, steps: list[tuple[float, int]]) -> None:
    clock, admitted = Clock(), 0
    quotas = Quotas(Limits(requests_per_s=rate, requests_burst=burst), now=clock)
    for pause, count in steps:
        clock.now += pause
        for _ in range(count):
            try:
                quotas.admit(KEY, "t")
                admitted += 1
            except Overloaded as error:
                assert 0 < error.retry_after_s <= 1 / rate + 0.001  # noqa: PT017 - others are let in
    assert admitted <= burst + rate * clock.now + 1e-6


def test_a_tenant_alone_gets_its_share_and_several_get_alike() -> None:
    places = Places(100, share=0.8)
    with ExitStack() as held:
        assert fill(places, held, "a") == 80
        assert fill(places, held, "b") == 16
        assert fill(places, held, "a") == 0
    with ExitStack() as held:
        counts = dict.fromkeys("abc", 0)
        for _ in range(100):
            for name in counts:
                counts[name] += fill(places, held, name, at_most=1)
        assert max(counts.values()) - min(counts.values()) <= 1
        assert sum(counts.values()) < 100
    with ExitStack() as held:
        assert fill(Places(10, share=1.0), held, "a") == 10


@pytest.mark.parametrize("count", [1, 2, 3])
def test_a_tenant_always_gets_a_place_where_one_is_free(count: int) -> None:
    places = Places(count, share=0.1)
    with ExitStack() as held:
        assert [fill(places, held, f"t{number}", at_most=1) for number in range(count)] == [1] * count
        with pytest.raises(Overloaded, match="which is the limit"):
            held.enter_context(places.hold("one more"))


def test_places_come_back_however_a_call_ends() -> None:
    places = Places(1)
    for error in (KeyError, KeyboardInterrupt):
        with pytest.raises(error), places.hold("a"):
            raise error
    with places.hold("a"):
        pass
    assert not places._held


def fill(places: Places, held: ExitStack, tenant: str, at_most: int = 1000) -> int:
    for number in range(at_most):
        try:
            held.enter_context(places.hold(tenant))
        except Overloaded:
            return number
    return at_most
