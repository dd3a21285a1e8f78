"""Files that are broken, or made to do harm: each is one error that says why, and the rest goes on."""

import io
import os
import sys
import zipfile
from pathlib import Path

import pytest
from PIL import Image
from pypdf import PdfWriter

from ingest.documents import Document
from ingest.loaders import load_documents
from ingest.loading.parsed import Unreadable
from ingest.loading.parsing import ParsingProcess
from ingest.receipts import LoadError
from tests.loading.files import load, make_docx, make_pdf, paragraph, the_document, the_error, write

MIB = 1024 * 1024


def zip_of(count: int, content: bytes) -> bytes:
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w", zipfile.ZIP_DEFLATED) as archive:
        for number in range(count):
            archive.writestr(f"word/{number}.xml", content)
    return data.getvalue()


def picture_pdf() -> bytes:
    data = io.BytesIO()
    Image.new("RGB", (20, 20), "red").save(data, "PDF")
    return data.getvalue()


def nested_mail(depth: int) -> bytes:
    begin = "".join(f"Content-Type: multipart/mixed; boundary=b{level}\n\n--b{level}\n" for level in range(depth))
    return (begin + "Content-Type: text/plain\n\ndeep\n").encode()


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.pdf", b"%PDF-1.7\nnothing of the kind", "is not a PDF file that can be read"),
        ("a.pdf", make_pdf("Text")[:400], "is not a PDF file that can be read"),
        ("a.pdf", b"\x89PNG\r\n\x1a\n" + b"\0" * 99, "is not a PDF file that can be read"),
        ("a.pdf", make_pdf("Text", password="secret"), "is protected by a password; save it without one."),
        ("a.pdf", picture_pdf(), "has no text: its pages are images; have their text recognized (OCR) first."),
        ("a.pdf", make_pdf("", ""), "has no text: its pages are images"),
        ("a.docx", b"PK no zip", "is not a Word file that can be read (File is not a zip file)"),
        ("a.docx", make_docx(paragraph("x"))[:-40], "is not a Word file that can be read"),
        ("a.docx", zip_of(3, b"<x/>"), "is not a Word file: it has no word/document.xml."),
        ("a.docx", b"\xd0\xcf\x11\xe0" + b"\0" * 600, "is protected by a password, or a .doc file"),
        ("a.docx", make_docx(""), "has no text."),
        ("a.docx", make_docx("<w:p>"), "is broken (ExpatError: mismatched tag"),
        ("a.docx", zip_of(10_001, b""), "is an archive of 10001 entries; the limit is 10000."),
        ("a.docx", zip_of(1, b"\0" * 9 * MIB), "times its size; the limit is 200 times."),
        ("a.docx", zip_of(3, b"\0" * 90 * MIB), f"unpacks to {3 * 90 * MIB} bytes; the limit is {256 * MIB}."),
        ("a.html", b"<html><script>text()</script><nav>Menu</nav></html>", "has no text; a page that a script fills"),
        ("a.html", b"<p>caf\xe9", "is not utf-8 (byte 6); convert it"),
        ("a.html", b"<meta charset=klingon><p>x", "names an encoding 'klingon' that is not known"),
        ("a.html", b"<meta charset=rot13><p>x", "names an encoding 'rot13' that is not known"),
        ("a.html", b"<div>" * 3000 + b"deep", "cannot be read to its end (Excessive depth in document: 2048)"),
        ("a.html", b"<p>" + b"\0" * 9, "is no web page (character 3 is NUL)"),
        ("a.eml", b"No headers here, but a line.\n", "has no headers of a message; it is not an e-mail."),
        ("a.eml", b"Subject: x\nContent-Type: image/png\n\nabc", "has no text; attachments are not read."),
        ("a.eml", b"Content-Type: text/plain; charset=klingon\n\nx", "names an encoding 'klingon' that is not known"),
        ("a.mbox", b"Subject: x\n\ntext\n", "is not a mailbox: its first line does not begin with 'From '."),
        ("a.txt", b"PK\3\4\x14\0\0\0", "is not text (byte 5 is NUL): it is binary, or UTF-16"),
        ("a.md", b"# caf\xe9", "is not UTF-8 (byte 5); convert it"),
        ("a.pdf", b"", "is empty; it holds no document."),
    ],
)  # fmt: skip
def test_a_file_that_cannot_be_read(tmp_path: Path, name: str, content: bytes, message: str) -> None:
    path = write(tmp_path / name, content)
    write(tmp_path / "z.txt", "good")
    bad, good = load(tmp_path)
    assert isinstance(bad, LoadError)
    assert (bad.source, bad.error.field) == (str(path), "text")
    assert str(bad.error).startswith(f"{path} ")
    assert message in str(bad.error)
    assert isinstance(good, Document)


@pytest.mark.parametrize(("name", "limit"), [("a.txt", 64 * MIB), ("a.html", 64 * MIB), ("a.pdf", 256 * MIB)])
def test_a_file_that_is_too_large_is_not_opened(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, limit: int
) -> None:
    path = write(tmp_path / name, "")
    os.truncate(path, 2 << 30)

    def opened(*_: object) -> None:
        raise AssertionError("it was opened")

    monkeypatch.setattr("pathlib.Path.open", opened)
    assert f"{name} has {2 << 30} bytes; the limit of" in (message := the_error(load(path)))
    assert message.endswith(f" is {limit}. Split it.")


def test_files_that_vanish_before_they_are_read(tmp_path: Path) -> None:
    for name in ("a.txt", "b.pdf", "c.csv"):
        write(tmp_path / name, "x")
    found = load_documents([tmp_path / "a.txt", tmp_path])
    next(found)
    found = load_documents([tmp_path])
    next(found)
    (tmp_path / "b.pdf").rename(tmp_path / "gone")
    (tmp_path / "c.csv").unlink()
    for name in ("b.pdf", "c.csv"):
        assert the_error([next(found)]) == f"{tmp_path / name} cannot be read (No such file or directory)."


def test_a_deeply_nested_message_costs_no_more_than_itself(tmp_path: Path) -> None:
    found = load(write(tmp_path / "a.eml", nested_mail(5000)), write(tmp_path / "b.html", "<p>good"))
    assert "RecursionError" in the_error(found[:1])
    assert the_document(found[1:]).text == "good"


def test_a_message_of_a_mailbox_that_is_too_large(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ingest.loading.mailbox.CONTAINER_BYTES_MAX", 2000)
    monkeypatch.setattr("ingest.loaders.CONTAINER_BYTES_MAX", 2000)
    mail = "From x\nSubject: a\n\n{}\n\n"
    path = write(tmp_path / "a.mbox", mail.format("one") + mail.format("x" * 5000) + mail.format("two\n" * 9))
    one, error, two = load(path)
    assert the_document([one]).text == "one"
    assert the_error([error]) == f"{path}:2 has 5014 bytes; the limit of a message is 2000."
    assert the_document([two]).text.startswith("two\ntwo")


def pdf_of_many_operators(count: int) -> bytes:
    writer = PdfWriter(io.BytesIO(make_pdf("x")), full=True)
    content = writer.pages[0]["/Contents"].get_object()
    content.set_data(b"BT /F1 12 Tf 20 200 Td " + b"(word ) Tj 1 0 Td " * count + b"ET")
    data = io.BytesIO()
    writer.write(data)
    return data.getvalue()


def test_a_file_that_takes_too_long_ends_its_reader_alone(tmp_path: Path) -> None:
    slow = write(tmp_path / "a.pdf", pdf_of_many_operators(300_000))
    quick = write(tmp_path / "b.pdf", make_pdf("Quick"))
    with ParsingProcess(time_s=1) as parser:
        with slow.open("rb") as stream, pytest.raises(Unreadable, match="could not be read within 1 s; split it"):
            parser.parse("pdf", stream)
        parser._time_s = 60
        with quick.open("rb") as stream:
            assert parser.parse("pdf", stream).text == "Quick"


def test_a_file_that_needs_too_much_memory_ends_its_reader_alone() -> None:
    with ParsingProcess(memory_bytes=300 * MIB) as parser:
        assert parser.parse("html", io.BytesIO(b"<p>x")).text == "x"
        assert parser._child
        first = parser._child
        with pytest.raises(Unreadable, match=r"needs more than 314572800 bytes of memory to be read; split it"):
            parser.parse("html", io.BytesIO(b"<p>x" * 3_000_000))
        assert first.poll() is not None
        assert parser.parse("html", io.BytesIO(b"<p>y")).text == "y"


def test_a_reader_that_dies_is_replaced(tmp_path: Path) -> None:
    write(tmp_path / "a.pdf", make_pdf("One"))
    with ParsingProcess() as parser, (tmp_path / "a.pdf").open("rb") as stream:
        assert parser.parse("pdf", stream).text == "One"
        assert parser._child
        first = parser._child.pid
        parser._child.kill()
        parser._child.wait()
        assert parser.parse("pdf", stream).text == "One"
        assert parser._child.pid != first


def test_a_reader_that_dies_at_a_file_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", "/bin/false")
    message = the_error(load(write(tmp_path / "a.pdf", make_pdf("One"))))
    assert "a.pdf ended the process that reads such files (exit status 1); it is broken" in message


def test_a_reader_serves_a_bounded_number_of_files(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ingest.loading.parsing.FILES_MAX", 2)
    pids = []
    with ParsingProcess() as parser:
        for _ in range(4):
            assert parser.parse("html", io.BytesIO(b"<p>x")).text == "x"
            assert parser._child
            pids.append(parser._child.pid)
    assert pids[0] == pids[1] != pids[2] == pids[3]


def test_a_missing_extra_is_named_at_each_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hidden = tmp_path / "hidden"
    for module in ("pypdf", "mammoth", "lxml"):
        write(hidden / f"{module}.py", f"raise ModuleNotFoundError('hidden', name='{module}')")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(hidden), *sys.path]))
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    names = {"a.pdf": "pypdf", "b.docx": "mammoth", "c.html": "lxml", "d.parquet": "pyarrow"}
    for name in names:
        write(tmp_path / "documents" / name, "x")
    found = load(tmp_path / "documents")
    for error, (name, module) in zip(found, names.items(), strict=True):
        expected = f"{name} needs {module} to be read; install it: pip install 'mamba-search[documents]'."
        assert the_error([error]).endswith(expected)


def test_no_module_of_the_current_folder_is_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path / "pypdf.py", "raise SystemExit(3)")
    monkeypatch.chdir(tmp_path)
    assert the_document(load(write(tmp_path / "a.pdf", make_pdf("Text")))).text == "Text"
