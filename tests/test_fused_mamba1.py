"""The fused layers of Mamba-1 against plain torch: packed, in pieces, at places, over many segments.

On a GPU, or on a CPU with Triton's interpreter (TRITON_INTERPRET=1), which has no products of bfloat16.
"""

from dataclasses import replace
from typing import Any

import pytest
import torch

from encoder.kernels.fused import cuts
from encoder.mamba import Mamba
from tests.fused_twins import (
    DEVICE,
    MAMBA1,
    NEEDS_TRITON,
    close,
    fused,
    nothing,
    same_in_pieces,
    same_packed,
    same_when_filled_up,
    some_tokens,
)
from tests.random_weights import lively

triton = pytest.importorskip("triton")

from encoder.kernels.fused import launches, selective_layer  # noqa: E402 - needs Triton
from encoder.kernels.fused.elementary import softplus  # noqa: E402

pytestmark = NEEDS_TRITON

LENGTHS = (1, 2, 35, 1, 14, 3, 25, 4)


@pytest.fixture(params=MAMBA1.values(), ids=MAMBA1.keys())
def backbone(request: pytest.FixtureRequest) -> Mamba:
    return lively(request.param).to(DEVICE)


@pytest.fixture(params=[False, True], ids=["few segments", "many segments"])
def segments(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """With many, short sequences fall into one segment and long ones are cut within; and all are read as many
    tokens are.
    """
    if request.param:
        monkeypatch.setattr(launches, "FEW_TOKENS", 0)
        monkeypatch.setattr(selective_layer, "_FEW_PROGRAMS", 0)
        monkeypatch.setattr(cuts, "SEGMENT_TOKENS_MIN", 12)
        monkeypatch.setattr(cuts, "STATES_TOKENS", 0)


@pytest.mark.usefixtures("segments")
@torch.inference_mode()
@pytest.mark.parametrize("ends_only", [False, True])
def test_packed(backbone: Mamba, ends_only: bool) -> None:
    same_packed(backbone, LENGTHS, ends_only=ends_only)


@pytest.mark.usefixtures("segments")
@torch.inference_mode()
@pytest.mark.parametrize("cuts_at", [(), (1,), (2, 3, 40)])
def test_in_pieces(backbone: Mamba, cuts_at: tuple[int, ...]) -> None:
    """Whatever the pieces, states and hidden states are those of one reading in plain torch."""
    same_in_pieces(backbone, [0, 31, 32, 50, 69], cuts_at, length=70)


@pytest.mark.usefixtures("segments")
@torch.inference_mode()
@pytest.mark.parametrize(("read", "length"), [(1, 16), (30, 50), (50, 50)])
def test_filled_up(backbone: Mamba, read: int, length: int) -> None:
    """As a CUDA graph reads a piece that has fewer tokens than it."""
    same_when_filled_up(backbone, read=read, length=length, first=10)


@torch.inference_mode()
def test_all_hidden_states_read_on_from_states_of_plain_torch(backbone: Mamba) -> None:
    tokens, states = some_tokens(50), nothing(backbone)
    backbone.hidden_on(tokens[:, :30], states, torch.float32, None)
    found = fused(backbone).hidden_on(tokens[:, 30:], list(states), torch.float32, None)
    close(found, backbone.hidden_on(tokens[:, 30:], states, torch.float32, None))


@torch.inference_mode()
def test_half_precision(backbone: Mamba) -> None:
    dtype = torch.bfloat16 if DEVICE == "cuda" else torch.float16
    tokens = some_tokens(sum(LENGTHS))
    expected = backbone.hidden_packed(tokens, LENGTHS, torch.float32, ends_only=True)
    found = fused(backbone, dtype).hidden_packed(tokens, LENGTHS, dtype, ends_only=True)
    assert torch.nn.functional.cosine_similarity(found, expected).min() >= 0.9995


@torch.inference_mode()
def test_segments_may_begin_anywhere(backbone: Mamba) -> None:
    """One that reads on within a sequence, and that another reads on from, has the start of a sequence inside."""
    tokens = some_tokens(60)
    expected = backbone.hidden_packed(tokens, [32, 28], torch.float32, ends_only=False)
    twin = fused(backbone)
    packing = replace(
        cuts.pack([32, 28], cuts.Scanning(1, 1, 1, 1.0, 1), tokens.device),
        bounds=torch.tensor([0, 21, 43, 60], dtype=torch.int32, device=DEVICE),
        carried=torch.tensor([0, 1, 1, 0], dtype=torch.int32, device=DEVICE),
        order=torch.tensor([1, 0, 2], dtype=torch.int32, device=DEVICE),
        segments=3,
    )
    close(twin.read(tokens[0], packing, nothing(backbone), None), expected)


@triton.jit
def softplus_of(x: Any, y: Any) -> None:
    place = triton.language.arange(0, 4096)
    triton.language.store(y + place, softplus(triton.language.load(x + place)))


def test_time_steps_of_every_size() -> None:
    """Softplus is exact enough where its argument is far below zero, near it and far above."""
    x = torch.linspace(-30, 60, 4096, device=DEVICE)
    y = torch.empty_like(x)
    softplus_of[(1,)](x, y)
    expected = torch.nn.functional.softplus(x.double())
    assert ((y - expected) / expected).abs().max() <= 5e-6
