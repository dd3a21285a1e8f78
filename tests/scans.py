"""Random inputs for scans, and sequences to pack."""

import torch
from hypothesis import strategies as st
from torch import Tensor


def ssd_inputs(
    length: int,
    *,
    heads: int = 4,
    groups: int = 1,
    channels: int = 8,
    size: int = 16,
    seed: int = 0,
    decay: float = 1.0,
) -> tuple[tuple[Tensor, ...], Tensor]:
    """x, dt, a, B and C of two rows, and a state; ``decay`` is the strongest of a token, as a logarithm."""
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator)

    dt = torch.rand(2, length, heads, generator=generator) * 0.3
    a = -torch.rand(heads, generator=generator) * decay / 0.3
    tensors = (
        normal(2, length, heads, channels),
        dt,
        a,
        normal(2, length, groups, size),
        normal(2, length, groups, size),
    )
    return tensors, normal(2, heads, channels, size)


def sequences(length: int, seed: int) -> list[int]:
    """Lengths of up to ten sequences that fill a row."""
    generator = torch.Generator().manual_seed(seed)
    cuts = torch.randint(1, length + 1, (int(torch.randint(0, 10, (1,), generator=generator)),), generator=generator)
    ends = sorted({*cuts.tolist(), length})
    return [end - start for start, end in zip([0, *ends], ends, strict=False)]


def marks(lengths: list[int], rows: int) -> Tensor:
    """``seq_idx (rows, l)``."""
    return torch.repeat_interleave(torch.arange(len(lengths), dtype=torch.int32), torch.tensor(lengths)).expand(
        rows, -1
    )


def row_marks(length: int, seed: int) -> Tensor:
    """``seq_idx (2, l)``, other sequences in each row."""
    return torch.cat([marks(sequences(length, own), 1) for own in (seed, seed + 1)])


def relative_error(found: Tensor, expected: Tensor) -> float:
    """Largest difference, as a share of the largest value."""
    return float((found.double() - expected.double()).abs().max() / expected.double().abs().max().clamp_min(1e-6))


LENGTHS = st.one_of(st.integers(1, 200), st.integers(1, 4096))
SEEDS = st.integers(0, 2**16)
