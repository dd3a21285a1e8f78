"""Metrics agree with their definitions; runs keep their ranks."""

import math
from pathlib import Path

import numpy as np
import pytest

from encoder.errors import InvalidInput
from encoder.evaluation.metrics import measure
from encoder.evaluation.runs import (
    RankedDocument,
    rank_documents,
    read_trec_run,
    strict_scores,
    write_trec_run,
)


def ranked(*document_ids: str) -> list[RankedDocument]:
    return [RankedDocument(document_id, 1 / rank) for rank, document_id in enumerate(document_ids, start=1)]


def test_graded_gains_are_trec_evals() -> None:
    qrels = {"q": {"a": 3, "b": 1, "c": 2, "z": 0}}
    found = measure(qrels, {"q": ranked("z", "b", "a", "x")})
    gained = 1 / math.log2(3) + 3 / math.log2(4)
    ideal = 3 / math.log2(2) + 2 / math.log2(3) + 1 / math.log2(4)
    assert found.mean("ndcg@10") == pytest.approx(gained / ideal)
    assert found.mean("mrr@10") == pytest.approx(1 / 2)
    assert found.mean("recall@100") == pytest.approx(2 / 3)


def test_cutoffs() -> None:
    names = [f"d{rank}" for rank in range(1, 121)]
    found = measure({"q": {"d11": 1, "d100": 1, "d101": 1}}, {"q": ranked(*names)})
    assert (found.mean("ndcg@10"), found.mean("mrr@10")) == (0, 0)
    assert found.mean("recall@100") == pytest.approx(2 / 3)


def test_an_unanswered_query_counts_as_zero() -> None:
    qrels = {"q1": {"a": 1}, "q2": {"a": 1}, "q3": {"a": 1}}
    found = measure(qrels, {"q1": ranked("a"), "q2": [], "unknown": ranked("a")})
    assert found.mean("ndcg@10") == found.mean("mrr@10") == found.mean("recall@100") == pytest.approx(1 / 3)
    assert measure(qrels, {}).mean("ndcg@10") == 0


def test_equal_scores_keep_the_runs_order() -> None:
    # trec_eval orders equal scores by descending id: it would put "b" first.
    run = {"q": [RankedDocument("a", 0.5), RankedDocument("b", 0.5)]}
    assert measure({"q": {"a": 1}}, run).mean("mrr@10") == 1
    assert measure({"q": {"b": 1}}, run).mean("mrr@10") == pytest.approx(1 / 2)


def test_strict_scores_fall_by_the_least_step() -> None:
    found = strict_scores([RankedDocument(name, score) for name, score in (("a", 0.5), ("b", 0.5), ("c", 0.1))])
    assert found[0] == 0.5
    assert found[1] == float(np.nextafter(np.float32(0.5), np.float32(0)))
    assert found[2] == pytest.approx(0.1)


def test_a_document_ranks_by_its_best_chunk() -> None:
    chunks = [("a", 0.9), ("b", 0.8), ("a", 0.7), ("c", 0.6), ("d", 0.5)]
    assert rank_documents(chunks, limit=3) == [
        RankedDocument("a", 0.9),
        RankedDocument("b", 0.8),
        RankedDocument("c", 0.6),
    ]


def test_trec_files_hold_ranks_and_falling_scores(tmp_path: Path) -> None:
    path = tmp_path / "run.txt"
    write_trec_run(path, {"q1": [RankedDocument("a", 0.5), RankedDocument("b", 0.5)], "q2": ranked("c")}, "tag")
    rows = [line.split() for line in path.read_text().splitlines()]
    assert [row[:4] + row[5:] for row in rows] == [
        ["q1", "Q0", "a", "1", "tag"],
        ["q1", "Q0", "b", "2", "tag"],
        ["q2", "Q0", "c", "1", "tag"],
    ]
    assert np.float32(rows[0][4]) > np.float32(rows[1][4])


def test_ids_that_a_trec_file_cannot_hold_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="'two words' holds white space"):
        write_trec_run(tmp_path / "run.txt", {"q": ranked("two words")}, "tag")
    with pytest.raises(InvalidInput, match="cannot be written"):
        write_trec_run(tmp_path / "no" / "run.txt", {"q": ranked("a")}, "tag")


def test_every_query_keeps_its_value() -> None:
    found = measure({"q1": {"a": 1}, "q2": {"a": 1}}, {"q2": ranked("b", "a"), "q1": ranked("a")})
    assert found.query_ids == ("q1", "q2")
    assert found.values["mrr@10"].tolist() == [1.0, 0.5]
    assert found.values["recall@10"].tolist() == [1.0, 1.0]


def test_a_run_that_was_written_reads_the_same(tmp_path: Path) -> None:
    run = {"q1": [RankedDocument("a", 0.5), RankedDocument("b", 0.5)], "q2": ranked("c", "d", "e")}
    write_trec_run(tmp_path / "run.txt", run, "tag")
    found = read_trec_run(tmp_path / "run.txt")
    assert {query_id: [document.document_id for document in ranked] for query_id, ranked in found.items()} == {
        "q1": ["a", "b"],
        "q2": ["c", "d", "e"],
    }


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("q1 Q0 a 1 0.5\n", "line 1 has 5 fields"),
        ("q1 Q0 a 1 0.5 t\nq1 Q0 b 2 much t\n", "line 2: score is 'much'; it must be a number"),
        ("q1 Q0 a 1 nan t\n", "score is 'nan'"),
        ("q1 Q0 a 1 0.5 t\nq1 Q0 a 2 0.4 t\n", "line 2: document 'a' occurs twice for query 'q1'"),
        ("\n", "holds no run"),
    ],
)
def test_a_broken_run_is_refused(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "run.txt").write_text(text)
    with pytest.raises(InvalidInput, match=message):
        read_trec_run(tmp_path / "run.txt")
