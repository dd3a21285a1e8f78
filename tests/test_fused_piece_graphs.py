"""Pieces of documents as graphs, against plain torch: on a GPU, or with Triton's interpreter and no CUDA graphs."""

from collections.abc import Callable
from typing import Any

import pytest
import torch

from encoder.mamba import Mamba
from tests.fused_twins import DEVICE, MAMBA1, MAMBA2, NEEDS_TRITON, close, close_states, fused, nothing, some_tokens
from tests.random_weights import lively

pytestmark = NEEDS_TRITON

from encoder.kernels.fused.capturing import Capture  # noqa: E402
from encoder.kernels.fused.piece_graphs import PieceGraphs  # noqa: E402 - it needs Triton

CONFIGS = {"mamba2": MAMBA2["two groups"], "mamba1": MAMBA1["one block"]}


class _Again:
    """A graph that a CPU replays by doing all once more."""

    def __init__(self, work: Callable[[], torch.Tensor]) -> None:
        self._work = work
        self.found = work().clone()

    def replay(self) -> None:
        self.found.copy_(self._work())


def _capture() -> Any:
    if DEVICE == "cuda":
        return Capture(torch.device(DEVICE))

    def capture(work: Callable[[], torch.Tensor]) -> tuple[_Again, torch.Tensor]:
        graph = _Again(work)
        return graph, graph.found

    return capture


@pytest.fixture(params=CONFIGS.values(), ids=CONFIGS.keys())
def backbone(request: pytest.FixtureRequest) -> Mamba:
    return lively(request.param).to(DEVICE)


@torch.inference_mode()
def test_documents_in_turn(backbone: Mamba) -> None:
    """Pieces of two, of all sizes, and too many places: what each gives is not the other's."""
    twin = fused(backbone)
    twin.pieces = graphs = PieceGraphs(twin, 64, _capture())
    lengths = [20, 1, 64, 40, 5, 30]
    documents = [some_tokens(sum(lengths)), some_tokens(sum(lengths) + 1)[:, 1:]]
    found, expected = [nothing(backbone), nothing(backbone)], [nothing(backbone), nothing(backbone)]
    start = 0
    for length in lengths:
        for document, states, own in zip(documents, found, expected, strict=True):
            piece = document[:, start : start + length]
            places = torch.tensor([0, length // 2, length - 1] if length != 40 else list(range(40)), device=DEVICE)
            assert graphs.takes(length, len(places)) == (length != 40)
            hidden = twin.hidden_on(piece, states, torch.float32, places)
            close(hidden, backbone.hidden_on(piece, own, torch.float32, places))
        start += length
    for states, own in zip(found, expected, strict=True):
        close_states(states, own)


@torch.inference_mode()
def test_what_was_read_before_leaves_nothing(backbone: Mamba) -> None:
    """Not even of a document that has no finite embedding."""
    twin = fused(backbone)
    bad = 49
    twin.embedding.weight[bad] = float("nan")
    graphs = PieceGraphs(twin, 32, _capture())
    place = torch.tensor([9], device=DEVICE)
    tokens = some_tokens(10)[0] % bad
    states = nothing(backbone)
    before = graphs.read(tokens, states, place)
    assert not graphs.read(torch.full((32,), bad, device=DEVICE), nothing(backbone), place).isfinite().any()
    again = nothing(backbone)
    torch.testing.assert_close(graphs.read(tokens, again, place), before, rtol=0, atol=0)
    for state, other in zip(states, again, strict=True):
        assert state is not None
        assert other is not None
        assert torch.equal(state.ssm, other.ssm)
        assert torch.equal(state.conv, other.conv)


@torch.inference_mode()
def test_which_pieces_have_a_graph(backbone: Mamba) -> None:
    """None is filled up with much that takes longer to read than kernels to launch."""
    graphs = PieceGraphs(fused(backbone), 16, _capture())
    assert graphs.takes(1, 4)
    assert graphs.takes(16, 1)
    assert not graphs.takes(16, 5)
    assert not graphs.takes(17, 1)
    with pytest.raises(ValueError, match="17 tokens and 1 places"):
        graphs.read(some_tokens(17)[0], nothing(backbone), torch.tensor([0], device=DEVICE))
