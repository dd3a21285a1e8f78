"""Texts to embeddings: independent of the batch, checked, and the default model means what it says."""

import asyncio
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from encoder.checkpoint import load_model
from encoder.errors import CheckpointError, InvalidInput
from encoder.kernels.cpu import multiplies_half_weights
from encoder.local import LocalEncoder
from encoder.model_config import DEFAULT_MODEL_FOLDER
from encoder.text_encoder import BATCH_SIZE_MAX, TextEncoder
from encoder.tokenizer import Tokenizer
from tests.tiny_model import save_tiny_model


@pytest.fixture(scope="module")
def default() -> TextEncoder:
    return TextEncoder.load(DEFAULT_MODEL_FOLDER, device="cpu")


def test_embedding_does_not_depend_on_the_batch(default: TextEncoder) -> None:
    texts = ["short", "a text of middling length, " * 5, "x", "a much longer text. " * 60, "short"]
    together = default.encode_passages(texts)
    for text, embedding in zip(texts, together.embeddings, strict=True):
        alone = default.encode_passages([text]).embeddings[0]
        # bfloat16 products of other shapes round differently; the cosine of the two is 1 to four places
        assert float(alone @ embedding) >= 0.9995
    assert np.allclose(np.linalg.norm(together.embeddings, axis=1), 1, atol=1e-5)
    assert together.embeddings.dtype == np.float32
    assert together.token_counts[0] == 2  # the word and EOS


def test_default_model_prefers_the_answer(default: TextEncoder) -> None:
    query = default.encode_queries(["How do plants turn sunlight into energy?"]).embeddings[0]
    passages = default.encode_passages(
        [
            "Photosynthesis converts light into chemical energy that is stored in sugars made from carbon dioxide.",
            "The treaty was signed in 1648 and ended thirty years of war.",
            "To sort a list in Python, call its sort method.",
        ]
    ).embeddings
    scores = passages @ query
    assert scores.argmax() == 0
    assert scores[0] > scores[1:].max() + 0.2


def test_literal_special_tokens_are_text(default: TextEncoder) -> None:
    count = default.encode_queries(["[SEP]"]).token_counts[0]
    assert count == 4  # "[", "sep", "]" and EOS


@pytest.mark.parametrize(
    ("texts", "field", "words"),
    [
        ([], "queries", "1 to 1024"),
        (["fine", " \n\t"], "queries[1]", "empty"),
        (["fine", "caf\udce9"], "queries[1]", "not whole Unicode"),
        (["word " * 600], "queries[0]", "limit is 512"),
        (["x"] * (BATCH_SIZE_MAX + 1), "queries", "1025"),
    ],
)
def test_bad_queries(default: TextEncoder, texts: list[str], field: str, words: str) -> None:
    with pytest.raises(InvalidInput, match=words) as caught:
        default.encode_queries(texts)
    assert caught.value.field == field


def test_passage_limit_is_its_own(default: TextEncoder) -> None:
    assert default.encode_passages(["word " * 600]).token_counts == (601,)
    with pytest.raises(InvalidInput, match="8192"):
        default.encode_passages(["word " * 9000])


def test_tokenizer_of_another_model_is_refused(tmp_path: Path) -> None:
    folder = save_tiny_model(tmp_path / "model", vocabulary_size=100)
    with pytest.raises(CheckpointError, match="different models"):
        TextEncoder.load(folder, device="cpu")


@pytest.mark.parametrize(
    ("rows", "field", "words"),
    [
        ([], "passages", "1 to 1024"),
        ([[1000], []], "passages[1]", "empty"),
        ([[1000], [1.5]], "passages[1]", "flat list of integers, not float64"),
        ([[1000], 7], "passages[1]", "flat list of integers"),
        ([[1000, 30522]], "passages[0]", r"token_ids\[1\] is 30522; .* 0 to 30521"),
        ([[1000], [1000] * 8192], "passages[1]", r"passages\[1\] has 8193 tokens; the limit is 8192"),
    ],
)
def test_bad_tokenized_passages(default: TextEncoder, rows: Any, field: str, words: str) -> None:
    with pytest.raises(InvalidInput, match=words) as caught:
        default.encode_tokenized_passages(rows)
    assert caught.value.field == field


def test_warming_up_changes_nothing(tmp_path: Path) -> None:
    encoder = TextEncoder.load(save_tiny_model(tmp_path), device="cpu")
    before = encoder.encode_queries(["hello"]).embeddings
    encoder.warm_up()
    assert np.array_equal(encoder.encode_queries(["hello"]).embeddings, before)


def test_a_text_without_a_token_is_refused_where_no_end_token_stands_for_it(tmp_path: Path) -> None:
    """Its embedding would be its neighbour's."""
    encoder = TextEncoder.load(save_tiny_model(tmp_path, eos_token=None, pooling="last"))
    with pytest.raises(InvalidInput, match=r"passages\[1\] has no tokens") as caught:
        encoder.encode_passages(["word", "\0"])
    assert caught.value.field == "passages[1]"


@pytest.mark.parametrize("ahead", [False, True])
async def test_local_encoder_answers_as_the_text_encoder(
    default: TextEncoder, monkeypatch: pytest.MonkeyPatch, ahead: bool
) -> None:
    monkeypatch.setattr(default, "reads_ahead", ahead)  # as on a GPU
    encoder = LocalEncoder(default)
    try:
        assert (await encoder.info()).dimension == 384
        found = await encoder.encode_queries(["hello"])
        assert np.array_equal(found.embeddings, default.encode_queries(["hello"]).embeddings)
        assert (await encoder.encode_passages(["hello there"])).token_counts == (3,)
        rows = await encoder.query_rows(["hello"])
        assert np.array_equal(await encoder.embed_queries(rows), found.embeddings)
        several = await asyncio.gather(*(encoder.embed_passages(rows * count) for count in (1, 2, 3)))
        assert [len(embeddings) for embeddings in several] == [1, 2, 3]
    finally:
        await encoder.close()


@pytest.mark.skipif(not multiplies_half_weights(), reason="torch without FBGEMM")
def test_weights_in_float16_change_next_to_nothing(tmp_path: Path) -> None:
    folder = save_tiny_model(tmp_path / "tiny")
    exact, half = (
        TextEncoder(
            load_model(folder, "cpu", torch.float32),
            Tokenizer.load(folder),
            "fingerprint",
            torch.float32,
            threads=1,
            half_weights=half,
        )
        for half in (False, True)
    )
    texts = ["one word", "and many words " * 60, "some more"]
    left, right = exact.encode_queries(texts).embeddings, half.encode_queries(texts).embeddings
    assert (left * right).sum(axis=1).min() > 0.9999
    assert not np.array_equal(left, right), "the weights were rounded"
