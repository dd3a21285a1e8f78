"""Files into documents, and what is said of those that cannot be."""

from __future__ import annotations

import io
import json
import os
from pathlib import Path

import pytest

from encoder.errors import InvalidInput
from ingest.documents import Document
from ingest.expected import Expected, expect
from ingest.loaders import load_documents
from ingest.loading.kinds import BYTES_MAX, Kind
from ingest.receipts import LoadError


def write(path: Path, content: str | bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def load(*paths: Path | str, stdin: bytes | None = None) -> list[Document | LoadError]:
    stream = None if stdin is None else io.BytesIO(stdin)
    return list(load_documents([Path(path) for path in paths], stream))


def ids(found: list[Document | LoadError]) -> list[str]:
    return [item.document_id if isinstance(item, Document) else f"error in {item.source}" for item in found]


def the_error(found: list[Document | LoadError]) -> LoadError:
    (error,) = found
    assert isinstance(error, LoadError)
    return error


def test_a_folder_is_read_in_the_order_of_names_without_hidden_files(tmp_path: Path) -> None:
    for name in ("b.txt", "a/z.md", "a/b/c.TXT", "a.txt", ".hidden.txt", ".git/x.txt", "image.png", "README"):
        write(tmp_path / name, f"Text of {name}")
    found = load(tmp_path)
    assert ids(found) == ["a/b/c.TXT", "a/z.md", "a.txt", "b.txt"]
    assert isinstance(found[2], Document)
    source = (tmp_path / "a.txt").as_posix()
    assert found[2] == Document("a.txt", "Text of a.txt", title="a", source=source, metadata={"path": "a.txt"})


def test_a_file_named_by_itself_is_read_whatever_its_suffix(tmp_path: Path) -> None:
    assert ids(load(write(tmp_path / "deep" / "notes.rst", "x"))) == ["notes.rst"]


@pytest.mark.parametrize(
    ("text", "title"),
    [
        ("# The title\n\ntext", "The title"),
        ("intro\n\n##  Second level ##\r\n# First", "Second level"),
        ("no heading", "page"),
        ("#hashtag\n\n#\n", "page"),
        ("# " + "x" * 3000, "page"),
    ],
)
def test_markdown_is_titled_by_its_first_heading(tmp_path: Path, text: str, title: str) -> None:
    (found,) = load(write(tmp_path / "page.md", text))
    assert isinstance(found, Document)
    assert (found.title, found.text) == (title, text)


def test_text_is_kept_as_it_is_but_for_a_byte_order_mark(tmp_path: Path) -> None:
    (found,) = load(write(tmp_path / "a.txt", b"\xef\xbb\xbf# one\r\ntwo\r\x01\n"))
    assert isinstance(found, Document)
    assert (found.text, found.title) == ("# one\r\ntwo\r\x01\n", "a")


def test_json_lines(tmp_path: Path) -> None:
    rows = [
        {"document_id": "a", "title": "T", "text": "one", "source": "S", "more": [1]},
        {"_id": "b", "text": "two", "title": None},
        {"id": 3, "text": "three"},
        {"text": "four"},
    ]
    path = write(tmp_path / "sub" / "rows.jsonl", "\ufeff" + "\n\n".join(json.dumps(row) for row in rows) + "\n \n")
    place = path.as_posix()
    assert load(tmp_path) == [
        Document("a", "one", title="T", source="S"),
        Document("b", "two", source=f"{place}:3"),
        Document("3", "three", source=f"{place}:5"),
        Document("sub/rows.jsonl:7", "four", source=f"{place}:7"),
    ]


@pytest.mark.parametrize(
    ("line", "field", "message"),
    [
        (b"{", "text", r"rows\.jsonl:2 is not JSON \(.*column 2\)"),
        (b"[1]", "text", "is not a JSON object"),
        (b"{}", "text", "text is missing"),
        (b'{"text": 5}', "text", "text is 5; it must be a string"),
        (b'{"text": "x", "title": ["t"]}', "title", r'title is \["t"\]; it must be a string'),
        (b'{"text": "x", "id": true}', "id", "id is true"),
        (b'{"text": "\xff"}', "text", "is not UTF-8"),
        (b"[" * 100_000, "text", "is not JSON that can be read"),
        (b'{"text": "x", "n": ' + b"1" * 5000 + b"}", "text", "is not JSON that can be read"),
    ],
)
def test_a_bad_line_is_one_error_and_the_rest_goes_on(tmp_path: Path, line: bytes, field: str, message: str) -> None:
    path = write(tmp_path / "rows.jsonl", b"\n".join([b'{"id": 1, "text": "x"}', line, b'{"id": 3, "text": "x"}']))
    before, error, after = load(path)
    assert isinstance(error, LoadError)
    assert error.error.field == field
    assert error.source == f"{path.as_posix()}:2"
    with pytest.raises(InvalidInput, match=message):
        raise error.error
    assert before == Document("1", "x", source=f"{path.as_posix()}:1")
    assert after == Document("3", "x", source=f"{path.as_posix()}:3")


def test_a_line_or_a_file_that_is_too_long(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ingest.json_lines.LINE_BYTES_MAX", 50)
    monkeypatch.setitem(BYTES_MAX, Kind.TEXT, 50)
    monkeypatch.setattr("ingest.loaders.TEXT_BYTES_MAX", 50)
    rows = [
        json.dumps({"id": name, "text": text}) for name, text in (("a", "short"), ("b", "x" * 3_000_000), ("c", ""))
    ]
    found = load(write(tmp_path / "rows.jsonl", "\n".join(rows)))
    assert ids(found) == ["a", f"error in {(tmp_path / 'rows.jsonl').as_posix()}:2", "c"]
    error = the_error(load(write(tmp_path / "a.txt", "x" * 51)))
    assert str(error.error).endswith("a.txt has 51 bytes; the limit of plain text is 50. Split it.")
    error = the_error(load("-", stdin=b"x" * 51))
    assert str(error.error) == "stdin has more than 50 bytes, the limit of a document; split it."
    assert len(load(write(tmp_path / "b.txt", "x" * 50))) == 1


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"ab\xff\xfecd", r"is not UTF-8 \(byte 2\); convert it"),
        ("héllo".encode("utf-16"), r"is not text \(byte 3 is NUL\): it is binary, or UTF-16"),
        (b"\x7fELF\x02\x01\x01\0\0", r"is not text \(byte 7 is NUL\)"),
        (b"", "is empty; it holds no document"),
        (b" \n\t", "is empty or only white space"),
    ],
)
def test_a_file_that_holds_no_text(tmp_path: Path, content: bytes, message: str) -> None:
    write(tmp_path / "bad.txt", content)
    write(tmp_path / "good.txt", "x")
    bad, good = load(tmp_path)
    assert isinstance(bad, LoadError)
    assert isinstance(good, Document)
    with pytest.raises(InvalidInput, match=message):
        raise bad.error


def test_paths_that_lead_nowhere(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    write(tmp_path / "other" / "a.png", "x")
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    found = load(*(tmp_path / name for name in ("missing", "empty", "other", "pipe", "loop")))
    messages = [str(item.error) for item in found if isinstance(item, LoadError)]
    assert len(messages) == len(found) == 5
    assert "missing cannot be read (No such file or directory)" in messages[0]
    assert "empty holds no file to read (.csv, .docx, .eml, .htm, .html, .jsonl, " in messages[1]
    assert "other holds no file to read" in messages[2]
    assert "pipe is neither a file nor a folder" in messages[3]
    assert "loop cannot be read" in messages[4]
    assert str(the_error(load(write(tmp_path / "none.jsonl", ""))).error).endswith("is empty; it holds no document.")


def test_nothing_outside_the_folder_is_read(tmp_path: Path) -> None:
    write(tmp_path / "outside" / "secret.txt", "x")
    inside = tmp_path / "inside"
    write(inside / "a.txt", "x")
    for name in ("secret.txt", "secret.png"):
        (inside / name).symlink_to(tmp_path / "outside" / "secret.txt")
    (inside / "folder").symlink_to(tmp_path / "outside")
    found = load(inside)
    assert ids(found) == ["a.txt", f"error in {inside / 'folder'}", f"error in {inside / 'secret.txt'}"]
    for error in found[1:]:
        assert isinstance(error, LoadError)
        assert f"{error.source} is a link that leads out of {inside}" in str(error.error)
    assert expect([inside]) == Expected(documents=3, text_bytes=1)
    (tmp_path / "link").symlink_to(inside)  # a folder given by a link is read
    assert ids(load(tmp_path / "link"))[0] == "a.txt"
    assert ids(load(inside / "secret.txt")) == ["secret.txt"]


def test_links_within_the_folder_lead_to_no_folder_twice(tmp_path: Path) -> None:
    write(tmp_path / "a" / "one.txt", "x")
    (tmp_path / "a" / "up").symlink_to(tmp_path)
    (tmp_path / "b").symlink_to(tmp_path / "a")
    (tmp_path / "linked.txt").symlink_to(tmp_path / "a" / "one.txt")
    (tmp_path / "broken.txt").symlink_to(tmp_path / "nothing")
    (tmp_path / "broken.png").symlink_to(tmp_path / "nothing")
    assert ids(load(tmp_path)) == ["a/one.txt", f"error in {tmp_path / 'broken.txt'}", "linked.txt"]


def test_a_file_that_vanishes_between_finding_and_reading(tmp_path: Path) -> None:
    write(tmp_path / "a.txt", "x")
    write(tmp_path / "b.txt", "x")
    found = load_documents([tmp_path / "a.txt", tmp_path / "b.txt"])
    assert isinstance(next(found), Document)
    (tmp_path / "b.txt").unlink()
    assert "b.txt cannot be read" in str(the_error(list(found)).error)


def test_the_second_document_of_an_id_is_an_error(tmp_path: Path) -> None:
    first, second = write(tmp_path / "a" / "x.txt", "one"), write(tmp_path / "b" / "x.txt", "two")
    rows = [{"id": "x.txt", "text": "t"}, {"id": "x.txt", "text": "t", "tenant": "other"}, {"id": "x.txt", "text": "t"}]
    third = write(tmp_path / "rows.jsonl", "\n".join(map(json.dumps, rows)))
    found = load(first, second, third, first)
    assert ids(found) == [
        "x.txt",
        f"error in {second}",
        f"error in {third}:1",
        "x.txt",
        f"error in {third}:3",
        f"error in {first}",
    ]
    errors = [item.error for item in found if isinstance(item, LoadError)]
    assert {error.field for error in errors} == {"document_id"}
    assert str(errors[0]) == f"{second} has the same document_id, 'x.txt', as {first}; give it another."
    assert str(errors[3]) == f"{first} was read before, as 'x.txt'; give it once."


def test_standard_input() -> None:
    assert load("-", stdin=b"Plain\ntext") == [Document("stdin", "Plain\ntext", source="stdin")]
    assert load("-", stdin=b'{"a": 1}\n') == [Document("stdin", '{"a": 1}\n', source="stdin")]
    found = load("-", stdin=b'{"id": "a", "text": "one"}\n{"text": "two"}\nno')
    assert found[:2] == [Document("a", "one", source="stdin:1"), Document("stdin:2", "two", source="stdin:2")]
    assert isinstance(found[2], LoadError)
    assert "stdin is empty" in str(the_error(load("-", stdin=b"")).error)
    with pytest.raises(InvalidInput, match="standard input"):
        load("-")


def test_what_is_to_come(tmp_path: Path) -> None:
    write(tmp_path / "a.txt", "12345")
    write(tmp_path / "d.png", "1234567")
    texts = [tmp_path, tmp_path / "a.txt", tmp_path / "missing", f"{tmp_path}/*.txt"]
    assert expect(texts) == Expected(documents=4, text_bytes=15)
    write(tmp_path / "b" / "c.jsonl", "123")
    assert expect(texts) == Expected(documents=None, text_bytes=18)
    pdf = write(tmp_path / "other" / "e.pdf", "1")
    assert expect([tmp_path / "a.txt", pdf]) == Expected(documents=2, text_bytes=None)
    assert expect([tmp_path / "b", pdf]) == Expected()
    for unknown in ("-", "https://example.org/a.txt"):
        assert expect([tmp_path / "a.txt", unknown]) == Expected()


def test_only_one_document_is_in_memory(tmp_path: Path) -> None:
    for number in range(50):
        write(tmp_path / f"{number:03}.txt", "x")
    found = load_documents([tmp_path])
    next(found)
    for number in range(1, 50):
        (tmp_path / f"{number:03}.txt").unlink()
    assert isinstance(next(found), LoadError)  # it had not been read ahead
