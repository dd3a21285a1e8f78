"""The backbone: against transformers' Mamba-2, in pieces, and deaf to what comes after."""

from pathlib import Path

import pytest
import torch
import transformers

from encoder.mamba import PIECE_TOKENS, Mamba
from encoder.model import EncoderModel
from encoder.model_config import load_model_config
from tests.tiny_model import tiny_config


def upstream_twin(backbone: Mamba) -> transformers.Mamba2Model:
    """The same architecture in transformers, with the same weights."""
    config = backbone.config
    twin = transformers.Mamba2Model(
        transformers.Mamba2Config(
            vocab_size=config.vocabulary_size,
            hidden_size=config.d_model,
            num_hidden_layers=config.n_layers,
            state_size=config.d_state,
            head_dim=config.head_dim,
            num_heads=config.n_heads,
            expand=config.expand,
            n_groups=config.n_groups,
            conv_kernel=config.d_conv,
            layer_norm_epsilon=config.norm_eps,
            chunk_size=64,
        )
    )
    weights = {name.replace("embedding.", "embeddings.", 1): value for name, value in backbone.state_dict().items()}
    twin.load_state_dict(weights)
    return twin.eval()


@pytest.mark.parametrize("length", [1, 7, 64, 65, 200])
def test_hidden_states_equal_upstream(length: int) -> None:
    torch.manual_seed(length)
    backbone = Mamba(tiny_config(n_layers=3)).eval()
    tokens = torch.randint(0, backbone.config.vocabulary_size, (2, length))
    with torch.inference_mode():
        expected = upstream_twin(backbone)(tokens, use_cache=False).last_hidden_state
        found, _ = backbone(tokens, torch.float32)
    assert (found - expected).abs().max() / expected.abs().max() <= 1e-4


def test_pieces_equal_the_whole() -> None:
    torch.manual_seed(0)
    backbone = Mamba(tiny_config(n_layers=2)).eval()
    tokens = torch.randint(0, 100, (1, 333))
    with torch.inference_mode():
        whole, _ = backbone(tokens, torch.float32)
        states, parts = None, []
        for start, end in ((0, 1), (1, 2), (2, 130), (130, 333)):
            part, states = backbone(tokens[:, start:end], torch.float32, states)
            parts.append(part)
    torch.testing.assert_close(torch.cat(parts, dim=1), whole, rtol=1e-4, atol=1e-4)


def test_text_after_the_end_is_not_read() -> None:
    torch.manual_seed(0)
    model = EncoderModel(tiny_config()).eval()
    tokens = torch.randint(0, 100, (1, 80))
    ends = torch.tensor([40])
    other = tokens.clone()
    other[:, 41:] = torch.randint(0, 100, (1, 39))
    with torch.inference_mode():
        assert torch.equal(model(tokens, ends, torch.float32), model(other, ends, torch.float32))


def test_long_rows_are_read_in_pieces() -> None:
    torch.manual_seed(0)
    model = EncoderModel(tiny_config(n_layers=1)).eval()
    length = PIECE_TOKENS + 50
    tokens = torch.randint(0, 100, (2, length))
    ends = torch.tensor([length - 1, 99])
    with torch.inference_mode():
        found = model(tokens, ends, torch.float32)
        hidden, _ = model.backbone(tokens, torch.float32)
        assert model.projection is not None
        expected = torch.stack([hidden[0, -1], hidden[1, 99]]) @ model.projection.weight.T
    torch.testing.assert_close(found, torch.nn.functional.normalize(expected, dim=-1), rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(found.norm(dim=-1), torch.ones(2))


def test_default_model_has_the_size_it_states() -> None:
    folder = Path(__file__).parents[1] / "encoder" / "models" / "default"
    with torch.device("meta"):
        model = EncoderModel(load_model_config(folder))
    assert sum(parameter.numel() for parameter in model.parameters()) == 26_974_912
