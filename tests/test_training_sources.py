"""Training data as files: every format read as its makers lay it out, every fault told by file, line and field."""

import gzip
from pathlib import Path

import pytest

from encoder.errors import InvalidInput
from encoder.training.source_formats import read_source
from encoder.training.sources import Item, Passage, Question, SourceConfig, expand
from tests.training_sets import write_rows


def read(**settings: object) -> list[Item]:
    return list(read_source(SourceConfig.model_validate({"name": "s"} | settings)))


def questions(items: list[Item]) -> list[Question]:
    return [item for item in items if isinstance(item, Question)]


@pytest.mark.parametrize("suffix", [".jsonl", ".jsonl.xz", ".jsonl.gz"])
def test_our_rows_hold_their_passages(tmp_path: Path, suffix: str) -> None:
    rows = [
        {
            "query": "what is it",
            "positive": "A thing.",
            "title": "Things",
            "doc_id": "d1",
            "negatives": ["No.", "Nor."],
        },
        {"query": "and this", "positive": "Another.", "negatives": [{"title": "T", "text": "Wrong."}]},
    ]
    found = questions(read(format="jsonl", path=write_rows(tmp_path / f"a{suffix}", rows)))
    assert [question.query for question in found] == ["what is it", "and this"]
    assert found[0].positives == [Passage("A thing.", "Things", group="d1")]
    assert found[0].negatives == [Passage("No."), Passage("Nor.")]
    assert found[1].negatives == [Passage("Wrong.", "T")]


def test_our_rows_name_documents_beside_them(tmp_path: Path) -> None:
    write_rows(tmp_path / "a.docs.jsonl.xz", [{"doc_id": "d1", "title": "T", "text": "Long."}])
    items = read(format="jsonl", path=write_rows(tmp_path / "a.jsonl.xz", [{"query": "q", "doc_id": "d1"}]))
    assert items[0] == Passage("Long.", "T", key="d1")
    assert questions(items)[0].positives == ["d1"]


def test_rows_of_text_are_passages_or_queries(tmp_path: Path) -> None:
    path = write_rows(tmp_path / "a.jsonl", [{"text": "One.", "title": "T"}, {"text": "Two."}])
    assert read(format="jsonl", path=path) == [Passage("One.", "T"), Passage("Two.")]
    assert [question.query for question in questions(read(format="jsonl", path=path, texts="queries"))] == [
        "One.",
        "Two.",
    ]
    assert len(read(format="jsonl", path=path, limit=1)) == 1


def test_tevatron_rows_hold_or_name_their_passages(tmp_path: Path) -> None:
    held = write_rows(
        tmp_path / "train.jsonl.gz",
        [
            {
                "query_id": "1",
                "query": "what is rba",
                "positive_passages": [{"docid": "7", "title": "RBA", "text": "A bank."}],
                "negative_passages": [{"docid": "8", "text": "A river."}],
            }
        ],
    )
    found = questions(read(format="tevatron", path=held))
    assert found[0].positives == [Passage("A bank.", "RBA")]
    assert found[0].negatives == [Passage("A river.")]
    corpus = write_rows(
        tmp_path / "corpus.jsonl", [{"docid": "7", "text": "A bank."}, {"docid": 8, "text": "A river."}]
    )
    row = {"query_id": "1", "query_text": "q", "positive_document_ids": ["7"], "negative_document_ids": [8]}
    named = read(format="tevatron", path=write_rows(tmp_path / "named.jsonl", [row]), corpus=corpus)
    assert [item.key for item in named if isinstance(item, Passage)] == ["7", "8"]
    assert (questions(named)[0].positives, questions(named)[0].negatives) == (["7"], ["8"])
    with pytest.raises(InvalidInput, match=r"named\.jsonl line 1 names its passages by positive_document_ids; give"):
        read(format="tevatron", path=tmp_path / "named.jsonl")


def test_loco_files_are_read_by_task_and_without_the_papers_that_have_no_text(tmp_path: Path) -> None:
    documents = [
        {"pid": "qasper_title_Passage_0", "passage": "Long text.", "dataset": "qasper_title"},
        {"pid": "qasper_title_Passage_1", "passage": None, "dataset": "qasper_title"},
        {"pid": "qmsum_Passage_0", "passage": "A meeting.", "dataset": "qmsum"},
    ]
    asked = [
        {"qid": f"{task}_Query_{n}", "query": f"{task} {n}", "answer_pids": [f"{task}_Passage_{n}"], "dataset": task}
        for task, n in (("qasper_title", 0), ("qasper_title", 1), ("qmsum", 0))
    ]
    write_rows(tmp_path / "documents" / "all_test.jsonl", documents)
    write_rows(tmp_path / "queries" / "all_test.jsonl", asked)
    where: dict[str, object] = {"format": "loco", "path": tmp_path / "queries", "corpus": tmp_path / "documents"}
    assert [question.query for question in questions(read(**where))] == ["qasper_title 0", "qmsum 0"]
    only = read(**where, split="qmsum")
    assert only[0] == Passage("A meeting.", key="qmsum_Passage_0")
    assert len(only) == 2


def write_beir(folder: Path, qrels: str, name: str = "qrels/train.tsv") -> Path:
    write_rows(
        folder / "corpus.jsonl",
        [
            {"_id": "d1", "title": "T", "text": "One."},
            {"_id": "d2", "text": "Two."},
            {"_id": "d3", "title": "", "text": " "},
        ],
    )
    write_rows(folder / "queries.jsonl", [{"_id": "q1", "text": "first"}, {"_id": "q2", "text": "second"}])
    (folder / name).parent.mkdir(exist_ok=True)
    (folder / name).write_text(qrels, encoding="utf-8")
    return folder


def test_beir_folders_give_the_queries_of_their_split(tmp_path: Path) -> None:
    folder = write_beir(tmp_path / "set", "query-id\tcorpus-id\tscore\nq1\td1\t1\nq1\td2\t0\nq2\td2\t0\n")
    items = read(format="beir", path=folder)
    assert [item.key for item in items if isinstance(item, Passage)] == ["d1", "d2", "d3"]
    (only,) = questions(items)
    assert (only.query, only.positives, only.negatives) == ("first", ["d1"], ["d2"])
    with pytest.raises(InvalidInput, match=r"set has no qrels/dev\.tsv; give a folder in BEIR layout"):
        read(format="beir", path=folder, split="dev")
    write_beir(folder, "q9\td1\t1\n")
    with pytest.raises(InvalidInput, match=r"train\.tsv judges the query 'q9', which .*queries\.jsonl lacks"):
        read(format="beir", path=folder)


MALFORMED = [
    ("jsonl", '{"query": "a", "positive": "b"}\n{"query": \n', r"line 2 is not JSON"),
    ("jsonl", "[1]\n", r"line 1 is not a JSON object"),
    ("jsonl", '{"query": "a"}\n', r"line 1: the query has no positive; give positive, or doc_id and a \.docs\.jsonl"),
    ("jsonl", '{"query": " ", "positive": "b"}\n', r"line 1: query is empty"),
    ("jsonl", '{"query": 3, "positive": "b"}\n', r"line 1: query is 3; it must be a string"),
    ("jsonl", '{"query": "a", "positive": ""}\n', r"line 1: positive is empty"),
    ("jsonl", '{"query": "a", "positive": "b", "negatives": "c"}\n', r"line 1: negatives is \"c\"; it must be a list"),
    ("jsonl", '{"query": "a", "positive": "b", "negatives": [1]}\n', r"line 1: negatives holds 1; each must be a text"),
    ("jsonl", '{"title": "a"}\n', r"line 1 has neither query nor text"),
    ("tevatron", '{"query": "a", "positive_passages": []}\n', r"line 1: the query has no positive; positive_passages"),
    (
        "tevatron",
        '{"query": "a", "positive_passages": [{"docid": 1}]}\n',
        r"line 1, positive_passages: text is missing",
    ),
    ("tevatron", '{"positive_passages": [{"text": "a"}]}\n', r"line 1: query is missing"),
]


@pytest.mark.parametrize(("kind", "rows", "message"), MALFORMED)
def test_a_malformed_row_is_named(tmp_path: Path, kind: str, rows: str, message: str) -> None:
    path = tmp_path / "bad.jsonl"
    path.write_text(rows, encoding="utf-8")
    with pytest.raises(InvalidInput, match=r"bad\.jsonl " + message):
        read(format=kind, path=path)


def test_files_that_end_too_soon_are_named(tmp_path: Path) -> None:
    whole = gzip.compress(b'{"text": "a"}\n' * 1000)
    (tmp_path / "cut.jsonl.gz").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(InvalidInput, match=r"cut\.jsonl\.gz is not a whole gz file"):
        read(format="jsonl", path=tmp_path / "cut.jsonl.gz")
    (tmp_path / "latin.jsonl").write_bytes(b'{"text": "caf\xe9"}\n')
    with pytest.raises(InvalidInput, match=r"latin\.jsonl line \d is not UTF-8"):
        read(format="jsonl", path=tmp_path / "latin.jsonl")
    with pytest.raises(InvalidInput, match="does not exist"):
        read(format="tevatron", path=tmp_path / "none.jsonl")


def test_a_folder_of_rows_is_a_source_a_file(tmp_path: Path) -> None:
    write_rows(tmp_path / "b.jsonl", [{"text": "x"}])
    write_rows(tmp_path / "a.jsonl.xz", [{"query": "q", "doc_id": "d"}])
    write_rows(tmp_path / "a.docs.jsonl.xz", [{"doc_id": "d", "text": "x"}])
    found = expand([SourceConfig(name="all", format="jsonl", path=tmp_path)])
    assert [(source.name, source.path.name) for source in found] == [("all-a", "a.jsonl.xz"), ("all-b", "b.jsonl")]
    with pytest.raises(InvalidInput, match="holds the name 'all-b' 2 times"):
        expand([*found, found[1]])
    (tmp_path / "empty").mkdir()
    with pytest.raises(InvalidInput, match="holds no file"):
        expand([SourceConfig(name="all", format="jsonl", path=tmp_path / "empty")])


def test_settings_that_mean_nothing_to_a_format_are_refused(tmp_path: Path) -> None:
    for settings, message in (
        ({"format": "loco"}, "needs corpus"),
        ({"format": "beir", "corpus": "x"}, "corpus belongs"),
        ({"format": "jsonl", "split": "train"}, "split belongs"),
        ({"format": "jsonl", "name": "a/b"}, "name"),
    ):
        with pytest.raises(ValueError, match=message):
            SourceConfig.model_validate({"name": "s", "path": tmp_path} | settings)
