"""BM25 weights, and that sparse search through the whole product agrees with an independent implementation."""

from pathlib import Path

import bm25s
import numpy as np
import pytest
import Stemmer
from hypothesis import given
from hypothesis import strategies as st

import encoder.evaluation
from ingest.sparse import LENGTH_EXPECTED, STOP_WORDS, sparse_passage, sparse_query, split_terms
from tests.benchmarks.compare_bm25 import compare

TEXT = "The quick brown foxes, running; C3PO's x-ray is naïve — ÉTÉ 東京 and 3.14"


def test_terms_are_those_of_bm25s() -> None:
    options = {"stopwords": "en", "stemmer": Stemmer.Stemmer("english"), "show_progress": False}
    (expected,) = bm25s.tokenize([TEXT], return_ids=False, **options)
    assert split_terms(TEXT) == expected
    assert set(bm25s.stopwords.STOPWORDS_EN) == STOP_WORDS


def test_a_passage_is_weighed_by_bm25() -> None:
    text = "apple apple pie " + "filler " * 5
    vector = sparse_passage(text)
    (apple,) = sparse_query("apples").indices
    weights = dict(zip(vector.indices.tolist(), vector.values.tolist(), strict=True))
    assert len(weights) == 3
    assert weights[apple] == pytest.approx(2 / (2 + 0.9 * (0.6 + 0.4 * 8 / LENGTH_EXPECTED)))


def test_a_query_counts_its_terms() -> None:
    vector = sparse_query("to run or running, an apple")
    assert sorted(vector.values.tolist()) == [1.0, 2.0]


@pytest.mark.parametrize("text", ["", "the of and", "? ! a b", "\x00"])
def test_a_text_without_terms_has_no_weights(text: str) -> None:
    assert sparse_passage(text).indices.size == sparse_passage(text).values.size == 0
    assert sparse_query(text).indices.size == 0


@given(st.text(max_size=200))
def test_indices_are_unique_and_weights_between_zero_and_one(text: str) -> None:
    vector = sparse_passage(text)
    assert vector.indices.dtype == np.uint32
    assert vector.values.dtype == np.float32
    assert vector.indices.shape == vector.values.shape == np.unique(vector.indices).shape
    assert ((vector.values > 0) & (vector.values < 1)).all()


def test_sparse_search_agrees_with_bm25s() -> None:
    found = compare(Path(encoder.evaluation.__path__[0]) / "datasets" / "squad_xquad_en")
    assert found.agrees
    assert found.product > 0.94
