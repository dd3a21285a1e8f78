"""On an NVIDIA GPU: hidden states against mamba_ssm's own modules, and our path over its kernels against itself."""

from itertools import pairwise
from typing import Any

import pytest
import torch

from encoder.kernels import upstream
from encoder.kernels.choosing import prepare
from encoder.mamba import Mamba
from encoder.mixers import LayerState
from encoder.model_config import ModelConfig
from encoder.packing import Packing
from tests.random_weights import lively, model_of
from tests.scans import relative_error

# In bfloat16 of the sizes that models have. In float32 smaller: without tensor cores these kernels compile for long.
_SIZES = {
    torch.float32: {"d_model": 128, "d_state": 32, "head_dim": 32},
    torch.bfloat16: {"d_model": 256, "d_state": 128, "head_dim": 64},
}
TOLERANCES = {torch.float32: 1e-3, torch.bfloat16: 2e-2}
LENGTHS = (1, 2, 3, 17, 300, 256, 1, 700)


def model_config(layers: str, dtype: torch.dtype) -> ModelConfig:
    sizes: dict[str, Any] = {"name": layers, "vocabulary_size": 512, "n_layers": 2, "pooling": "last"} | _SIZES[dtype]
    if layers == "mamba1":
        return ModelConfig(**sizes | {"architecture": "mamba1", "d_state": 16, "head_dim": None})
    return ModelConfig(**sizes, architecture="mamba2", n_groups=8 if layers == "mamba2 in 8 groups" else 1)


if reason := upstream.missing(model_config("mamba2", torch.float32)):
    pytest.skip(reason, allow_module_level=True)

each_architecture = pytest.mark.parametrize("layers", ["mamba1", "mamba2", "mamba2 in 8 groups"])
each_dtype = pytest.mark.parametrize("dtype", TOLERANCES, ids=str)


def rounded(config: ModelConfig, dtype: torch.dtype) -> Mamba:
    """A backbone on the GPU, its weights exact in ``dtype``, so that whoever stores them in it loses nothing."""
    backbone = lively(config).cuda()
    for weight in backbone.parameters():
        weight.data = weight.data.to(dtype).float()
    return backbone


def prepared(config: ModelConfig, dtype: torch.dtype) -> Mamba:
    backbone = rounded(config, dtype)
    assert prepare(model_of(backbone), dtype, kernels="mamba_ssm").name == "mamba_ssm"
    return backbone


def upstream_twin(backbone: Mamba, dtype: torch.dtype) -> torch.nn.Module:
    """The same architecture and weights in mamba_ssm's own modules."""
    from mamba_ssm.models.mixer_seq_simple import MixerModel

    config = backbone.config
    layer: dict[str, Any] = {"layer": "Mamba1", "d_state": config.d_state, "d_conv": config.d_conv}
    if config.architecture == "mamba2":
        layer |= {"layer": "Mamba2", "headdim": config.head_dim, "ngroups": config.n_groups}
    twin = MixerModel(
        config.d_model,
        config.n_layers,
        0,
        config.vocabulary_size,
        ssm_cfg=layer,
        norm_epsilon=config.norm_eps,
        rms_norm=True,
        fused_add_norm=True,
        residual_in_fp32=True,
    )
    twin.load_state_dict(backbone.state_dict())
    return twin.to("cuda", dtype).eval()


@pytest.fixture
def tokens() -> torch.Tensor:
    torch.manual_seed(1)
    return torch.randint(0, 512, (1, sum(LENGTHS)), device="cuda")


@each_architecture
@each_dtype
@torch.inference_mode()
def test_hidden_states_are_mamba_ssms(
    layers: str, dtype: torch.dtype, tokens: torch.Tensor, record_property: Any
) -> None:
    rows = tokens.view(2, -1)
    config = model_config(layers, dtype)
    backbone = rounded(config, dtype)
    expected = upstream_twin(backbone, dtype)(rows)
    plain = relative_error(backbone(rows, dtype)[0], expected)
    kernels = relative_error(prepared(config, dtype)(rows, dtype)[0], expected)
    record_property("plain torch", f"{plain:.1e}")
    record_property("kernels", f"{kernels:.1e}")
    assert plain <= TOLERANCES[dtype]
    assert kernels <= TOLERANCES[dtype]


@each_architecture
@each_dtype
@torch.inference_mode()
def test_packed_equals_alone(layers: str, dtype: torch.dtype, tokens: torch.Tensor, record_property: Any) -> None:
    config = model_config(layers, dtype)
    backbone = prepared(config, dtype)
    alone = torch.cat([backbone(part, dtype)[0] for part in tokens.split(LENGTHS, dim=1)], dim=1)
    packed, _ = backbone(tokens, dtype, packing=Packing.of(LENGTHS, config.d_conv, "cuda"))
    error = relative_error(packed, alone)
    record_property("packed", f"{error:.1e}")
    assert error <= TOLERANCES[dtype]


@each_architecture
@each_dtype
@torch.inference_mode()
def test_pieces_equal_the_whole(layers: str, dtype: torch.dtype, tokens: torch.Tensor, record_property: Any) -> None:
    rows = tokens.view(2, -1)
    backbone = prepared(model_config(layers, dtype), dtype)
    whole, expected_states = backbone(rows, dtype)
    states: list[LayerState | None] | None = None
    parts = []
    for start, end in pairwise((0, 1, 3, 260, 600, rows.shape[1])):
        part, states = backbone(rows[:, start:end], dtype, states)
        parts.append(part)
    errors = [relative_error(torch.cat(parts, dim=1), whole)]
    assert states is not None
    for state, expected in zip(states, expected_states, strict=True):
        assert state is not None
        assert expected is not None
        errors += [relative_error(state.conv, expected.conv), relative_error(state.ssm, expected.ssm)]
    record_property("pieces", f"{max(errors):.1e}")
    assert max(errors) <= TOLERANCES[dtype]


@pytest.mark.parametrize(
    "switch", [{"selective": False}, {"bidirectional": True}], ids=lambda switch: next(iter(switch))
)
@each_architecture
@torch.inference_mode()
def test_switches_for_research_equal_plain_torch(
    layers: str, switch: dict[str, bool], tokens: torch.Tensor, record_property: Any
) -> None:
    config = model_config(layers, torch.float32).model_copy(update=switch)
    packing = Packing.of(LENGTHS, config.d_conv, "cuda")
    expected, _ = rounded(config, torch.float32)(tokens, torch.float32, packing=packing)
    found, _ = prepared(config, torch.float32)(tokens, torch.float32, packing=packing)
    error = relative_error(found, expected)
    record_property("kernels", f"{error:.1e}")
    assert error <= TOLERANCES[torch.float32]
