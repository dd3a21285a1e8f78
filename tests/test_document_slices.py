"""Slices of a document: bounded, whole, and faults named by their place."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from encoder.document_slices import TOKEN_ID_MAX, DocumentCutter, cut_document, encode_in_slices, shifted
from encoder.errors import InvalidInput
from tests.fakes import VOCABULARY_SIZE, FakeEncoder


@given(
    length=st.integers(1, 300),
    data=st.data(),
    tokens_max=st.integers(1, 70),
    ends_max=st.integers(1, 9),
    stretch=st.integers(1, 100),
)
def test_slices_put_together_are_the_document(
    length: int, data: st.DataObject, tokens_max: int, ends_max: int, stretch: int
) -> None:
    ends = np.array(sorted(data.draw(st.sets(st.integers(1, length))) | {length}))
    ids = np.arange(length) + 1000
    cutter, found = DocumentCutter(tokens_max, ends_max), []
    for start in range(0, length, stretch):
        inside = ends[(ends > start) & (ends <= start + stretch)] - start
        found += list(cutter.cut(ids[start : start + stretch], inside))
    cutter.finish()
    assert np.concatenate([part.token_ids for part in found]).tolist() == ids.tolist()
    assert np.concatenate([part.chunk_ends + part.tokens_before for part in found]).tolist() == ends.tolist()
    tokens = chunks = 0
    for part in found:
        assert (part.tokens_before, part.ends_before) == (tokens, chunks)
        assert 1 <= len(part.token_ids) <= tokens_max
        assert len(part.chunk_ends) <= ends_max
        assert all(1 <= end <= len(part.token_ids) for end in part.chunk_ends)
        tokens, chunks = tokens + len(part.token_ids), chunks + len(part.chunk_ends)


@pytest.mark.parametrize(
    ("ids", "ends", "field", "words"),
    [
        ([], [], "token_ids", "has no tokens"),
        ([1, 2, 3], [2], "token_ids[2]", "stands after the last chunk's end, with 3 tokens in all"),
        ([1, 2, 3], [], "token_ids[0]", "stands after the last chunk's end"),
        ([1, 2, 3], [2, 2, 3], "chunk_ends[1]", "is at 2 tokens of the document; it must be above 2 and at most 3"),
        ([1, 2, 3], [3, 1], "chunk_ends[1]", "is at 1 tokens"),
        ([1, 2, 3], [0, 3], "chunk_ends[0]", "must be above 0"),
        ([1, 2, 3], [3, 4], "chunk_ends[1]", "at most 3, the tokens given"),
        ([1, -2, 3], [3], "token_ids[1]", f"is -2; ids are 0 to {TOKEN_ID_MAX}"),
        ([1, 2**32], [2], "token_ids[1]", "is 4294967296"),
        ([2**64], [1], "token_ids", "flat list of integers, not object"),
        (np.array([2**63], dtype=np.uint64), [1], "token_ids", "no token"),
        ([0.5], [1], "token_ids", "flat list of integers, not float64"),
        ([[1]], [1], "token_ids", r"of shape \(1, 1\)"),
        ([[1], [1, 2]], [1], "token_ids", "flat list of integers"),
        ([1], ["1"], "chunk_ends", "flat list of integers"),
    ],
)
def test_what_is_no_document_is_refused(ids: Any, ends: Any, field: str, words: str) -> None:
    with pytest.raises(InvalidInput, match=words) as refusal:
        cut_document(ids, ends, 2)
    assert refusal.value.field == field


def test_places_count_from_the_documents_begin() -> None:
    cutter = DocumentCutter(10)
    cutter.cut([1] * 25, [5, 25])
    with pytest.raises(InvalidInput, match=r"chunk_ends\[3\] is at 29 tokens .* above 29 and at most 33") as refusal:
        cutter.cut([1] * 8, [4, 4])
    assert refusal.value.field == "chunk_ends[3]"


async def test_a_fault_that_the_model_finds_is_placed_too() -> None:
    ids = [1] * 50
    ids[33] = VOCABULARY_SIZE
    with pytest.raises(InvalidInput, match=rf"token_ids\[33\] is {VOCABULARY_SIZE}") as refusal:
        await encode_in_slices(FakeEncoder().open_document, ids, [50], state=None, keep_state=False, tokens_max=10)
    assert refusal.value.field == "token_ids[33]"


def test_places_are_counted_from_the_callers_list() -> None:
    error = shifted(InvalidInput("passages[3]", "passages[3] is empty."), 64)
    assert (error.field, str(error)) == ("passages[67]", "passages[67] is empty.")
    assert shifted(InvalidInput("passages", "too many"), 64).field == "passages"
    renamed = shifted(InvalidInput("passages[3]", "passages[3] is empty."), 1, "tokenized_passages")
    assert (renamed.field, str(renamed)) == ("tokenized_passages[4]", "tokenized_passages[4] is empty.")
