"""Lengthened sets: the same questions and answers, longer documents, nothing that answers a question it should not."""

from pathlib import Path

import pytest

from encoder.errors import InvalidInput
from encoder.evaluation.datasets import EvaluationSet, load_evaluation_set
from encoder.evaluation.lengthening import lengthen
from encoder.model_config import DEFAULT_MODEL_FOLDER
from encoder.tokenizer import Tokenizer
from tests.test_evaluation_datasets import SHIPPED, write_set

TOKENIZER = Tokenizer.load(DEFAULT_MODEL_FOLDER)


@pytest.fixture(scope="module")
def shipped() -> EvaluationSet:
    return load_evaluation_set(SHIPPED)


def test_documents_reach_the_length_and_keep_their_text(shipped: EvaluationSet) -> None:
    original = {document.document_id: document for document in shipped.documents}
    found = lengthen(shipped, 1024, TOKENIZER)
    assert (found.name, found.length) == (shipped.name, 1024)
    assert len(found.documents) == 180  # a quarter became distractors, as every document answers something
    starts = set()
    for document in found.documents:
        text = original[document.document_id].text
        assert document.text.count(text) == 1
        assert TOKENIZER.count(document.text) == pytest.approx(1024, abs=3)  # where a distractor is cut, a word may be
        starts.add(round(document.text.index(text) / len(document.text), 1))
    assert len(starts) >= 8  # anywhere


def test_distractors_answer_nothing_that_is_asked(shipped: EvaluationSet) -> None:
    found = lengthen(shipped, 1024, TOKENIZER)
    kept = {document.document_id for document in found.documents}
    texts = {document.document_id: document.text for document in shipped.documents}
    assert set(found.queries) == set(found.qrels)
    assert 800 < len(found.queries) < len(shipped.queries)
    for grades in found.qrels.values():
        assert set(grades) <= kept
    # A document that is still sought stands in its own text alone.
    for document in found.documents[:40]:
        assert [other for other in found.documents if texts[document.document_id] in other.text] == [document]


def test_lengths_differ_in_nothing_but_length(shipped: EvaluationSet) -> None:
    short, long, again = (lengthen(shipped, tokens, TOKENIZER) for tokens in (512, 2048, 512))
    assert short == again
    assert (short.queries, short.qrels) == (long.queries, long.qrels)
    assert [document.document_id for document in short.documents] == [
        document.document_id for document in long.documents
    ]
    assert lengthen(shipped, 512, TOKENIZER, seed=1).documents != short.documents


def test_longer_documents_stay_whole(tmp_path: Path) -> None:
    corpus = [{"_id": f"d{n}", "text": f"number {n} " * (400 if n == 3 else 2)} for n in range(8)]
    queries = [{"_id": "q", "text": "number 3"}]
    found = load_evaluation_set(write_set(tmp_path, corpus=corpus, queries=queries, qrels="q\td3\t1\n"))
    lengthened = {document.document_id: document.text for document in lengthen(found, 100, TOKENIZER).documents}
    assert lengthened["d3"] == corpus[3]["text"]
    assert all(TOKENIZER.count(text) == 100 for name, text in lengthened.items() if name != "d3")
    assert len(lengthened) == 4  # half of a set is given up where nothing is asked about it


def test_what_cannot_be_lengthened_is_refused(tmp_path: Path) -> None:
    corpus = [{"_id": "d1", "text": "one"}]
    tiny = load_evaluation_set(
        write_set(tmp_path, corpus=corpus, queries=[{"_id": "q1", "text": "one?"}], qrels="q1\td1\t1\n")
    )
    with pytest.raises(InvalidInput, match="too small to be lengthened"):
        lengthen(tiny, 1024, TOKENIZER)
    corpus.append({"_id": "d2", "text": "\u200b\u200b"})
    unreadable = load_evaluation_set(
        write_set(tmp_path / "b", corpus=corpus, queries=[{"_id": "q1", "text": "one?"}], qrels="q1\td1\t1\n")
    )
    with pytest.raises(InvalidInput, match="too small to be lengthened"):
        lengthen(unreadable, 1024, TOKENIZER)
    with pytest.raises(InvalidInput, match="length is 63 tokens; 64 to 1048576 are allowed"):
        lengthen(tiny, 63, TOKENIZER)
