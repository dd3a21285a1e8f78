"""The fused backbone beside the one in plain torch: on a GPU, or on a CPU with Triton's interpreter."""

import pytest
import torch

from encoder.mamba import Mamba
from encoder.mixers import LayerState

triton = pytest.importorskip("triton")
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
NEEDS_TRITON = pytest.mark.skipif(
    DEVICE == "cpu" and not triton.knobs.runtime.interpret, reason="needs a GPU, or TRITON_INTERPRET=1"
)

from encoder.kernels.fused.backbone import FusedMamba  # noqa: E402 - it needs Triton


def fused(backbone: Mamba, dtype: torch.dtype = torch.float32) -> FusedMamba:
    """A backbone with the same weights over the fused layers."""
    twin = Mamba(backbone.config).eval()
    twin.load_state_dict(backbone.state_dict())
    return FusedMamba(twin.to(DEVICE), dtype)


def nothing(backbone: Mamba) -> list[LayerState | None]:
    """The states of a document that nothing was read of."""
    return [None] * backbone.config.n_layers


def close(found: torch.Tensor, expected: torch.Tensor, tolerance: float = 2e-5) -> None:
    assert found.shape == expected.shape
    assert (found - expected).abs().max() <= tolerance * expected.abs().max()


def some_tokens(length: int) -> torch.Tensor:
    """Ids ``(1, l)`` of a vocabulary of 50."""
    return torch.randint(0, 50, (1, length), generator=torch.Generator().manual_seed(length)).to(DEVICE)
