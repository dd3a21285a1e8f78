"""Short texts through onnxruntime: near the plain layers, whoever stands beside them; and what torch does instead."""

import logging
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch

from encoder.checkpoint import load_model
from encoder.kernels import onnx_texts
from encoder.kernels.onnx_texts import OnnxTexts, multiplies_eight_bits
from encoder.model import EncoderModel
from encoder.model_config import DEFAULT_MODEL_FOLDER
from encoder.text_encoder import TextEncoder
from encoder.tokenizer import Tokenizer
from encoder.weights import is_matrix, quantize_rows
from tests.benchmarks.load.texts import read_questions
from tests.random_weights import lively
from tests.tiny_model import tiny_config

QUESTIONS = 200
NEAR = 0.9995  # the least cosine
SAME = 0.99999
LENGTHS = [(1,), (2,), (13,), (64,), (9, 9, 9), (3, 2, 1, 1), (64, 40, 33), (64, 5, 5, 5), (20, 7, 13, 12), (1, 1)]
needs_vnni = pytest.mark.skipif(not multiplies_eight_bits(), reason="the CPU has no instruction for products in 8 bits")


def tiny_model(*, bits: int = 8, **changes: object) -> EncoderModel:
    config = tiny_config(**{"n_layers": 3} | changes)
    torch.manual_seed(1)
    model = EncoderModel(config).eval().requires_grad_(requires_grad=False)
    model.backbone = lively(config).requires_grad_(requires_grad=False)
    for name, weight in model.named_parameters():
        if is_matrix(name) and bits == 8:
            values, scale = quantize_rows(weight)
            weight.copy_(values * scale)
    return model


def open_texts(model: EncoderModel) -> OnnxTexts:
    texts = OnnxTexts.of(model)
    assert texts is not None
    return texts


def random_rows(lengths: Sequence[int], *, vocabulary_size: int = 100) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(sum(lengths))
    return [torch.randint(1, vocabulary_size, (length,), generator=generator).int() for length in lengths]


def embed_plainly(model: EncoderModel, rows: list[torch.Tensor]) -> torch.Tensor:
    """By the plain layers, in float32, each text on its own."""
    with torch.inference_mode():
        return torch.cat([model.embed_packed(row[None], [len(row)], torch.float32) for row in rows])


def least_cosine(left: torch.Tensor, right: torch.Tensor) -> float:
    return float((left * right).sum(dim=1).min())


@needs_vnni
@pytest.mark.parametrize("decay", [None, 9.0])
@pytest.mark.parametrize("lengths", LENGTHS)
def test_short_texts_are_embedded_as_by_the_plain_layers(lengths: tuple[int, ...], decay: float | None) -> None:
    model = tiny_model()
    if decay is not None:
        for block in model.backbone.layers:
            block.mixer.A_log[0] = decay  # forgets all within a token
    rows = random_rows(lengths)
    found = open_texts(model).embed(rows)
    assert torch.allclose(found.norm(dim=1), torch.ones(len(rows)), atol=1e-5)
    assert least_cosine(found, embed_plainly(model, rows)) >= NEAR


@needs_vnni
@pytest.mark.parametrize(
    "changes",
    [
        {"d_conv": 2},
        {"projection_dim": None},
        {"projection_bias": True},
        {"pooling": "last", "eos_token": None},
        {"d_model": 48, "head_dim": 24, "d_state": 8, "expand": 3},
    ],
)
def test_models_of_other_shapes(changes: dict[str, object]) -> None:
    model, rows = tiny_model(**changes), random_rows((12, 11, 5))
    assert least_cosine(open_texts(model).embed(rows), embed_plainly(model, rows)) >= NEAR


@needs_vnni
def test_a_text_does_not_see_its_neighbours() -> None:
    texts, (text,) = open_texts(tiny_model()), random_rows((9,))
    alone = texts.embed([text])
    for seed in range(5):
        together = texts.embed([*random_rows((10, 9 + seed)), text, *random_rows((8,))])
        assert least_cosine(together[2:3], alone) >= SAME


@needs_vnni
def test_a_text_beside_one_that_is_no_number_stays_what_it_is() -> None:
    model = tiny_model()
    model.backbone.embedding.weight[0] = float("nan")
    texts, (text,) = open_texts(model), random_rows((8,))
    assert least_cosine(texts.embed([torch.zeros(9, dtype=torch.int32), text])[1:], texts.embed([text])) >= SAME


@needs_vnni
def test_threads_may_share_it() -> None:
    texts, packs = open_texts(tiny_model()), [random_rows((length, length)) for length in (5, 9, 30, 31) * 5]
    expected = [texts.embed(rows) for rows in packs]
    with ThreadPoolExecutor(4) as pool:
        for found, wanted in zip(pool.map(texts.embed, packs), expected, strict=True):
            assert torch.equal(found, wanted)


def told(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.message for record in caplog.records if record.name == onnx_texts.__name__]


@needs_vnni
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_default_model_embeds_questions_as_the_plain_layers_do(
    dtype: torch.dtype, caplog: pytest.LogCaptureFixture
) -> None:
    torch.set_num_threads(1)
    caplog.set_level(logging.INFO, logger=onnx_texts.__name__)
    model = load_model(DEFAULT_MODEL_FOLDER, "cpu", dtype)
    encoder = TextEncoder(model, Tokenizer.load(DEFAULT_MODEL_FOLDER), "fingerprint", dtype, threads=1, eight_bits=True)
    assert told(caplog) == ["mamba-search-27m reads short texts through onnxruntime"]
    rows = sorted(encoder.query_rows(read_questions()[:QUESTIONS]), key=len)
    plain = load_model(DEFAULT_MODEL_FOLDER, "cpu", torch.float32)
    expected = embed_plainly(plain, [torch.from_numpy(row) for row in rows]).numpy()
    together = np.concatenate([encoder.embed_queries(rows[first : first + 20]) for first in range(0, QUESTIONS, 20)])
    cosines = (expected * together).sum(axis=1)
    assert cosines.min() >= NEAR
    assert cosines.mean() >= 0.9999
    alone = np.concatenate([encoder.embed_queries([row]) for row in rows[::10]])
    assert (together[::10] * alone).sum(axis=1).min() >= SAME


@needs_vnni
def test_packs_with_a_long_text_go_through_torch() -> None:
    rows = [row.numpy() for row in random_rows((65, 9), vocabulary_size=30522)]
    exact, rounded = (
        TextEncoder(
            load_model(DEFAULT_MODEL_FOLDER, "cpu", torch.float32),
            Tokenizer.load(DEFAULT_MODEL_FOLDER),
            "fingerprint",
            torch.float32,
            threads=1,
            eight_bits=eight_bits,
        )
        for eight_bits in (False, True)
    )
    assert np.array_equal(exact.embed_passages(rows), rounded.embed_passages(rows))
    assert not np.array_equal(exact.embed_passages(rows[1:]), rounded.embed_passages(rows[1:]))


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"n_groups": 2}, "one group"),
        ({"bidirectional": True}, "one-directional"),
        ({"selective": False}, "selective"),
        ({"architecture": "mamba1"}, "Mamba-2"),
        ({"pooling": "mean"}, "pooling mean"),
        pytest.param({"bits": 32}, "8 bits", marks=needs_vnni),
    ],
)
def test_other_models_are_left_to_torch(
    changes: dict[str, object], words: str, caplog: pytest.LogCaptureFixture
) -> None:
    model = tiny_model(**changes)
    with caplog.at_level(logging.INFO, logger=onnx_texts.__name__):
        assert OnnxTexts.of(model) is None
    (line,) = told(caplog)
    assert line.startswith("tiny reads short texts through torch (")
    assert words in line


def test_a_cpu_without_products_in_8_bits_goes_through_torch(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", dict)
    with caplog.at_level(logging.INFO, logger=onnx_texts.__name__):
        assert OnnxTexts.of(tiny_model()) is None
    assert "the CPU has no instruction" in caplog.text


@needs_vnni
@pytest.mark.parametrize("package", ["onnx", "onnxruntime"])
def test_without_a_package_torch_does_it(
    package: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    with caplog.at_level(logging.INFO, logger=onnx_texts.__name__):
        assert OnnxTexts.of(tiny_model()) is None
    assert f"through torch ({package} is not installed)" in caplog.text


@needs_vnni
def test_where_onnxruntime_knows_no_such_operator_torch_does_it(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    build = onnx_texts.build_graph
    monkeypatch.setattr(onnx_texts, "build_graph", lambda model: build(model).replace(b"QuickGelu", b"SlickGelu"))
    with caplog.at_level(logging.INFO, logger=onnx_texts.__name__):
        assert OnnxTexts.of(tiny_model()) is None
    assert "onnxruntime refuses the graph" in caplog.text
    assert "SlickGelu" in caplog.text
