"""The Transformer that experiments compare with: what it computes, how it is packed, trained, stored and refused."""

import math
from pathlib import Path

import pydantic
import pytest
import torch

from encoder.checkpoint import build_empty, load_model, save_model
from encoder.errors import InvalidInput
from encoder.kernels.choosing import prepare
from encoder.model import EncoderModel
from encoder.model_config import ModelConfig
from encoder.packing import Packing, rows_of_like_length
from encoder.text_encoder import TextEncoder
from encoder.training.loop import train
from encoder.transformer import Attention
from tests.random_weights import lively, model_of
from tests.tiny_model import save_tiny_model, tiny_config
from tests.tiny_teacher import save_tiny_teacher
from tests.training_data import distill_task, pairs_task, train_config, write_sources

TRANSFORMER = {"architecture": "transformer", "bidirectional": True, "d_state": 0, "head_dim": 8, "expand": 3}


def config(**changes: object) -> ModelConfig:
    return tiny_config(n_layers=2, **(TRANSFORMER | changes))


def model(**changes: object) -> EncoderModel:
    found = EncoderModel(config(**changes)).eval().requires_grad_(requires_grad=False)
    found.backbone = lively(found.config).requires_grad_(requires_grad=False)
    return found


def test_attention_is_softmax_over_rotated_queries_and_keys() -> None:
    torch.manual_seed(0)
    attention = Attention(config())
    u, heads, width = torch.randn(2, 11, 32), 4, 8
    q, k, v = attention.in_proj(u).view(2, 11, 3, heads, width).unbind(2)
    turns = torch.arange(11)[:, None] * 10_000.0 ** -(torch.arange(0, width, 2) / width)  # (l, p / 2)
    turned = [torch.complex(*x.chunk(2, dim=-1)) * torch.exp(1j * turns)[:, None] for x in (q, k)]
    scores = torch.einsum("bihp,bjhp->bhij", turned[0], turned[1].conj()).real / math.sqrt(width)
    expected = attention.out_proj(torch.einsum("bhij,bjhp->bihp", scores.softmax(-1), v).flatten(2))
    torch.testing.assert_close(attention(u), expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("pooling", ["eos", "mean"])
def test_a_text_embeds_alike_alone_in_a_padded_row_and_in_a_pack(pooling: str) -> None:
    encoder = model(pooling=pooling)
    lengths = [6, 20, 12, 20, 1]
    tokens, ends = torch.randint(0, 100, (5, 20)), torch.tensor(lengths) - 1
    texts = [row[None, :length] for row, length in zip(tokens, lengths, strict=True)]
    alone = torch.cat([encoder.embed_packed(text, [text.shape[1]], torch.float32) for text in texts])
    torch.testing.assert_close(encoder(tokens, ends, torch.float32), alone, rtol=0, atol=1e-5)
    packed = encoder.embed_packed(torch.cat(texts, dim=1), lengths, torch.float32)
    torch.testing.assert_close(packed, alone, rtol=0, atol=1e-5)


def test_packed_sequences_do_not_see_one_another() -> None:
    backbone = lively(config())
    tokens, lengths = torch.randint(0, 100, (1, 30)), [7, 1, 22]
    with torch.inference_mode():
        packed, _ = backbone(tokens, torch.float32, packing=Packing.of(lengths, 4))
        # Positions count from the row's start: attention knows differences of positions only.
        alone = torch.cat([backbone(part, torch.float32)[0] for part in tokens.split(lengths, dim=1)], dim=1)
        torch.testing.assert_close(packed, alone, rtol=0, atol=1e-4)
        assert prepare(model_of(backbone), torch.float32).name == "attention"


def test_rows_of_a_group_are_at_most_an_eighth_padding() -> None:
    lengths = [3, 270, 1, 256, 255, 16, 200, 17, 16]
    groups = list(rows_of_like_length(lengths))
    assert sorted(number for group in groups for number in group) == list(range(len(lengths)))
    for group in groups:
        found = [lengths[number] for number in group]
        assert sum(found) >= 7 / 8 * max(found) * len(found)
    assert groups == [[1, 3, 4, 6], [7, 5, 8], [0], [2]]
    assert list(rows_of_like_length([])) == []


@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor")  # torch's own, while it traces
def test_a_compiled_block_computes_the_same() -> None:
    """Traced without breaks, as on a GPU; machine code would take a minute."""
    tokens, ends = torch.randint(0, 100, (3, 32)), torch.tensor([31, 4, 17])
    encoder = EncoderModel(config(pooling="mean"))
    expected = encoder(tokens, ends, torch.float32)
    for block in encoder.backbone.layers:
        block.compile(dynamic=False, backend="aot_eager", fullgraph=True)
    found = encoder(tokens, ends, torch.float32)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)
    found.sum().backward()
    assert all(parameter.grad is not None for parameter in encoder.backbone.layers.parameters())


def test_it_is_trained_stored_and_loaded_as_any_other(tmp_path: Path) -> None:
    data = write_sources(tmp_path / "data")
    fresh = config(vocabulary_size=30528, projection_dim=32, pooling="mean").model_dump()
    tasks = [pairs_task(), distill_task()]
    settings = train_config(data, save_tiny_teacher(tmp_path / "teacher"), tasks, out=tmp_path / "out")
    table = settings.model.model_copy(update={"fresh": ModelConfig(**fresh)})
    settings = settings.model_copy(update={"model": table})
    assert train(settings)
    encoder = TextEncoder.load(tmp_path / "out", device="cpu")
    texts = ["a text", "another text of more words than the first"]
    together = encoder.encode_passages(texts).embeddings
    apart = [encoder.encode_passages([text]).embeddings[0] for text in texts]
    assert (together * apart).sum(1).min() > 0.999
    with pytest.raises(InvalidInput, match="bidirectional and cannot read a document in pieces"):
        encoder.open_document()


def test_its_matrices_are_stored_in_few_bits(tmp_path: Path) -> None:
    folder = save_tiny_model(tmp_path / "model", **TRANSFORMER)
    original = load_model(folder)
    save_model(folder, original, bits=8)
    for name, weight in load_model(folder, dtype=None).state_dict().items():
        torch.testing.assert_close(weight, original.state_dict()[name], rtol=0, atol=0.01)
    stored = (folder / "model.safetensors").stat().st_size
    matrices = sum(weight.numel() for weight in build_empty(original.config).parameters() if weight.dim() == 2)
    assert stored < 1.3 * matrices


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"bidirectional": False}, "set bidirectional to true"),
        ({"d_state": 16}, "d_state, n_groups and selective belong to Mamba"),
        ({"selective": False}, "d_state, n_groups and selective belong to Mamba"),
        ({"head_dim": None}, "needs an even head_dim that divides d_model = 32"),
        ({"head_dim": 24}, "needs an even head_dim that divides d_model = 32"),
        ({"dt_rank": 2}, "leave it out for transformer"),
        ({"architecture": "mamba2", "d_state": 0}, "architecture mamba2 needs d_state, 1 or more"),
    ],
)
def test_what_does_not_belong_together_is_refused(changes: dict[str, object], message: str) -> None:
    with pytest.raises(pydantic.ValidationError, match=message):
        config(**changes)
