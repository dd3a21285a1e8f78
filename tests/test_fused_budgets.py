"""How texts are laid out in a budget of tokens, for a CUDA graph to read."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from encoder.kernels.fused.budgets import Budget, budgets, sizes
from encoder.kernels.fused.cuts import Scanning

SCANNING = Scanning(programs=6, at_once=132, chunk=64, state_cost=0.2, states_at_once=44)
BUDGETS = list(budgets(SCANNING, 65_536))
DEARLY = list(budgets(SCANNING._replace(state_cost=0.95), 65_536))


def texts_for(budget: Budget) -> st.SearchStrategy[list[int]]:
    """Lengths of texts that fit in, many of them too many to be kept."""
    most = min(budget.texts, 80)
    return st.lists(st.integers(1, budget.text_tokens_max), min_size=1, max_size=most).map(
        lambda lengths: lengths[: int(np.searchsorted(np.cumsum(lengths), budget.tokens, side="right"))]
    )


def test_budgets_double_and_then_grow_in_steps() -> None:
    small = [2**power for power in range(4, 14)]
    large = [10_240, 12_288, 14_336, 16_384, 20_480, 24_576, 28_672, 32_768, 40_960, 49_152, 57_344, 65_536]
    assert [budget.tokens for budget in BUDGETS] == small + large
    assert [budget.tokens for budget in budgets(SCANNING, 600)] == [16, 32, 64, 128, 256, 512]
    assert BUDGETS[-1].segments == 66
    assert all(budget.segments == 1 for budget in BUDGETS if budget.tokens <= 512)


def test_sizes_of_pieces_grow_in_steps_sooner() -> None:
    found = list(sizes(131_072, doubling_until=1024))
    assert found[:12] == [16, 32, 64, 128, 256, 512, 1024, 1280, 1536, 1792, 2048, 2560]
    assert found[-1] == 131_072
    assert list(sizes(15)) == []


def test_what_fits_in() -> None:
    assert BUDGETS[-1].takes(65_536, 300, 257)
    assert not BUDGETS[-1].takes(40_000, 300, 257), "a smaller one is there for that"
    small = next(budget for budget in BUDGETS if budget.tokens == 8192)
    assert small.takes(10, 1, 10)
    assert small.takes(8000, 8, 5000)
    assert not next(budget for budget in DEARLY if budget.tokens == 8192).takes(8000, 8, 5000)
    assert not small.takes(8193, 40, 257)
    assert not small.takes(8000, 513, 257)
    assert not BUDGETS[-1].takes(65_000, 8, 9000)


@pytest.mark.parametrize("budget", [*BUDGETS, *DEARLY[6::4]], ids=lambda budget: str(budget.tokens))
@given(data=st.data())
def test_every_token_belongs_to_one_text_and_one_segment(budget: Budget, data: st.DataObject) -> None:
    lengths = np.array(data.draw(texts_for(budget)), dtype=np.int64)
    total = int(lengths.sum())
    tokens = np.arange(1, total + 1, dtype=np.int32)
    laid = np.full(budget.size, -1, dtype=np.int32)  # what a call before has left
    budget.lay_out(laid, tokens, lengths)
    ids, marks, places, bounds, order = budget.parts(laid)
    assert len(ids) == len(marks) == budget.tokens
    assert (len(places), len(bounds)) == (budget.texts, budget.segments + 1)
    np.testing.assert_array_equal(ids[:total], tokens)
    assert not ids[total:].any()
    # Texts in their order, none with a token of another; each place is its text's last.
    starts = np.flatnonzero(np.diff(marks, prepend=-1))
    np.testing.assert_array_equal(starts[: len(lengths)], lengths.cumsum() - lengths)
    np.testing.assert_array_equal(places[: len(lengths)], lengths.cumsum() - 1)
    assert np.diff(np.append(starts, budget.tokens)).max() <= budget.text_tokens_max
    # Segments cover the row, begin where texts do, and are as long as the kernels' grid allows.
    assert bounds[0] == 0
    assert bounds[-1] == budget.tokens
    sizes = np.diff(bounds)
    assert (sizes >= 0).all()
    assert sizes.max() <= budget.segment_tokens_max
    assert sorted(order) == list(range(budget.segments))
    assert (np.diff(sizes[order]) <= 0).all()
    assert np.isin(bounds, np.append(starts, budget.tokens)).all()
