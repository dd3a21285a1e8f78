"""Every scan against the recurrence, token by token."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from encoder.scan import chunked_scan, reference_scan


def inputs(length: int, heads: int, groups: int, channels: int, size: int, seed: int) -> tuple[torch.Tensor, ...]:
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator)

    x = normal(2, length, heads, channels)
    dt = torch.rand(2, length, heads, generator=generator) * 0.3
    a = -torch.rand(heads, generator=generator) * 8
    b_in, c_out = normal(2, length, groups, size), normal(2, length, groups, size)
    return x, dt, a, b_in, c_out, normal(2, heads, channels, size)


@settings(deadline=None, max_examples=40)
@given(
    length=st.integers(1, 300),
    groups=st.sampled_from([1, 2, 4]),
    chunk_size=st.sampled_from([16, 64, 100]),
    with_state=st.booleans(),
    seed=st.integers(0, 2**16),
)
def test_chunked_equals_recurrence(length: int, groups: int, chunk_size: int, with_state: bool, seed: int) -> None:
    *tensors, state = inputs(length, 4, groups, 8, 16, seed)
    first = state if with_state else None
    expected, expected_state = reference_scan(*[t.double() for t in tensors], None if first is None else first.double())
    found, found_state = chunked_scan(*tensors, first, chunk_size)
    assert found.shape == expected.shape
    torch.testing.assert_close(found.double(), expected, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(found_state.double(), expected_state, rtol=1e-4, atol=1e-4)


@given(cut=st.integers(1, 199), seed=st.integers(0, 2**16))
@settings(deadline=None, max_examples=20)
def test_carried_state_continues_the_scan(cut: int, seed: int) -> None:
    x, dt, a, b_in, c_out, _ = inputs(200, 2, 1, 8, 8, seed)
    whole, last = chunked_scan(x, dt, a, b_in, c_out)
    left, state = chunked_scan(x[:, :cut], dt[:, :cut], a, b_in[:, :cut], c_out[:, :cut])
    right, end = chunked_scan(x[:, cut:], dt[:, cut:], a, b_in[:, cut:], c_out[:, cut:], state)
    torch.testing.assert_close(torch.cat([left, right], dim=1), whole, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(end, last, rtol=1e-4, atol=1e-4)


def test_strong_decay_stays_finite() -> None:
    x, dt, a, b_in, c_out, _ = inputs(256, 2, 1, 8, 8, 0)
    found, state = chunked_scan(x, dt * 100, a * 100, b_in, c_out)
    assert torch.isfinite(found).all()
    assert torch.isfinite(state).all()


def test_bfloat16_is_close_to_float32() -> None:
    x, dt, a, b_in, c_out, _ = inputs(300, 4, 2, 16, 16, 1)
    expected, _ = chunked_scan(x, dt, a, b_in, c_out)
    found, _ = chunked_scan(x.bfloat16(), dt, a, b_in.bfloat16(), c_out.bfloat16())
    assert (found.float() - expected).norm() / expected.norm() == pytest.approx(0, abs=2e-2)
