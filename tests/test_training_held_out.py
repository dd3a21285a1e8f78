"""Questions that training does not see, and the evaluation folders that are made of them."""

from pathlib import Path

import pytest

from encoder.evaluation.datasets import load_evaluation_set
from encoder.training.held_out_sets import held_out_set, main
from encoder.training.source_formats import read_source
from encoder.training.sources import Question, SourceConfig, held_out_place
from tests.training_sets import write_rows

ROWS = [{"query": f"question {number}", "positive": f"Answer {number % 40}.", "title": "T"} for number in range(200)]


def source(path: Path, **settings: object) -> SourceConfig:
    return SourceConfig.model_validate({"name": "s", "format": "jsonl", "path": path} | settings)


def questions(config: SourceConfig) -> dict[str, Question]:
    return {item.query: item for item in read_source(config) if isinstance(item, Question)}


def asked(config: SourceConfig) -> set[str]:
    return set(questions(config))


def test_a_share_of_the_questions_is_kept_from_training(tmp_path: Path) -> None:
    path = write_rows(tmp_path / "a.jsonl", ROWS)
    everything, most = asked(source(path)), asked(source(path, held_out=0.25))
    assert len(everything) == 200
    assert 30 <= len(everything - most) <= 70
    found = questions(source(path))
    assert everything - most == {query for query in everything if held_out_place(found[query]) < 0.25}
    assert asked(source(path, held_out=0.1)) > most
    assert len(asked(source(path, held_out=0.25, limit=20))) == 20


def test_the_questions_of_a_set_are_those_held_out_first(tmp_path: Path) -> None:
    path = write_rows(tmp_path / "a.jsonl", ROWS)
    config = source(path, held_out=0.25)
    built = held_out_set(config, queries=20, passages=30, documents=5)
    assert len(built.queries) == 20
    assert not set(built.queries.values()) & asked(config)
    assert len(built.documents) == 30
    answers = {row["query"]: row["positive"] for row in ROWS}
    for query_id, name, grade in built.judgements:
        assert grade == 1
        assert built.documents[name] == ("T", answers[built.queries[query_id]])
    assert held_out_set(config, queries=20, passages=30, documents=5) == built
    fewer = held_out_set(config, queries=10, passages=30, documents=5)
    assert fewer.queries.items() < built.queries.items()


def test_a_question_of_several_rows_has_all_its_answers(tmp_path: Path) -> None:
    rows = [{"query": "q", "positive": "One."}, {"query": "q", "positive": "Two."}, {"query": "q", "positive": "One."}]
    built = held_out_set(source(write_rows(tmp_path / "a.jsonl", rows)), queries=5, passages=1, documents=1)
    assert sorted(text for _, text in built.documents.values()) == ["One.", "Two."]
    assert len(built.judgements) == 2


def test_whole_documents_are_fewer(tmp_path: Path) -> None:
    documents = [{"doc_id": f"d{number}", "title": "", "text": f"Long text {number}."} for number in range(50)]
    write_rows(tmp_path / "a.docs.jsonl", documents)
    rows = [{"query": f"question {number}", "doc_id": f"d{number % 50}"} for number in range(200)]
    path = write_rows(tmp_path / "a.jsonl", rows)
    built = held_out_set(source(path), queries=8, passages=1000, documents=12)
    assert (len(built.queries), len(built.documents), len(built.judgements)) == (8, 12, 8)
    assert len({name for _, name, _ in built.judgements}) == 2, "all questions on a document, then on another"

    trained = questions(source(path, held_out=0.2))
    assert 100 < len(trained) < 195
    assert all(len([row for row in rows if row["doc_id"] == found.positives[0]]) == 4 for found in trained.values())
    left = {found.positives[0] for found in trained.values()}
    assert not left & {row["doc_id"] for row in rows if row["query"] not in trained}


def test_texts_without_questions_make_no_set(tmp_path: Path) -> None:
    path = write_rows(tmp_path / "a.jsonl", [{"text": "Only text."}])
    assert not held_out_set(source(path), queries=5, passages=5, documents=5).queries


def test_a_configurations_sources_become_folders(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_rows(tmp_path / "data" / "a.jsonl", ROWS)
    write_rows(tmp_path / "data" / "text.jsonl", [{"text": "Only text."}])
    changes = [f"sources.0.path={tmp_path / 'data'}", "sources.0.held_out=0.2", f"out={tmp_path / 'model'}"]
    options = [word for change in changes for word in ("--set", change)]
    out = tmp_path / "sets"
    assert main(["tutorial", *options, "--out", str(out), "--queries", "20", "--passages", "40"]) == 0
    (folder,) = out.iterdir()
    assert capsys.readouterr().out == f"{folder.name}: 40 documents, 20 queries\n"
    found = load_evaluation_set(folder)
    assert (len(found.documents), len(found.queries)) == (40, 20)
    assert not set(found.queries.values()) & asked(source(tmp_path / "data" / "a.jsonl", held_out=0.2))

    (tmp_path / "file").touch()
    assert main(["tutorial", *options, "--out", str(tmp_path / "file")]) == 1
    assert "cannot be written" in capsys.readouterr().err
    assert main(["none", "--out", str(out)]) == 1
    assert "none" in capsys.readouterr().err
