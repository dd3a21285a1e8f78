"""Short texts on a CPU: equal to the plain layers, whoever stands beside them; and which packs are read so."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from encoder.checkpoint import load_model
from encoder.kernels.choosing import prepare
from encoder.mamba import Mamba
from encoder.model_config import DEFAULT_MODEL_FOLDER
from encoder.packing import Packing
from encoder.text_encoder import TextEncoder
from encoder.tokenizer import Tokenizer
from tests.benchmarks.load.texts import read_questions
from tests.random_weights import lively, model_of
from tests.scans import relative_error
from tests.tiny_model import tiny_config

QUESTIONS = 200
LENGTHS = [(1,), (2,), (13,), (64,), (9, 9, 9), (3, 2, 1, 1), (64, 40, 33), (20, 13, 13, 12, 7), (1, 1)]


def tiny_backbone(**changes: object) -> Mamba:
    return lively(tiny_config(n_layers=3, **changes)).requires_grad_(requires_grad=False)


def read(backbone: Mamba, tokens: torch.Tensor, packing: Packing) -> torch.Tensor:
    with torch.inference_mode():
        return backbone(tokens, torch.float32, packing=packing)[0]


@pytest.mark.parametrize("decay", [None, 9.0])
@pytest.mark.parametrize("lengths", LENGTHS)
def test_short_texts_are_read_as_by_the_plain_layers(lengths: tuple[int, ...], decay: float | None) -> None:
    backbone = tiny_backbone()
    if decay is not None:
        for block in backbone.layers:
            block.mixer.A_log[0] = decay  # forgets all within a token
    tokens = torch.randint(0, 100, (1, sum(lengths)))
    packing = Packing.of(lengths, 4)
    assert packing.padded is not None
    expected = read(backbone, tokens, packing)
    prepare(model_of(backbone), torch.float32)
    assert relative_error(read(backbone, tokens, packing), expected) <= 1e-5


def test_a_convolution_of_another_width() -> None:
    backbone = tiny_backbone(d_conv=2)
    tokens, packing = torch.randint(0, 100, (1, 12)), Packing.of((5, 4, 3), 2)
    expected = read(backbone, tokens, packing)
    prepare(model_of(backbone), torch.float32)
    assert relative_error(read(backbone, tokens, packing), expected) <= 1e-5


def test_a_text_does_not_see_its_neighbours() -> None:
    backbone = tiny_backbone()
    prepare(model_of(backbone), torch.float32)
    text, packing = torch.randint(0, 100, (1, 9)), Packing.of((12, 9, 7), 4)
    alone = read(backbone, text, Packing.of((9,), 4))
    for seed in range(5):
        torch.manual_seed(seed)
        before, after = torch.randint(0, 100, (1, 12)), torch.randint(0, 100, (1, 7))
        beside = read(backbone, torch.cat([before, text, after], dim=1), packing)
        assert relative_error(beside[:, 12:21], alone) <= 1e-5


def test_a_text_beside_one_that_is_no_number_stays_what_it_is() -> None:
    backbone = tiny_backbone()
    backbone.embedding.weight[7] = float("nan")
    prepare(model_of(backbone), torch.float32)
    tokens = torch.tensor([[7, 7, 7, 1, 2, 3, 4, 5]])
    alone = read(backbone, tokens[:, 3:], Packing.of((5,), 4))
    beside = read(backbone, tokens, Packing.of((3, 5), 4))
    assert beside[:, :3].isnan().all()
    assert relative_error(beside[:, 3:], alone) <= 1e-5


@pytest.mark.parametrize("lengths", [(65,), (64, 65), (64, 5, 5, 5)])
def test_long_texts_and_texts_of_unlike_length_are_not_padded(lengths: tuple[int, ...]) -> None:
    assert Packing.of(lengths, 4).padded is None


def test_nothing_is_laid_out_for_a_cpu_elsewhere() -> None:
    assert Packing.of((3, 2), 4, "meta").padded is None


def test_several_groups_go_the_other_way() -> None:
    backbone = tiny_backbone(n_groups=2)
    prepare(model_of(backbone), torch.float32)
    tokens, packing = torch.randint(0, 100, (1, 9)), Packing.of((5, 4), 4)
    assert torch.equal(read(backbone, tokens, packing), read(backbone, tokens, replace(packing, padded=None)))


def test_the_default_model_embeds_questions_as_the_plain_layers_do() -> None:
    torch.set_num_threads(1)
    encoder = TextEncoder(
        load_model(DEFAULT_MODEL_FOLDER, "cpu", torch.float32),
        Tokenizer.load(DEFAULT_MODEL_FOLDER),
        "fingerprint",
        torch.float32,
        threads=1,
        half_weights=True,
    )
    rows = encoder.query_rows(read_questions()[:QUESTIONS])
    plain = load_model(DEFAULT_MODEL_FOLDER, "cpu", torch.float32)
    for first in range(0, QUESTIONS, 50):
        group = sorted(rows[first : first + 50], key=len)
        tokens = torch.from_numpy(np.concatenate(group))[None]
        with torch.inference_mode():
            expected = plain.embed_packed(tokens, [len(row) for row in group], torch.float32).numpy()
        together = np.concatenate([encoder.embed_queries(group[start : start + 10]) for start in range(0, 50, 10)])
        alone = np.concatenate([encoder.embed_queries([row]) for row in group[::10]])
        assert (expected * together).sum(axis=1).min() >= 0.9999
        assert (together[::10] * alone).sum(axis=1).min() >= 0.999999
