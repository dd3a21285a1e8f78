"""Text to ids without torch."""

import pickle
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import tokenizers
from hypothesis import given
from hypothesis import strategies as st

from encoder.errors import CheckpointError, InvalidInput
from encoder.fingerprint import index_fingerprint, model_fingerprint
from encoder.model_config import DEFAULT_MODEL_FOLDER
from encoder.tokenizer import Tokenizer, check_characters
from encoder.word_table import WordTable, divides_into_words
from tests.tiny_model import save_tiny_model

# Those at which pipelines divide, drop, join or take apart what they read.
MEETING_CHARACTERS = (
    " \t\n\r\x00\x0b\x1c\x85\xa0\u2028\u3000\ufffd\u0301\u0345.,'-_a"
    "\u00e9\u0130\u1e9e\ufb01\u4e2d\uac00\U0001f600\u200d"
)


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
    assert [row.tolist() for row in tokenizer.encode_batch(texts)] == [tokenizer.encode(text) for text in texts]
    assert tokenizer.count("two words") == 2
    assert tokenizer.decode(tokenizer.encode("two words")) == "two words"


def test_nothing_is_truncated_or_padded(tokenizer: Tokenizer) -> None:
    assert len(tokenizer.encode("word " * 2000)) == 2000
    assert [len(ids) for ids in tokenizer.encode_batch(["a", "a b c"])] == [1, 3]


def rows_of(table: WordTable, texts: list[str]) -> list[list[int]]:
    ids, ends = table.tokenize_batch(texts)
    assert ids.dtype == np.int32
    return [row.tolist() for row in np.split(ids, ends[:-1])] if texts else []


@given(st.lists(st.text(st.sampled_from(MEETING_CHARACTERS) | st.characters(exclude_categories=["Cs"])), max_size=4))
def test_words_by_table_are_those_of_the_library(tokenizer: Tokenizer, texts: list[str]) -> None:
    table = WordTable(tokenizer._pipeline, chars_max=200)  # begun anew again and again
    by_index = WordTable(tokenizer._pipeline, chars_max=200, by_index_min=0)
    expected = tokenizer._pipeline.encode_batch(texts, add_special_tokens=False)
    assert rows_of(table, texts) == [found.ids for found in expected]
    assert rows_of(by_index, texts) == [found.ids for found in expected]
    for text, found in zip(texts, expected, strict=True):
        ids, offsets = table.tokenize(text)
        assert ids.tolist() == found.ids
        assert [tuple(pair) for pair in offsets.tolist()] == found.offsets


def test_a_table_serves_many_threads(tokenizer: Tokenizer) -> None:
    table = WordTable(tokenizer._pipeline, chars_max=500)
    texts = [" ".join(f"word{number * place % 97}" for place in range(60)) for number in range(60)]
    with ThreadPoolExecutor(8) as threads:
        found = list(threads.map(lambda text: table.tokenize(text)[0].tolist(), texts))
        together = list(threads.map(lambda first: rows_of(table, texts[first : first + 6]), range(0, 60, 2)))
    expected = [rows.ids for rows in tokenizer._pipeline.encode_batch(texts, add_special_tokens=False)]
    assert found == expected
    assert together == [expected[first : first + 6] for first in range(0, 60, 2)]


def test_a_long_batch_is_tokenized_as_each_text_alone(tokenizer: Tokenizer) -> None:
    texts = ["", *(f"The {number}th of naïve cafés, x{'y' * number}\0 \0\0" for number in range(200)), " \n"]
    rows = tokenizer.encode_batch(texts)
    assert [row.tolist() for row in rows] == [tokenizer.encode(text) for text in texts]
    assert {row.dtype for row in rows} == {np.dtype(np.int32)}
    assert tokenizer.encode_batch([]) == []
    assert [row.tolist() for row in tokenizer.encode_batch(["", ""])] == [[], []]


def test_pipelines_without_a_table_give_arrays_too() -> None:
    pipeline = tokenizers.Tokenizer(tokenizers.models.WordLevel({"a": 0, "b": 70_000, "?": 1}, unk_token="?"))
    pipeline.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    rows = Tokenizer(pipeline, "fingerprint").encode_batch(["a b", "", "b c a"])
    assert [row.tolist() for row in rows] == [[0, 70_000], [], [70_000, 1, 0]]
    assert {row.dtype for row in rows} == {np.dtype(np.int32)}
    assert Tokenizer(pipeline, "fingerprint").encode_batch([]) == []


def test_a_tokenizer_travels_to_other_processes(tokenizer: Tokenizer) -> None:
    text = "Words that have been met, and some that have not."
    expected = tokenizer.encode(text)
    assert pickle.loads(pickle.dumps(tokenizer)).encode(text) == expected


def test_only_pipelines_that_divide_at_words_have_a_table(tokenizer: Tokenizer) -> None:
    assert tokenizer._words
    bytes_joined = tokenizers.Tokenizer(tokenizers.models.BPE())
    bytes_joined.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel()
    assert not divides_into_words(bytes_joined)
    with_phrase = tokenizers.Tokenizer.from_str(tokenizer._pipeline.to_str())
    with_phrase.add_tokens(["two words"])  # which no word is a part of
    assert not divides_into_words(with_phrase)


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
