"""Tables and JSON lines as documents: fields, metadata with their types, and what is refused."""

import json
from datetime import UTC, date, datetime
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from ingest.documents import Document, MetadataValue
from ingest.receipts import LoadError
from tests.loading.files import load, the_document, the_error, write

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)


def test_csv(tmp_path: Path) -> None:
    rows = (
        "\ufeffID,Title,Text,Publication Date:datetime,pages:int,score:float,open:bool,tags:list,note,tenant\r\n"
        'a,T,"two\nlines, and ""quotes""",2026-03-01T13:00+01:00,7,0.5,True,x; y,,one\r\n'
        "\r\n"
        ",,three,2026-03-01,,,,,Müller,\r\n"
    )
    path = write(tmp_path / "sub" / "rows.csv", rows)
    metadata: dict[str, MetadataValue] = {"publication_date": NOON, "pages": 7, "score": 0.5, "open": True}
    assert load(tmp_path) == [
        Document("a", 'two\nlines, and "quotes"', "T", f"{path}:1", metadata | {"tags": ("x", "y")}, "one"),
        Document(
            "sub/rows.csv:3",
            "three",
            source=f"{path}:3",
            metadata={"publication_date": datetime(2026, 3, 1, tzinfo=UTC), "note": "Müller"},
        ),
    ]


def test_tsv(tmp_path: Path) -> None:
    found = load(write(tmp_path / "rows.tsv", "document_id\ttext\tyear\na\tone, two\t2026\n"))
    assert the_document(found) == Document("a", "one, two", source=f"{tmp_path}/rows.tsv:1", metadata={"year": "2026"})


@pytest.mark.parametrize(
    ("row", "field", "message"),
    [
        (b"x,y", "text", "rows.csv:2 has 2 cells, but the header has 4; correct it"),
        (b"x,y,z,1,2", "text", "rows.csv:2 has 5 cells"),
        (b"x,,1,", "text", "rows.csv:2: text is missing"),
        (b"x,y,many,", "metadata.pages", "rows.csv:2: metadata.pages is 'many', which is no int"),
        (b"x,y,%d," % 2**63, "metadata.pages", "metadata.pages is beyond 64 bits"),
        (b"x,y,,no/name", "tenant", "rows.csv:2: tenant 'no/name' is not 1 to 64 letters"),
        (b"x,caf\xe9,1,", "text", "rows.csv:2 is not text in UTF-8 (byte 5 of line 3)"),
        (b"x,y\0,1,", "text", "rows.csv:2 is not text in UTF-8 (byte 3 of line 3 is NUL)"),
        (b'x,"y" z,1,', "text", "rows.csv:2 is no row of a table ("),
    ],
)
def test_a_bad_row_of_csv_is_one_error_and_the_rest_goes_on(
    tmp_path: Path, row: bytes, field: str, message: str
) -> None:
    path = write(tmp_path / "rows.csv", b"id,text,pages:int,tenant\n1,one,1,\n" + row + b"\n3,three,3,\n")
    before, error, after = load(path)
    assert isinstance(before, Document)
    assert isinstance(error, LoadError)
    assert (error.source, error.error.field) == (f"{path}:2", field)
    assert message in str(error.error)
    assert isinstance(after, Document)
    assert after.document_id == "3"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"id,body\n1,x\n", "rows.csv has no column text in its first line"),
        (b"text,a,A\nx,1,2\n", "rows.csv has two columns 'a'; rename one"),
        (b"text,\nx,1\n", "rows.csv: column 2 has no name in its header"),
        (b"text,a:date\nx,1\n", "column 2 is of a type 'date', not str, int, float, bool, datetime, list"),
        (b"text," + b",".join(b"c%d" % number for number in range(99)), "has 100 columns; the limit is"),
        (b"text,\xff\n", "rows.csv is not text in UTF-8 (byte 5 of line 1)"),
        ("text\nx\n".encode("utf-16"), "rows.csv is not text in UTF-8 (byte 3 of line 1 is NUL)"),
        (b"\x89PNG\r\n\x1a\n\0\0\0", "rows.csv is not text in UTF-8 (byte 0 of line 1)"),
        (b"", "rows.csv is empty; it holds no document"),
    ],
)
def test_a_csv_file_with_another_header(tmp_path: Path, content: bytes, message: str) -> None:
    assert message in the_error(load(write(tmp_path / "rows.csv", content)))


def test_a_quote_without_an_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path / "rows.csv", 'text\n"one"\n"two\n' + "x\n" * 100)
    first, error = load(path)
    assert isinstance(first, Document)
    assert the_error([error]).startswith(f"{path}:2 is no row of a table (unexpected end of data)")
    monkeypatch.setattr("ingest.loading.csv_rows.ROW_BYTES_MAX", 50)
    assert "rows.csv:2 and what follows cannot be cut into rows (one has more than 50 bytes" in the_error(
        load(path)[1:]
    )


def make_table(**more: pa.Array) -> pa.Table:
    return pa.table({"id": [1, 2], "text": ["one", "two"], **more})


def test_parquet(tmp_path: Path) -> None:
    table = make_table(
        Title=pa.array(["T", None], pa.large_string()),
        Year=pa.array([2026, None], pa.int16()),
        score=pa.array([0.5, 1.0], pa.float32()),
        open=[True, False],
        day=pa.array([date(2026, 3, 1), None]),
        at=pa.array([NOON, None], pa.timestamp("ns", "Europe/Berlin")),
        plain=pa.array([NOON.replace(tzinfo=None), None], pa.timestamp("us")),
        tags=[["a", "b"], []],
        kind=pa.array(["x", "y"]).dictionary_encode(),
        nothing=pa.nulls(2),
    )
    path = tmp_path / "rows.parquet"
    pq.write_table(table, path, row_group_size=1)
    first, second = load(path)
    metadata: dict[str, MetadataValue] = {"year": 2026, "score": 0.5, "open": True, "day": NOON.replace(hour=0)}
    metadata |= {"at": NOON, "plain": NOON, "tags": ("a", "b"), "kind": "x"}
    assert first == Document("1", "one", "T", f"{path}:1", metadata)
    assert second == Document(
        "2", "two", source=f"{path}:2", metadata={"score": 1.0, "open": False, "tags": (), "kind": "y"}
    )
    assert all(type(first.metadata[name]) is type(value) for name, value in metadata.items())


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"vector": [[0.5], [0.5]]}, "column 'vector' is of type list<element: double>, which metadata cannot have"),
        ({"a b": [1, 2], "a_b": [1, 2]}, "has two columns 'a_b'; rename one"),
        ({"+": [1, 2]}, "has a column '+'; give it a name of letters"),
        ({"source": [1, 2]}, "column 'source' is of type int64, not a string"),
        ({f"c{number}": [1, 2] for number in range(99)}, "has 101 columns; the limit is"),
    ],
)
def test_parquet_of_other_columns(tmp_path: Path, more: dict[str, pa.Array], message: str) -> None:
    pq.write_table(make_table(**more), tmp_path / "rows.parquet")
    assert message in the_error(load(tmp_path / "rows.parquet"))


def test_bad_rows_of_parquet(tmp_path: Path) -> None:
    bad = pa.array([b"\xff", b"ok"]).view(pa.string())
    pq.write_table(make_table(title=bad, n=pa.array([1, 2**63], pa.uint64())), tmp_path / "rows.parquet")
    first, second = load(tmp_path / "rows.parquet")
    assert the_error([first]) == f"{tmp_path}/rows.parquet:1: title is not UTF-8 (byte 0); write it anew."
    assert the_error([second]) == f"{tmp_path}/rows.parquet:2: metadata.n is beyond 64 bits."


def test_broken_parquet(tmp_path: Path) -> None:
    path = tmp_path / "rows.parquet"
    assert "is not Parquet that can be read, after row 0" in the_error(load(write(path, b"PAR1 no PAR1")))
    pq.write_table(pa.table({"body": ["x"]}), path)
    assert "has no column text" in the_error(load(path))
    pq.write_table(pa.table({"text": ["word " * 1000] * 10}), path, compression="none", use_dictionary=False)
    data = bytearray(path.read_bytes())
    data[4:40] = b"\xff" * 36  # the header of the first page
    assert "is not Parquet that can be read, after row 0" in the_error(load(write(path, bytes(data))))


def test_json_lines_with_metadata_and_tenant(tmp_path: Path) -> None:
    metadata = {"n": 1, "f": 0.5, "b": False, "s": "2026-03-01", "t": "2026-03-01T13:00:00+01:00", "l": ["a", "b"]}
    path = write(tmp_path / "rows.jsonl", json.dumps({"id": "a", "text": "x", "metadata": metadata, "tenant": "one"}))
    expected = metadata | {"t": NOON, "l": ("a", "b")}
    assert load(path) == [Document("a", "x", source=f"{path}:1", metadata=expected, tenant="one")]
    assert the_document(load(write(path, '{"text": "x", "metadata": null, "tenant": null}'))).metadata == {}


@pytest.mark.parametrize(
    ("fields", "field", "message"),
    [
        ({"metadata": ["a"]}, "metadata", 'metadata is ["a"]; it must be an object'),
        ({"metadata": {"a": None}}, "metadata.a", "rows.jsonl:1: metadata.a is of type NoneType"),
        ({"metadata": {"a": {"b": 1}}}, "metadata.a", "metadata.a is of type dict"),
        ({"metadata": {"a": ["x", 1]}}, "metadata.a", "metadata.a has a value of type int at 1; all must be strings"),
        ({"metadata": {"A b": 1}}, "metadata.A b", "metadata has a field 'A b'; a name is"),
        ({"metadata": {"a": float("nan")}}, "metadata.a", "is not a finite number"),
        ({"tenant": "a b"}, "tenant", "rows.jsonl:1: tenant 'a b' is not 1 to 64 letters"),
        ({"tenant": 5}, "tenant", "tenant is 5; it must be a string"),
    ],
)
def test_json_lines_with_metadata_of_another_kind(
    tmp_path: Path, fields: dict[str, object], field: str, message: str
) -> None:
    found = load(write(tmp_path / "rows.jsonl", json.dumps({"text": "x", **fields})))
    assert message in the_error(found)
    assert isinstance(found[0], LoadError)
    assert found[0].error.field == field


FRONT = """---
title: "The title"
Date: 2026-03-01
weight: 7
rating: 4.5
draft: false
author: Ann Müller
tags: [a, 'b c']
categories:
  - x
  - y
# a comment
empty:
---
# Heading

Text.
"""


def test_front_matter(tmp_path: Path) -> None:
    document = the_document(load(write(tmp_path / "a.md", FRONT)))
    assert (document.title, document.text) == ("The title", "# Heading\n\nText.\n")
    assert document.metadata == {
        "path": "a.md",
        "date": datetime(2026, 3, 1, tzinfo=UTC),
        "weight": 7,
        "rating": 4.5,
        "draft": False,
        "author": "Ann Müller",
        "tags": ("a", "b c"),
        "categories": ("x", "y"),
    }


@pytest.mark.parametrize(
    "front",
    [
        "a:\n  b: 1",
        "a: {b: 1}",
        "a: |\n  text",
        "a: 'x",
        "a: &b c",
        "just words",
        "a: 1\na: 2",
        "a: b # c",
        "a: " + "x" * 2000,
        "\n".join(f"a{number}: 1" for number in range(61)),
    ],
)
def test_front_matter_that_is_not_simple_stays_text(tmp_path: Path, front: str) -> None:
    text = f"---\n{front}\n---\n# Heading\n"
    document = the_document(load(write(tmp_path / "a.md", text)))
    assert (document.title, document.text, document.metadata) == ("Heading", text, {"path": "a.md"})


def test_a_line_is_no_front_matter(tmp_path: Path) -> None:
    for text in ("---\n\nText after a line.\n", "--- a: 1 ---\n", "---\na: 1\n"):
        assert the_document(load(write(tmp_path / "a.md", text))).text == text
