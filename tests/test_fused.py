"""The fused layers against plain torch: packed, in pieces, at places, with groups, over many segments.

On a GPU, or on a CPU with Triton's interpreter (TRITON_INTERPRET=1), which has no products of bfloat16.
"""

import numpy as np
import pytest
import torch

from encoder.kernels.fused import cuts
from encoder.kernels.fused.budgets import Budget
from encoder.mamba import Mamba
from tests.fused_twins import (
    DEVICE,
    MAMBA2,
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

pytestmark = NEEDS_TRITON

LENGTHS = (1, 2, 70, 1, 30, 3, 16, 150, 5)


@pytest.fixture(params=MAMBA2.values(), ids=MAMBA2.keys())
def backbone(request: pytest.FixtureRequest) -> Mamba:
    return lively(request.param).to(DEVICE)


@pytest.fixture(params=[False, True], ids=["few segments", "many segments"])
def segments(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """With many, short sequences fall into one segment and long ones are cut within; all is read as many tokens are."""
    if request.param:
        monkeypatch.setattr("encoder.kernels.fused.launches.FEW_TOKENS", 0)
        monkeypatch.setattr(cuts, "SEGMENT_TOKENS_MIN", 24)
        monkeypatch.setattr(cuts, "STATES_TOKENS", 0)


@pytest.mark.usefixtures("segments")
@torch.inference_mode()
@pytest.mark.parametrize("ends_only", [False, True])
def test_packed(backbone: Mamba, ends_only: bool) -> None:
    same_packed(backbone, LENGTHS, ends_only=ends_only)


@pytest.mark.usefixtures("segments")
@torch.inference_mode()
@pytest.mark.parametrize("cuts_at", [(), (1,), (2, 3, 90), (100, 163, 165)])
def test_in_pieces(backbone: Mamba, cuts_at: tuple[int, ...]) -> None:
    """Whatever the pieces, states and hidden states are those of one reading in plain torch."""
    same_in_pieces(backbone, [0, 63, 64, 120, 199], cuts_at, length=200)


@pytest.mark.usefixtures("segments")
@torch.inference_mode()
@pytest.mark.parametrize(("read", "length"), [(1, 16), (2, 40), (100, 128), (128, 128), (150, 200)])
def test_filled_up(backbone: Mamba, read: int, length: int) -> None:
    """As a CUDA graph reads a piece that has fewer tokens than it."""
    same_when_filled_up(backbone, read=read, length=length, first=30)


@torch.inference_mode()
@pytest.mark.parametrize("lengths", [(1, 30, 64, 7), (64,), (60, 64, 50, 61, 20), (3,) * 9, (5, 200), (256,)])
def test_laid_out_in_a_budget(backbone: Mamba, lengths: tuple[int, ...]) -> None:
    """As a CUDA graph reads it: with other texts behind, and segments that may have no tokens."""
    budget, total = Budget(256, 12, 4, 256), sum(lengths)
    assert budget.takes(total, len(lengths), max(lengths))
    tokens = some_tokens(total)
    given = np.empty(budget.size, dtype=np.int32)
    budget.lay_out(given, tokens[0].int().cpu().numpy(), np.array(lengths))
    ids, marks, places, bounds, order = budget.parts(torch.from_numpy(given).to(DEVICE))
    packing = cuts.FusedPacking(256, marks, places, bounds, None, order, 4, budget.segment_tokens_max)
    twin = fused(backbone)
    found = twin.read(ids, packing, nothing(backbone), places)[: len(lengths)]
    close(found, backbone.hidden_packed(tokens, lengths, torch.float32, ends_only=True))


@torch.inference_mode()
def test_all_hidden_states_read_on_from_states_of_plain_torch(backbone: Mamba) -> None:
    tokens, states = some_tokens(90), nothing(backbone)
    backbone.hidden_on(tokens[:, :50], states, torch.float32, None)
    found = fused(backbone).hidden_on(tokens[:, 50:], list(states), torch.float32, None)
    close(found, backbone.hidden_on(tokens[:, 50:], states, torch.float32, None))


@torch.inference_mode()
def test_what_a_pass_gives_outlasts_the_next(backbone: Mamba) -> None:
    """Hidden states, at places or all, and states are none of the memory that passes share."""
    twin = fused(backbone)
    for places in (None, torch.tensor([3, 59], device=DEVICE)):
        states = nothing(backbone)
        hidden = twin.hidden_on(some_tokens(60), states, torch.float32, places)
        given = [hidden, *(part for state in states if state is not None for part in state)]
        before = [tensor.clone() for tensor in given]
        twin.hidden_on(some_tokens(61), nothing(backbone), torch.float32, None)
        assert all(torch.equal(tensor, copy) for tensor, copy in zip(given, before, strict=True))


@torch.inference_mode()
def test_half_precision(backbone: Mamba) -> None:
    dtype = torch.bfloat16 if DEVICE == "cuda" else torch.float16
    tokens = some_tokens(sum(LENGTHS))
    expected = backbone.hidden_packed(tokens, LENGTHS, torch.float32, ends_only=True)
    found = fused(backbone, dtype).hidden_packed(tokens, LENGTHS, dtype, ends_only=True)
    assert torch.nn.functional.cosine_similarity(found, expected).min() >= 0.9995
