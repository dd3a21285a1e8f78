"""Where rows of sequences are cut into segments, and how evenly that loads a device."""

import heapq

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from encoder.kernels.fused.cuts import SEGMENT_TOKENS_MIN, STATES_TOKENS, Scanning, Segments, cut

MAMBA2 = Scanning(programs=24, at_once=264, chunk=64, state_cost=0.27, states_at_once=22)
MAMBA1 = Scanning(programs=12, at_once=792, chunk=1, state_cost=0.95, states_at_once=66)
KINDS = [MAMBA2, MAMBA2._replace(programs=12), MAMBA2._replace(programs=80), MAMBA2._replace(programs=400), MAMBA1]
MIXED = np.clip(np.random.default_rng(0).lognormal(6.5, 1.2, 200), 10, 9000).astype(int).tolist()


def time_of(tokens: list[int], scanning: Scanning) -> int:
    """Tokens that are read one after the other, where a device starts a program whenever another ends."""
    loads = [0] * scanning.at_once
    for each in tokens:
        for _ in range(scanning.programs):
            heapq.heapreplace(loads, loads[0] + each)
    return max(loads)


def times_of(segments: Segments, scanning: Scanning) -> tuple[int, int]:
    """The same of the scan, and of what finds states."""
    tokens = np.diff(segments.bounds)[segments.order]
    again = tokens[segments.carried[1:][segments.order] == 1]
    return time_of(tokens.tolist(), scanning), time_of(again.tolist(), scanning)


@pytest.mark.parametrize("scanning", KINDS)
@given(
    lengths=st.one_of(
        st.lists(st.integers(1, 20_000), min_size=1, max_size=60),
        st.lists(st.integers(1, 300), min_size=1, max_size=300),
        st.tuples(st.integers(1, 9000), st.integers(1, 40)).map(lambda pair: [pair[0]] * pair[1]),
    )
)
def test_segments_cover_the_row(scanning: Scanning, lengths: list[int]) -> None:
    bounds, carried, order = cut(lengths, scanning)
    total, starts = sum(lengths), {0, *np.cumsum(lengths).tolist()}
    sizes = np.diff(bounds)
    assert (bounds[0], bounds[-1]) == (0, total)
    assert (sizes > 0).all()
    assert carried.tolist() == [int(bound not in starts) for bound in bounds.tolist()]
    assert sorted(order.tolist()) == list(range(len(sizes)))
    assert (np.diff(sizes[order]) <= 0).all()
    if max(lengths) <= STATES_TOKENS:
        assert not carried.any()
    # Segments of whole sequences, what long ones leave between them, and parts that are read again.
    at_once = 8 * scanning.segments_at_once + 2 * scanning.states_at_once
    assert len(order) <= 1 + min(at_once, 8 * (1 + total // SEGMENT_TOKENS_MIN))


@pytest.mark.parametrize("lengths", [[512] * 256, [2048] * 64, [60] * 2000, [8192] * 11, [4096] * 22])
@pytest.mark.parametrize("scanning", [MAMBA2, MAMBA2._replace(programs=12), MAMBA1])
def test_sequences_are_read_whole_where_they_fit(scanning: Scanning, lengths: list[int]) -> None:
    """As they do here, unless one is longer than an even share."""
    segments = cut(lengths, scanning)
    share = sum(lengths) / scanning.segments_at_once
    if max(lengths) <= 1.03 * share:
        assert not segments.carried.any()
        assert times_of(segments, scanning)[0] <= max(1.1 * share, share + 512)


@pytest.mark.parametrize("scanning", [MAMBA2, MAMBA2._replace(programs=12), MAMBA2._replace(programs=80), MAMBA1])
@pytest.mark.parametrize(
    "lengths",
    [[8192] * 16, [131_072], [32_768] * 4, [16_384] * 8, [10_000] * 12, [5700] * 23, MIXED, [512] * 200 + [20_000]],
)
def test_programs_are_loaded_evenly(scanning: Scanning, lengths: list[int]) -> None:
    segments = cut(lengths, scanning)
    scanned, states = times_of(segments, scanning)
    share = sum(lengths) / scanning.segments_at_once
    assert scanned <= 1.13 * share
    assert states <= 1.02 * share
    if segments.carried.any():
        assert scanned + scanning.state_cost * states <= time_of(sorted(lengths, reverse=True), scanning)


def test_only_what_is_left_over_is_read_twice() -> None:
    """Of 16 sequences 11 are read side by side, and whole; only the 5 others are cut, and their ends are read once."""
    bounds, carried, _ = cut([8192] * 16, MAMBA2)
    sizes = np.diff(bounds)
    assert (sizes == 8192).sum() == 11
    assert sizes[carried[1:] == 1].sum() <= 5 * (8192 - 3700)


def test_one_sequence_is_cut_evenly() -> None:
    for scanning in (MAMBA2, MAMBA1):
        bounds, carried, _ = cut([131_072], scanning)
        assert carried.tolist() == [0] + [1] * (len(bounds) - 2) + [0]
        tokens, share = np.diff(bounds), 131_072 / scanning.segments_at_once
        assert tokens.max() <= 1.03 * share
        assert tokens[:-1].max() <= 1.15 * tokens[:-1].sum() / scanning.states_at_once


def test_no_state_is_found_where_that_takes_longer() -> None:
    """Three sequences leave a fourth slot idle, which may read a quarter of each: twice, before others read on."""
    lengths = [8192] * 3
    assert cut(lengths, Scanning(66, 264, 1, 0.2, 4)).carried.any()
    assert not cut(lengths, Scanning(66, 264, 1, 0.95, 4)).carried.any()
    assert not cut([300, 300], MAMBA1).carried.any()
