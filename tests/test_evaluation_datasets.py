"""Evaluation sets in BEIR layout are read as they are, or refused with the file, the line and the field."""

import json
import lzma
from pathlib import Path

import pytest

import encoder.evaluation
from encoder.errors import InvalidInput
from encoder.evaluation.datasets import load_evaluation_set

SHIPPED = Path(encoder.evaluation.__file__).parent / "datasets" / "squad_xquad_en"
CORPUS = [{"_id": "d1", "title": "One", "text": "first text"}, {"_id": "d2", "text": "second text"}]
QUERIES = [{"_id": "q1", "text": "which is first?"}, {"_id": "q2", "text": "which is second?"}]
QRELS = "query-id\tcorpus-id\tscore\nq1\td1\t2\nq1\td2\t0\n"


def write_set(folder: Path, *, corpus: object = CORPUS, queries: object = QUERIES, qrels: str = QRELS) -> Path:
    """Write a set; a corpus or queries given as text are written as they are."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, rows in (("corpus", corpus), ("queries", queries)):
        text = rows if isinstance(rows, str) else "".join(json.dumps(row) + "\n" for row in rows)
        (folder / f"{name}.jsonl").write_text(text, encoding="utf-8")
    (folder / "qrels.tsv").write_text(qrels, encoding="utf-8")
    return folder


def test_the_shipped_set_is_whole() -> None:
    found = load_evaluation_set(SHIPPED)
    assert found.name == "squad_xquad_en"
    assert (len(found.documents), len(found.queries)) == (240, 1190)
    assert found.queries["56beb4343aeaaa14008c925b"] == "How many points did the Panthers defense surrender?"
    assert "308 points" in found.documents[0].text
    assert found.qrels["56beb4343aeaaa14008c925b"] == {"0": 1}


def test_unjudged_queries_are_left_out_and_counted(tmp_path: Path) -> None:
    found = load_evaluation_set(write_set(tmp_path / "tiny"))
    assert found.name == "tiny"
    assert found.queries == {"q1": "which is first?"}
    assert found.qrels == {"q1": {"d1": 2, "d2": 0}}
    assert found.queries_unjudged == 1


def test_a_query_with_only_irrelevant_documents_is_unjudged(tmp_path: Path) -> None:
    found = load_evaluation_set(write_set(tmp_path, qrels=QRELS + "q2\td1\t0\n"))
    assert set(found.queries) == {"q1"}


def test_a_document_without_text_is_read_as_its_title(tmp_path: Path) -> None:
    corpus = [*CORPUS, {"_id": "d3", "title": "Only a title", "text": " "}, {"_id": "d4", "text": ""}]
    found = load_evaluation_set(write_set(tmp_path, corpus=corpus, qrels=QRELS + "q1\td4\t1\n"))
    assert [document.text for document in found.documents] == ["first text", "second text", "Only a title"]
    assert found.documents_blank == 1
    assert found.qrels["q1"]["d4"] == 1  # it is relevant and cannot be found


def test_xz_and_a_test_split_are_found(tmp_path: Path) -> None:
    write_set(tmp_path)
    plain = (tmp_path / "corpus.jsonl").read_bytes()
    (tmp_path / "corpus.jsonl").unlink()
    (tmp_path / "corpus.jsonl.xz").write_bytes(lzma.compress(plain))
    (tmp_path / "qrels").mkdir()
    (tmp_path / "qrels.tsv").rename(tmp_path / "qrels" / "test.tsv")
    assert [document.document_id for document in load_evaluation_set(tmp_path).documents] == ["d1", "d2"]


@pytest.mark.parametrize(
    ("broken", "message"),
    [
        ({"corpus": '{"_id": "d1", "text": "a"}\n{"_id": '}, r"corpus\.jsonl line 2 is not JSON"),
        ({"corpus": "[1]\n"}, r"corpus\.jsonl line 1 is not a JSON object"),
        ({"corpus": [{"_id": 7, "text": "a"}]}, r"corpus\.jsonl line 1: _id is 7; it must be a string"),
        ({"corpus": [{"_id": "d1"}]}, r"corpus\.jsonl line 1: text is missing; it must be a string"),
        ({"corpus": [*CORPUS, *CORPUS]}, r"corpus\.jsonl line 3: _id 'd1' occurs twice"),
        ({"corpus": [{"_id": "d1", "text": ""}, {"_id": "d2", "text": " "}]}, "no document with a text"),
        ({"corpus": ""}, "corpus-id 'd1' is not in the corpus"),
        ({"queries": [{"_id": "q1", "text": " "}]}, r"queries\.jsonl line 1: text is empty"),
        ({"queries": [*QUERIES, *QUERIES]}, r"queries\.jsonl line 3: _id 'q1' occurs twice"),
        ({"qrels": ""}, "no query with a relevant document"),
        ({"qrels": "q9\td1\t1\n"}, r"qrels\.tsv line 1: query-id 'q9' is not among the queries"),
        ({"qrels": QRELS + "q2\td9\t1\n"}, r"qrels\.tsv line 4: corpus-id 'd9' is not in the corpus"),
        ({"qrels": "q1\td1\tyes\n"}, r"qrels\.tsv line 1: score is 'yes'; it must be a whole number"),
        ({"qrels": "q1 d1 1\n"}, r"qrels\.tsv line 1 has 1 tab-separated fields"),
        ({"qrels": QRELS + "q1\td1\t1\n"}, r"qrels\.tsv line 4: 'q1' and 'd1' were judged before, differently"),
    ],
)
def test_a_malformed_set_is_refused(tmp_path: Path, broken: dict[str, str], message: str) -> None:
    with pytest.raises(InvalidInput, match=message):
        load_evaluation_set(write_set(tmp_path, **broken))


@pytest.mark.parametrize("name", ["corpus.jsonl", "queries.jsonl", "qrels.tsv"])
def test_a_missing_file_is_named(tmp_path: Path, name: str) -> None:
    (write_set(tmp_path) / name).unlink()
    with pytest.raises(InvalidInput, match=f"has no {name}"):
        load_evaluation_set(tmp_path)


def test_a_missing_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="nowhere is not a folder"):
        load_evaluation_set(tmp_path / "nowhere")


def test_other_encodings_and_half_files_are_refused(tmp_path: Path) -> None:
    write_set(tmp_path)
    plain = (tmp_path / "corpus.jsonl").read_bytes()
    (tmp_path / "corpus.jsonl").write_bytes(b'{"_id": "caf\xe9", "text": "a"}\n')
    with pytest.raises(InvalidInput, match="is not UTF-8"):
        load_evaluation_set(tmp_path)
    (tmp_path / "corpus.jsonl").unlink()
    (tmp_path / "corpus.jsonl.xz").write_bytes(lzma.compress(plain)[:-20])
    with pytest.raises(InvalidInput, match="is not a whole xz file"):
        load_evaluation_set(tmp_path)
