"""Every scan of Mamba-2 against the recurrence, token by token."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from encoder.kernels.factored_scan import factored_scan
from encoder.scan import chunked_scan, reference_scan
from tests.scans import LENGTHS, SEEDS, marks, relative_error, row_marks, ssd_inputs


@settings(deadline=None, max_examples=40)
@given(
    length=LENGTHS,
    groups=st.sampled_from([1, 2, 4]),
    chunk_size=st.sampled_from([16, 64, 100]),
    start=st.sampled_from(["nothing", "state", "sequences"]),
    decay=st.sampled_from([0.01, 1.0, 30.0]),
    seed=SEEDS,
)
def test_chunked_equals_recurrence(
    length: int, groups: int, chunk_size: int, start: str, decay: float, seed: int
) -> None:
    tensors, state = ssd_inputs(length, groups=groups, seed=seed, decay=decay)
    first = state if start == "state" else None
    seq_idx = row_marks(length, seed) if start == "sequences" else None
    expected, expected_state = reference_scan(
        *[tensor.double() for tensor in tensors], None if first is None else first.double(), seq_idx
    )
    found, found_state = chunked_scan(*tensors, first, seq_idx, chunk_size)
    assert found.shape == expected.shape
    assert relative_error(found, expected) <= 1e-4
    assert relative_error(found_state, expected_state) <= 1e-4


@settings(deadline=None, max_examples=40)
@given(
    length=LENGTHS,
    groups=st.sampled_from([1, 2, 4]),
    start=st.sampled_from(["nothing", "state", "sequences"]),
    decay=st.sampled_from([0.01, 0.5, 2.0]),
    seed=SEEDS,
)
def test_factored_equals_recurrence(length: int, groups: int, start: str, decay: float, seed: int) -> None:
    tensors, state = ssd_inputs(length, groups=groups, seed=seed, decay=decay)
    first = state if start == "state" else None
    seq_idx = row_marks(length, seed) if start == "sequences" else None
    result = factored_scan(*tensors, first, seq_idx)
    if result is None:  # a head decays too fast: it says so, and the caller takes another scan
        assert _strongest_decay(tensors) < -120
        return
    expected, expected_state = reference_scan(
        *[tensor.double() for tensor in tensors], None if first is None else first.double(), seq_idx
    )
    assert result[1] is not None
    # A chunk's decays add up to 120 at most, where float32 is spaced by 2 ** -17: 64 sums are off by 64 * 2 ** -18 at
    # most, and so is, relatively, what exp makes of them.
    assert relative_error(result[0], expected) <= 64 * 2**-18
    assert relative_error(result[1], expected_state) <= 64 * 2**-18


def _strongest_decay(tensors: tuple[torch.Tensor, ...]) -> float:
    decay = tensors[1] * tensors[2]
    chunk = min(64, decay.shape[1] + -decay.shape[1] % 16)
    return float(
        torch.nn.functional.pad(decay, (0, 0, 0, -decay.shape[1] % chunk)).unflatten(1, (-1, chunk)).sum(2).min()
    )


def test_factored_scan_takes_strong_decays_up_to_its_limit_and_refuses_stronger_ones() -> None:
    (x, dt, _, b_in, c_out), _ = ssd_inputs(256, heads=2)
    dt = torch.full_like(dt, 1.0)
    for decay in (1.0, 1.87):
        tensors = x, dt, torch.tensor([-decay, -0.001]), b_in, c_out
        result = factored_scan(*tensors)
        assert result is not None
        assert relative_error(result[0], reference_scan(*[tensor.double() for tensor in tensors])[0]) <= 1e-4
    assert factored_scan(x, dt, torch.tensor([-1.9, -0.001]), b_in, c_out) is None


@given(cut=st.integers(1, 199), seed=SEEDS)
@settings(deadline=None, max_examples=20)
def test_carried_state_continues_the_scan(cut: int, seed: int) -> None:
    (x, dt, a, b_in, c_out), _ = ssd_inputs(200, heads=2, seed=seed)
    whole, last = chunked_scan(x, dt, a, b_in, c_out)
    left, state = chunked_scan(x[:, :cut], dt[:, :cut], a, b_in[:, :cut], c_out[:, :cut])
    right, end = chunked_scan(x[:, cut:], dt[:, cut:], a, b_in[:, cut:], c_out[:, cut:], state)
    torch.testing.assert_close(torch.cat([left, right], dim=1), whole, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(end, last, rtol=1e-4, atol=1e-4)


def test_strong_decay_stays_finite() -> None:
    (x, dt, a, b_in, c_out), _ = ssd_inputs(256, heads=2)
    found, state = chunked_scan(x, dt * 100, a * 100, b_in, c_out)
    assert torch.isfinite(found).all()
    assert torch.isfinite(state).all()


@pytest.mark.parametrize("scan", [chunked_scan, factored_scan])
def test_bfloat16_is_close_to_float32(scan: object) -> None:
    (x, dt, a, b_in, c_out), _ = ssd_inputs(300, groups=2, channels=16, seed=1)
    expected, _ = reference_scan(x, dt, a, b_in, c_out)
    found, _ = scan(x.bfloat16(), dt, a, b_in.bfloat16(), c_out.bfloat16())  # type: ignore[operator]
    assert (found.float() - expected).norm() / expected.norm() == pytest.approx(0, abs=2e-2)


def test_a_sequence_does_not_see_its_neighbours() -> None:
    tensors, _ = ssd_inputs(150, seed=3)
    lengths = [1, 70, 2, 77]
    packed, _ = chunked_scan(*tensors, None, marks(lengths, 2))
    start = 0
    for length in lengths:
        x, dt, a, b_in, c_out = tensors
        part = slice(start, start + length)
        alone, _ = chunked_scan(x[:, part], dt[:, part], a, b_in[:, part], c_out[:, part])
        torch.testing.assert_close(packed[:, part], alone, rtol=1e-4, atol=1e-4)
        start += length
