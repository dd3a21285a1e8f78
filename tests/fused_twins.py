"""The fused backbone beside the one in plain torch: on a GPU, or on a CPU with Triton's interpreter."""

from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise

import pytest
import torch

from encoder.mamba import Mamba
from encoder.mixers import LayerState
from encoder.model_config import ModelConfig

triton = pytest.importorskip("triton")
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
NEEDS_TRITON = pytest.mark.skipif(
    DEVICE == "cpu" and not triton.knobs.runtime.interpret, reason="needs a GPU, or TRITON_INTERPRET=1"
)

from encoder.kernels.fused.backbone import FusedMamba  # noqa: E402 - it needs Triton
from encoder.kernels.fused.cuts import pack  # noqa: E402

_COMMON = {"name": "small", "vocabulary_size": 50, "n_layers": 2, "pooling": "last"}
MAMBA2 = {
    "one group": ModelConfig(architecture="mamba2", d_model=32, d_state=16, head_dim=16, **_COMMON),
    "two groups": ModelConfig(architecture="mamba2", d_model=48, d_state=32, head_dim=16, n_groups=2, **_COMMON),
    "three taps": ModelConfig(architecture="mamba2", d_model=32, d_state=16, head_dim=32, d_conv=3, **_COMMON),
}
MAMBA1 = {
    "one block": ModelConfig(architecture="mamba1", d_model=16, d_state=8, **_COMMON),
    "a block not full, three taps": ModelConfig(
        architecture="mamba1", d_model=48, d_state=4, expand=3, dt_rank=5, d_conv=3, **_COMMON
    ),
}
_RESERVED = 100  # tokens: some passes share memory, and others have their own


def fused(backbone: Mamba, dtype: torch.dtype = torch.float32) -> FusedMamba:
    """A backbone with the same weights over the fused layers."""
    twin = Mamba(backbone.config).eval()
    twin.load_state_dict(backbone.state_dict())
    made = FusedMamba(twin.to(DEVICE), dtype)
    made.reserve(_RESERVED)
    return made


def nothing(backbone: Mamba) -> list[LayerState | None]:
    """The states of a document that nothing was read of."""
    return [None] * backbone.config.n_layers


def close(found: torch.Tensor, expected: torch.Tensor, tolerance: float = 2e-5) -> None:
    assert found.shape == expected.shape
    assert (found - expected).abs().max() <= tolerance * expected.abs().max()


def some_tokens(length: int) -> torch.Tensor:
    """Ids ``(1, l)`` of a vocabulary of 50."""
    return torch.randint(0, 50, (1, length), generator=torch.Generator().manual_seed(length)).to(DEVICE)


def same_packed(backbone: Mamba, lengths: Sequence[int], *, ends_only: bool) -> None:
    """Both read packed sequences alike."""
    tokens = some_tokens(sum(lengths))
    expected = backbone.hidden_packed(tokens, lengths, torch.float32, ends_only=ends_only)
    found = fused(backbone).hidden_packed(tokens, lengths, torch.float32, ends_only=ends_only)
    close(found, expected)


def same_in_pieces(backbone: Mamba, at: Sequence[int], cuts_at: Sequence[int], *, length: int) -> None:
    """One in pieces and plain torch in one reading give the same hidden states at some places, and the same states."""
    tokens, places = some_tokens(length), torch.tensor(at, device=DEVICE)
    states = nothing(backbone)
    expected = backbone.hidden_on(tokens, states, torch.float32, places)
    twin, found_states, found = fused(backbone), nothing(backbone), []
    for start, end in pairwise([0, *cuts_at, length]):
        inside = places[(places >= start) & (places < end)] - start
        found.append(twin.hidden_on(tokens[:, start:end], found_states, torch.float32, inside))
    close(torch.cat(found), expected)
    close_states(found_states, states)


def same_when_filled_up(backbone: Mamba, *, read: int, length: int, first: int) -> None:
    """Of a row of ``length`` tokens after ``first`` others, ``read`` count: states know nothing of those behind."""
    tokens, places = some_tokens(first + length), torch.tensor([0, read // 2, read - 1], device=DEVICE)
    states, found_states = nothing(backbone), nothing(backbone)
    backbone.hidden_on(tokens[:, :first], states, torch.float32, None)
    twin = fused(backbone)
    twin.hidden_on(tokens[:, :first], found_states, torch.float32, None)
    expected = backbone.hidden_on(tokens[:, first : first + read], states, torch.float32, places)
    limit = torch.tensor([read], dtype=torch.int32, device=DEVICE)
    packing = replace(pack([length], twin.scanning, tokens.device), limit=limit)
    close(twin.read(tokens[0, first:], packing, found_states, places), expected)
    close_states(found_states, states)


def close_states(found: Sequence[LayerState | None], expected: Sequence[LayerState | None]) -> None:
    """Both are the states of all layers, alike."""
    for found_state, state in zip(found, expected, strict=True):
        assert state is not None
        assert found_state is not None
        close(found_state.conv, state.conv)
        close(found_state.ssm, state.ssm)
