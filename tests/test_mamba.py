"""The backbone: against transformers, in pieces, packed, on its fast path, and deaf to what comes after."""

from pathlib import Path

import pytest
import torch
import transformers
from hypothesis import given, settings
from hypothesis import strategies as st

from encoder.kernels.choosing import prepare
from encoder.mamba import Mamba
from encoder.mixers import LayerState
from encoder.model import EncoderModel
from encoder.model_config import ModelConfig, load_model_config
from encoder.packing import Packing
from tests.random_weights import model_of
from tests.scans import SEEDS, marks, relative_error, sequences
from tests.tiny_model import tiny_config

KINDS = {
    "mamba1": {"architecture": "mamba1"},
    "mamba2": {},
    "mamba2, groups": {"n_groups": 4},
    "mamba1, time-invariant": {"architecture": "mamba1", "selective": False},
    "mamba2, time-invariant": {"selective": False},
}


def random_backbone(config: ModelConfig, seed: int = 0) -> Mamba:
    """A backbone with nothing at its initial, symmetric value."""
    torch.manual_seed(seed)
    backbone = Mamba(config).eval().requires_grad_(requires_grad=False)
    for name, parameter in backbone.named_parameters():
        if name.endswith(("norm.weight", "norm_f.weight", ".D", "conv1d.bias")):
            parameter.copy_(1 + 0.3 * torch.randn_like(parameter))
    return backbone


def upstream_twin(backbone: Mamba) -> torch.nn.Module:
    """The same architecture in transformers, with the same weights."""
    config = backbone.config
    common = {
        "vocab_size": config.vocabulary_size,
        "hidden_size": config.d_model,
        "num_hidden_layers": config.n_layers,
        "state_size": config.d_state,
        "expand": config.expand,
        "conv_kernel": config.d_conv,
        "layer_norm_epsilon": config.norm_eps,
    }
    twin: torch.nn.Module
    if config.architecture == "mamba1":
        twin = transformers.MambaModel(transformers.MambaConfig(**common, time_step_rank=config.time_step_rank))
    else:
        heads = {"head_dim": config.head_dim, "num_heads": config.n_heads, "n_groups": 1, "chunk_size": 64}
        twin = transformers.Mamba2Model(transformers.Mamba2Config(**common, **heads))
    weights = {name.replace("embedding.", "embeddings.", 1): value for name, value in backbone.state_dict().items()}
    twin.load_state_dict(weights)
    return twin.eval()


@pytest.mark.parametrize("fast", [False, True])
@pytest.mark.parametrize("architecture", ["mamba1", "mamba2"])
@pytest.mark.parametrize("length", [1, 7, 64, 65, 200, 1111])
def test_hidden_states_equal_upstream(architecture: str, length: int, fast: bool) -> None:
    backbone = random_backbone(tiny_config(architecture=architecture, n_layers=3), seed=length)
    tokens = torch.randint(0, backbone.config.vocabulary_size, (2, length))
    with torch.inference_mode():
        expected = upstream_twin(backbone)(tokens, use_cache=False).last_hidden_state
        if fast:
            prepare(model_of(backbone), torch.float32)
        found, _ = backbone(tokens, torch.float32)
    assert relative_error(found, expected) <= 1e-4


@settings(deadline=None, max_examples=15)
@given(
    cuts=st.lists(st.integers(1, 499), max_size=6, unique=True), kind=st.sampled_from(sorted(KINDS)), fast=st.booleans()
)
def test_pieces_equal_the_whole(cuts: list[int], kind: str, fast: bool) -> None:
    backbone = random_backbone(tiny_config(n_layers=2, **KINDS[kind]))
    tokens = torch.randint(0, 100, (2, 500))
    with torch.inference_mode():
        whole, _ = backbone(tokens, torch.float32)
        if fast:
            prepare(model_of(backbone), torch.float32)
        states: list[LayerState | None] | None = None
        parts = []
        for start, end in zip([0, *sorted(cuts)], [*sorted(cuts), 500], strict=True):
            part, states = backbone(tokens[:, start:end], torch.float32, states)
            parts.append(part)
    assert relative_error(torch.cat(parts, dim=1), whole) <= 1e-4


@settings(deadline=None, max_examples=25)
@given(
    length=st.integers(1, 700), seed=SEEDS, kind=st.sampled_from([*sorted(KINDS), "bidirectional"]), fast=st.booleans()
)
def test_packed_sequences_do_not_see_one_another(length: int, seed: int, kind: str, fast: bool) -> None:
    changes = {"bidirectional": True} if kind == "bidirectional" else KINDS[kind]
    backbone = random_backbone(tiny_config(n_layers=2, **changes), seed)
    lengths = sequences(length, seed)
    tokens = torch.randint(0, 100, (1, length))
    with torch.inference_mode():
        alone = torch.cat([backbone(part, torch.float32)[0] for part in tokens.split(lengths, dim=1)], dim=1)
        if fast:
            prepare(model_of(backbone), torch.float32)
        packed, _ = backbone(tokens, torch.float32, packing=Packing.of(lengths, 4))
    assert relative_error(packed, alone) <= 1e-4


@pytest.mark.parametrize("kind", sorted(KINDS))
def test_a_sequence_that_shares_a_row_is_as_if_alone_and_so_is_its_gradient(kind: str) -> None:
    rows = [[1, 2, 1, 65, 1, 60], [129, 1]]
    backbone = random_backbone(tiny_config(**KINDS[kind], n_layers=2)).requires_grad_()
    tokens = torch.randint(0, 100, (2, 130))
    weights = torch.randn(2, 130, backbone.config.d_model)
    packing = Packing.of_sequences(torch.cat([marks(row, 1) for row in rows]))

    def gradients(hidden: torch.Tensor, weights: torch.Tensor) -> tuple[torch.Tensor, ...]:
        return torch.autograd.grad((hidden * weights).sum(), list(backbone.parameters()), materialize_grads=True)

    together, _ = backbone(tokens, torch.float32, packing=packing)
    found = gradients(together, weights)
    expected = [torch.zeros_like(gradient) for gradient in found]
    for row, lengths in enumerate(rows):
        parts = zip(tokens[row].split(lengths), together[row].split(lengths), weights[row].split(lengths), strict=True)
        for part, packed, weight in parts:
            alone, _ = backbone(part[None], torch.float32)
            assert relative_error(packed.detach(), alone[0].detach()) <= 1e-4
            for total, gradient in zip(expected, gradients(alone, weight), strict=True):
                total += gradient
    for total, gradient in zip(expected, found, strict=True):
        assert relative_error(gradient, total) <= 1e-4


def test_the_fast_path_survives_decays_too_strong_for_it() -> None:
    backbone = random_backbone(tiny_config(n_layers=2))
    for block in backbone.layers:
        block.mixer.A_log[0] = 9.0  # forgets all within a token
    tokens = torch.randint(0, 100, (1, 300))
    with torch.inference_mode():
        expected, _ = backbone(tokens, torch.float32)
        assert prepare(model_of(backbone), torch.float32).name == "factored scan"
        found, _ = backbone(tokens, torch.float32)
    assert relative_error(found, expected) <= 1e-4


def test_a_time_invariant_layer_projects_only_gate_and_input() -> None:
    backbone = random_backbone(tiny_config(selective=False))
    assert {"B", "C"} <= {name for name, _ in backbone.layers[0].mixer.named_parameters()}
    assert backbone.layers[0].mixer.in_proj.out_features == 2 * backbone.config.d_inner


def test_a_bidirectional_model_sees_what_comes_after_and_reads_no_pieces() -> None:
    backbone = random_backbone(tiny_config(bidirectional=True))
    tokens = torch.randint(0, 100, (1, 20))
    other = tokens.clone()
    other[:, -1] += 1
    with torch.inference_mode():
        first, states = backbone(tokens, torch.float32)
        second, _ = backbone(other % 100, torch.float32)
        assert not torch.allclose(first[:, 0], second[:, 0])
        with pytest.raises(ValueError, match="cannot read on"):
            backbone(tokens, torch.float32, states)


def test_text_after_the_end_is_not_read() -> None:
    torch.manual_seed(0)
    model = EncoderModel(tiny_config()).eval()
    tokens = torch.randint(0, 100, (1, 80))
    ends = torch.tensor([40])
    other = tokens.clone()
    other[:, 41:] = torch.randint(0, 100, (1, 39))
    with torch.inference_mode():
        assert torch.equal(model(tokens, ends, torch.float32), model(other, ends, torch.float32))


@pytest.mark.parametrize("pooling", ["eos", "mean", "last"])
def test_rows_and_packed_sequences_pool_alike(pooling: str) -> None:
    torch.manual_seed(0)
    model = EncoderModel(tiny_config(pooling=pooling, projection_bias=True)).eval()
    rows = [torch.randint(0, 100, (length,)) for length in (5, 1, 30)]
    padded = torch.nn.utils.rnn.pad_sequence(rows, batch_first=True)
    ends = torch.tensor([len(row) - 1 for row in rows])
    with torch.inference_mode():
        found = model.embed_packed(torch.cat(rows)[None], [len(row) for row in rows], torch.float32)
        torch.testing.assert_close(found, model(padded, ends, torch.float32), rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(found.norm(dim=-1), torch.ones(3))
        hidden = model.backbone(rows[2][None], torch.float32)[0][0]
        pooled = hidden.mean(0) if pooling == "mean" else hidden[-1]
        torch.testing.assert_close(found[2], model.finish(pooled[None])[0], rtol=1e-4, atol=1e-5)


def test_default_model_has_the_size_it_states() -> None:
    folder = Path(__file__).parents[1] / "encoder" / "models" / "default"
    with torch.device("meta"):
        model = EncoderModel(load_model_config(folder))
    assert sum(parameter.numel() for parameter in model.parameters()) == 26_974_912
