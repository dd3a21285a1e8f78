"""Words found by their bytes: exact, however they are spelled and however many there are."""

import re
import string

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from encoder.word_index import UNKNOWN, WORD_BYTES_MAX, Keys, WordIndex, divide, keys_of

ALIKE = st.text(st.sampled_from("ab\0\xe9"), min_size=1, max_size=18)


def keys_of_words(words: list[str]) -> Keys:
    data = " ".join(words).encode()
    return keys_of(data, divide(data))


@given(st.text(st.sampled_from(" \t\n\r.,-_a\0\xe9\u2028\U0001f600\x85")))
def test_words_are_divided_at_blanks_and_signs(text: str) -> None:
    data = text.encode()
    found = [data[begin:end].decode() for begin, end in zip(*divide(data), strict=True)]
    signs = re.escape(string.punctuation)
    assert found == re.findall(rf"[{signs}]|[^ \t\n\r{signs}]+", text)


@given(st.lists(ALIKE, min_size=2, max_size=2))
def test_equal_keys_are_equal_words(words: list[str]) -> None:
    found = keys_of_words(words)
    keys = list(zip(found.first.tolist(), found.second.tolist(), strict=True))
    sizes = [len(word.encode()) for word in words]
    for key, size in zip(keys, sizes, strict=True):
        assert (key[1] == 0) == (size > WORD_BYTES_MAX)
    if max(sizes) <= WORD_BYTES_MAX:
        assert (keys[0] == keys[1]) == (words[0] == words[1])


def test_thousands_of_words_are_found_and_others_are_not() -> None:
    words = [f"w{number * number}" for number in range(9000)]
    keys, numbers = keys_of_words(words), np.arange(9000)
    index = WordIndex.empty()
    for first in range(0, 6000, 500):  # grown again and again, some words given twice
        index = index.with_words(keys.at(numbers[first : first + 600]), numbers[first : first + 600])
    found = index.find(keys)
    known = found != UNKNOWN
    assert np.array_equal(found[known], numbers[known])
    assert known[:6100].mean() > 0.999  # one that is far from its place may be left out
    assert not known[6100:].any()


def test_an_index_that_is_in_use_never_changes() -> None:
    keys = keys_of_words(["one", "two", "a_word_of_many_letters", "abcdefghijklmnopqrstuvwxyz"])
    before = WordIndex.empty().with_words(keys.at(np.array([0])), np.array([7]))
    after = before.with_words(keys, np.arange(7, 7 + len(keys.first)))
    assert before.find(keys)[:2].tolist() == [7, UNKNOWN]
    assert after.find(keys)[:2].tolist() == [7, 8]
    assert after.find(keys)[-1] == UNKNOWN, "too long for a key"
