"""On an NVIDIA GPU: the fused kernels against plain torch in float32, at the sizes that models have."""

import numpy as np
import pytest
import torch

from encoder.kernels import fused
from encoder.kernels.choosing import prepare
from encoder.mixers import LayerState
from encoder.model_config import ModelConfig
from encoder.sizes import SIZES
from tests.random_weights import lively, model_of

if not torch.cuda.is_available():
    pytest.skip("no CUDA device", allow_module_level=True)
DTYPE = torch.bfloat16
COSINE_MIN = 0.9995
CONFIGS = {
    "mamba2-130m, 4 layers": SIZES["mamba2-130m"].model_copy(update={"n_layers": 4, "vocabulary_size": 1000}),
    "mamba-130m, 4 layers": SIZES["mamba-130m"].model_copy(update={"n_layers": 4, "vocabulary_size": 1000}),
    "codestral-7b, 2 layers": SIZES["codestral-7b"].model_copy(update={"n_layers": 2, "vocabulary_size": 1000}),
    "small": ModelConfig(
        name="small",
        architecture="mamba2",
        vocabulary_size=1000,
        d_model=384,
        n_layers=3,
        d_state=64,
        head_dim=64,
        pooling="last",
    ),
    "small mamba1": ModelConfig(
        name="small mamba1",
        architecture="mamba1",
        vocabulary_size=1000,
        d_model=384,
        n_layers=3,
        d_state=16,
        pooling="last",
    ),
}
triton = pytest.importorskip("triton")
if reason := fused.missing(CONFIGS["small"], torch.device("cuda"), DTYPE):
    pytest.skip(reason, allow_module_level=True)
from encoder.kernels.fused import (  # noqa: E402 - they need Triton
    carrying,
    convolution,
    hopper_scan,
    hopper_states,
    residual,
    scan,
    selective_scan,
)
from encoder.kernels.fused.backbone import FusedMamba  # noqa: E402 - it needs Triton


@pytest.fixture(params=CONFIGS.values(), ids=CONFIGS.keys())
def config(request: pytest.FixtureRequest) -> ModelConfig:
    return request.param


def some_tokens(length: int) -> torch.Tensor:
    return torch.randint(0, 1000, (1, length), generator=torch.Generator().manual_seed(length)).cuda()


def least_cosine(found: torch.Tensor, expected: torch.Tensor) -> float:
    return float(torch.nn.functional.cosine_similarity(found.float(), expected.float()).min())


@torch.inference_mode()
def test_packed_texts_and_graphs(config: ModelConfig) -> None:
    lengths = [1, 16, 70, 300, 5, 900, 128, 40, 2000]
    tokens = some_tokens(sum(lengths))
    expected = model_of(lively(config).cuda()).embed_packed(tokens, lengths, torch.float32)
    model = model_of(lively(config).cuda())
    path = prepare(model, DTYPE, kernels="fused")
    found = model.embed_packed(tokens, lengths, DTYPE)
    assert least_cosine(found, expected) >= COSINE_MIN
    assert path.one_call is not None
    rows = [row.cpu() for row in tokens[0].split(lengths)]
    for places in (
        [0],
        [1],
        [1, 2],
        [4, 0, 1],
        [3, 6],
        [2, 3, 6, 7],
        [0, 1, 2, 4, 7] * 12,
        [6] * 500,
        [5],
        [8],
        [8, 5, 8],
    ):
        chosen = [rows[place] for place in places]
        sizes = [len(row) for row in chosen]
        if path.one_call.takes(sizes):
            found = path.one_call.embed(chosen)
        else:
            # Of wide models there are graphs for short texts only, of Mamba-1 none that reads a long text whole.
            alone = len(chosen) == 1 and sizes[0] > 512
            assert alone or config.d_model > 1024 or (config.architecture == "mamba1" and max(sizes) > 512)
            found = model.embed_packed(torch.cat(chosen).cuda()[None], sizes, DTYPE)
        assert least_cosine(found, expected[places]) >= COSINE_MIN
    assert not path.one_call.takes([900, 65_536])


@torch.inference_mode()
@pytest.mark.parametrize("size", ["small", "small mamba1"])
def test_a_million_tokens_in_pieces(size: str) -> None:
    """Of one document; the reference reads smaller pieces, each in float32."""
    config = CONFIGS[size]
    reference, model = model_of(lively(config).cuda()), model_of(lively(config).cuda())
    path = prepare(model, DTYPE, kernels="fused")
    tokens = some_tokens(2**20)
    embeddings = []
    for each, dtype, piece in ((reference, torch.float32, 8192), (model, DTYPE, path.piece_tokens)):
        states: list[LayerState | None] = [None] * config.n_layers
        last = torch.tensor([piece - 1], device="cuda")
        for start in range(0, 2**20, piece):
            hidden = each.backbone.hidden_on(tokens[:, start : start + piece], states, dtype, last)
        embeddings.append(each.finish(hidden))
    assert least_cosine(*embeddings) >= COSINE_MIN


@torch.inference_mode()
@pytest.mark.parametrize("size", ["small", "small mamba1"])
def test_pieces_as_graphs(size: str) -> None:
    """Of pieces of any length, hidden states and states are those of reading kernel by kernel."""
    config = CONFIGS[size]
    model = model_of(lively(config).cuda())
    prepare(model, DTYPE, kernels="fused")
    backbone, lengths, found = model.backbone, [5, 1, 300, 1000, 1500, 20_000, 16, 30_000], []
    assert isinstance(backbone, FusedMamba)
    assert backbone.pieces is not None
    assert all(backbone.pieces.takes(length, 3) for length in lengths)
    for pieces in (backbone.pieces, None):
        backbone.pieces = pieces
        states: list[LayerState | None] = [None] * config.n_layers
        for piece in some_tokens(sum(lengths)).split(lengths, dim=1):
            length = piece.shape[1]
            places = torch.tensor([0, length // 2, length - 1], device="cuda")
            found.append(backbone.hidden_on(piece, states, DTYPE, places))
        found += [part.flatten(2)[0] for state in states if state for part in state]
    half = len(found) // 2
    for ours, theirs in zip(found[:half], found[half:], strict=True):
        assert least_cosine(ours, theirs) >= 0.9999


@torch.inference_mode()
def test_a_pack_as_large_as_a_call_may_be(config: ModelConfig) -> None:
    """Its first and last texts are read as they are alone: no index overflows."""
    model = model_of(lively(config).cuda())
    prepare(model, DTYPE, kernels="fused")
    lengths = [512] * (fused.tokens_per_call_max(config) // 512)
    tokens = some_tokens(sum(lengths))
    found = model.embed_packed(tokens, lengths, DTYPE)
    alone = [model.embed_packed(part, [512], DTYPE) for part in (tokens[:, :512], tokens[:, -512:])]
    assert least_cosine(found[[0, -1]], torch.cat(alone)) >= 0.9999
    assert np.isfinite(found.float().cpu().numpy()).all()


@torch.inference_mode()
@pytest.mark.parametrize("d_state", [64, 128])
@pytest.mark.parametrize("groups", [1, 3])
def test_kernels_in_gluon_and_in_triton_agree(d_state: int, groups: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Packed, and in pieces that are cut within: states after them, too."""
    if not hopper_scan.covers(64, 64, d_state, 2, torch.device("cuda")):
        pytest.skip("they are for Hopper")
    config = CONFIGS["small"].model_copy(update={"d_state": d_state, "n_groups": groups})
    lengths, tokens = [700, 1, 63, 64, 65, 300], some_tokens(30_000)
    found = []
    for covered in (True, False):
        if not covered:
            monkeypatch.setattr(hopper_scan, "covers", lambda *_: False)
        model = model_of(lively(config).cuda())
        model.backbone = FusedMamba(model.backbone, DTYPE)
        states: list[LayerState | None] = [None] * config.n_layers
        places = torch.tensor([14_999], device="cuda")
        pieces = [model.backbone.hidden_on(part, states, DTYPE, places) for part in tokens.split(15_000, dim=1)]
        packed = model.embed_packed(tokens[:, : sum(lengths)], lengths, DTYPE)
        found.append([packed, *pieces, *(state.ssm.flatten(2)[0] for state in states if state)])
    for ours, theirs in zip(*found, strict=True):
        assert least_cosine(ours, theirs) >= 0.9999


@torch.inference_mode()
def test_products_in_8_bits_stay_near() -> None:
    config = CONFIGS["small"]
    lengths = [300, 20, 700]
    tokens = some_tokens(sum(lengths))
    expected = model_of(lively(config).cuda()).embed_packed(tokens, lengths, torch.float32)
    model = model_of(lively(config).cuda())
    prepare(model, DTYPE, kernels="fused", eight_bits=True)
    assert 0.98 <= least_cosine(model.embed_packed(tokens, lengths, DTYPE), expected) < 1


@torch.inference_mode()
@pytest.mark.parametrize("pooling", ["last", "mean"])
@pytest.mark.parametrize("size", ["small", "small mamba1"])
def test_nothing_is_compiled_once_a_model_is_prepared(size: str, pooling: str) -> None:
    config = CONFIGS[size].model_copy(update={"pooling": pooling})
    model = model_of(lively(config).cuda())
    path = prepare(model, DTYPE, kernels="fused")
    compiled = kernels_compiled()
    for lengths in ([1], [3], [17], [33, 2], [64] * 9, [100, 3000, 1], [20_001], [1] * 700, [512] * 256):
        model.embed_packed(some_tokens(sum(lengths)), lengths, DTYPE)
    states: list[LayerState | None] = [None] * config.n_layers
    for length in (5, 1, 40, 300, path.piece_tokens):
        places = None if pooling == "mean" else torch.tensor([0], device="cuda")
        model.backbone.hidden_on(some_tokens(length), states, DTYPE, places)
    assert kernels_compiled() == compiled


def kernels_compiled() -> int:
    """How many variants of our kernels Triton holds."""
    found = 0
    for module in (carrying, convolution, hopper_scan, hopper_states, residual, scan, selective_scan):
        for kernel in vars(module).values():
            if isinstance(kernel, triton.runtime.JITFunction):
                found += sum(len(caches[0]) for caches in kernel.device_caches.values())
    assert found
    return found
