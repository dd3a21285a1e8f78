"""Rows of tokens: special tokens in place, views into one array, faults by their place."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from encoder.errors import InvalidInput
from encoder.token_rows import frame, join_ids

TOKENS = st.lists(st.integers(0, 9), max_size=5)


@given(st.lists(TOKENS, min_size=1, max_size=5), TOKENS, TOKENS)
def test_special_tokens_stand_before_and_after_each_row(
    texts: list[list[int]], before: list[int], after: list[int]
) -> None:
    ids = np.array([token for text in texts for token in text], dtype=np.int64)
    rows = frame(ids, np.cumsum([len(text) for text in texts]), before=before, after=after)
    assert [row.tolist() for row in rows] == [[*before, *text, *after] for text in texts]
    assert all(row.dtype == np.int32 and row.flags.c_contiguous for row in rows)
    assert len({id(row.base) for row in rows}) == 1, "views into one array"


@pytest.mark.parametrize("kind", [np.uint8, np.uint32, np.int32, np.int64, np.uint64, list])
def test_ids_of_any_kind_are_laid_end_to_end(kind: Any) -> None:
    passages = [[1, 2], [99], [0, 5, 6]]
    ids, ends = join_ids("passages", [kind(passage) for passage in passages], 100)
    assert ids.tolist() == [1, 2, 99, 0, 5, 6]
    assert ends.tolist() == [2, 3, 6]


def test_ids_of_several_kinds_may_come_together() -> None:
    ids, _ = join_ids("passages", [np.array([1], np.uint64), [2], np.array([3], np.int8), np.array([4], np.uint32)], 9)
    assert ids.tolist() == [1, 2, 3, 4]


@pytest.mark.parametrize(
    ("passages", "place", "words"),
    [
        ([[1], [], [100]], 1, "is empty"),
        ([[1], [1, 100], []], 1, r"token_ids\[1\] is 100; the model's vocabulary has the ids 0 to 99"),
        ([[1], [-1, 5]], 1, r"token_ids\[0\] is -1"),
        ([np.array([1, 2**32 - 1], np.uint32)], 0, r"token_ids\[1\] is 4294967295"),
        ([[1], np.array([2**63], np.uint64)], 1, "9223372036854775808, which is no token"),
        ([[1], np.array([True])], 1, "flat list of integers, not bool"),
        ([[1], np.array([[1]])], 1, "flat list of integers"),
        ([[1], "ab"], 1, "flat list of integers"),
    ],
)
def test_faults_are_named_by_their_place(passages: Any, place: int, words: str) -> None:
    with pytest.raises(InvalidInput, match=words) as caught:
        join_ids("passages", passages, 100)
    assert caught.value.field == f"passages[{place}]"
