"""Text to ids without torch."""

from pathlib import Path

import pytest

from encoder.errors import CheckpointError, InvalidInput
from encoder.fingerprint import index_fingerprint, model_fingerprint
from encoder.model_config import DEFAULT_MODEL_FOLDER
from encoder.tokenizer import Tokenizer, check_characters
from tests.tiny_model import save_tiny_model


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return Tokenizer.load(DEFAULT_MODEL_FOLDER)


def test_offsets_point_at_the_words(tokenizer: Tokenizer) -> None:
    text = "Ünïcode 😀 words, [MASK] and naïveté"
    found = tokenizer.encode_with_offsets(text)
    slices = [text[start:end] for start, end in found.offsets]
    assert "".join(slices) == text.replace(" ", "")
    assert list(found.ids) == tokenizer.encode(text)
    assert tokenizer.token_id("[MASK]") not in found.ids


def test_batch_equals_one_by_one(tokenizer: Tokenizer) -> None:
    texts = ["one", "two words", "", "three small words"]
    assert tokenizer.encode_batch(texts) == [tokenizer.encode(text) for text in texts]
    assert tokenizer.count("two words") == 2
    assert tokenizer.decode(tokenizer.encode("two words")) == "two words"


def test_nothing_is_truncated_or_padded(tokenizer: Tokenizer) -> None:
    assert len(tokenizer.encode("word " * 2000)) == 2000
    assert [len(ids) for ids in tokenizer.encode_batch(["a", "a b c"])] == [1, 3]


def test_missing_and_broken_files(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"tokenizer\.json cannot be read"):
        Tokenizer.load(tmp_path)
    (tmp_path / "tokenizer.json").write_text("{}")
    with pytest.raises(CheckpointError, match="not a tokenizer"):
        Tokenizer.load(tmp_path)


def test_fingerprint_follows_weights_configuration_and_tokenizer(tmp_path: Path) -> None:
    folder = save_tiny_model(tmp_path / "model")
    first = model_fingerprint(folder)
    assert first == model_fingerprint(save_tiny_model(tmp_path / "same"))
    assert first != model_fingerprint(save_tiny_model(tmp_path / "other", seed=1))
    config = folder / "config.json"
    config.write_text(config.read_text().replace('"query_prompt": ""', '"query_prompt": "q: "'))
    assert first != model_fingerprint(folder)
    assert index_fingerprint(first, "c") != index_fingerprint(first, "d")


def test_half_a_surrogate_pair_is_no_text() -> None:
    check_characters("query", "naïve 😀")
    with pytest.raises(InvalidInput, match=r"query is not whole Unicode text \(at character 3\)") as caught:
        check_characters("query", "caf\udce9")
    assert caught.value.field == "query"
