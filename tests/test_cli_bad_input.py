"""What may be wrong with files, in one run of the command: each is one refusal with its reason, the rest goes in."""

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as parquet
import pytest

from ingest import loaders
from ingest.documents import TEXT_BYTES_MAX
from ingest.files import FoundFile
from services.cli.app import run
from tests.fakes import FakeEncoder
from tests.loading.files import make_docx, make_pdf, write
from tests.loading.test_bad_files import MIB, zip_of
from tests.serving import services_running
from tests.tiny_model import save_tiny_model

# Names of files, what they hold, and of each refusal the field and a part of its reason.
BAD: dict[str, tuple[bytes, list[tuple[str, str]]]] = {
    "broken.pdf": (make_pdf("Text")[:400], [("text", "is not a PDF file that can be read")]),
    "locked.pdf": (make_pdf("Text", password="secret"), [("text", "is protected by a password")]),
    "locked.docx": (b"\xd0\xcf\x11\xe0" + b"\0" * 600, [("text", "is protected by a password, or a .doc file")]),
    "bomb.docx": (zip_of(1, b"\0" * 9 * MIB), [("text", "times its size; the limit is 200 times")]),
    "program.txt": (b"\x7fELF\x02\x01\x01\0\0", [("text", "is not text (byte 7 is NUL)")]),
    "latin.txt": (b"caf\xe9", [("text", "is not UTF-8 (byte 3)")]),
    "script.html": (b"<html><script>text()</script></html>", [("text", "has no text; a page that a script fills")]),
    "empty.md": (b" \n", [("text", "is empty or only white space")]),
    "rows.jsonl": (
        b'{"document_id": "one", "text": "A row that is good."}\n'
        b'{"document_id": "one", "text": "The same id again."}\n'
        b'{"document_id": "two", "text": "NUL \\u0000 inside"}\n'
        b'{"document_id": "three", "text": "x", "metadata": {"year": {"from": 1}}}\n'
        b'{"document_id": "four", "text": "x", "tenant": "no such/tenant"}\n'
        b'{"document_id": "five", "text": "x", "title": 7}\n'
        b'{"document_id": "six", "text": \n',
        [
            ("document_id", "has the same document_id, 'one'"),
            ("text", "NUL"),
            ("metadata.year", "metadata.year"),
            ("tenant", "tenant"),
            ("title", "title"),
            ("text", "is not JSON"),
        ],
    ),
    "rows.csv": (b"id,text,year:int\nseven,x,soon\n", [("metadata.year", "soon")]),
}
GOOD = ("good.txt", "good.pdf", "good.docx", "one")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    root = tmp_path / "documents"
    for name, (content, _) in BAD.items():
        write(root / name, content)
    write(root / "good.txt", "A good text.")
    write(root / "good.pdf", make_pdf("A good page."))
    write(root / "good.docx", make_docx("<w:p><w:r><w:t>A good file.</w:t></w:r></w:p>"))
    os.truncate(write(root / "sparse.txt", ""), 2 << 30)
    (root / "loop.txt").symlink_to(root / "loop.txt")
    (root / "sub").mkdir()
    (root / "sub" / "up").symlink_to(root)
    parquet.write_table(pa.table({"id": ["eight"], "text": ["x"], "blob": [[1.5]]}), root / "rows.parquet")
    write(root / "vanishes.txt", "It was found.")
    check_size = loaders._check_size

    def vanishing(file: FoundFile) -> None:
        check_size(file)
        if file.name == "vanishes.txt":
            Path(file.source).unlink(missing_ok=True)

    monkeypatch.setattr(loaders, "_check_size", vanishing)
    return root


OTHERS = {
    "sparse.txt": ("text", f"has {2 << 30} bytes; the limit of plain text is {TEXT_BYTES_MAX}"),
    "loop.txt": ("paths", "Too many levels of symbolic links"),
    "vanishes.txt": ("paths", "cannot be read (No such file or directory)"),
    "rows.parquet": ("metadata.blob", "blob"),
}


@contextmanager
def way(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """Arguments of the command for an index of this process, or for a service."""
    if kind == "service":
        with services_running(tmp_path / "data", FakeEncoder) as targets:
            yield ["--target", targets.ingest]
        return
    monkeypatch.setenv("MAMBASEARCH_MODEL", str(save_tiny_model(tmp_path / "model")))
    monkeypatch.setenv("MAMBASEARCH_ENCODER_THREADS", "1")
    yield ["--data-dir", str(tmp_path / "data")]


@pytest.mark.parametrize("kind", ["process", "service"])
def test_each_is_one_refusal(
    kind: str, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    failures = tmp_path / "failures.jsonl"
    with way(kind, tmp_path, monkeypatch) as arguments:
        assert run(["ingest", str(folder), "--failures", str(failures), *arguments]) == 1
    rows = [json.loads(line) for line in failures.read_text().splitlines()]
    expected = [(name, *each) for name, (_, refusals) in BAD.items() for each in refusals]
    expected += [(name, *each) for name, each in OTHERS.items()]
    for name, field, reason in expected:
        found = [row for row in rows if row["source"].startswith(f"{folder}/{name}") and reason in row["reason"]]
        assert len(found) == 1, (name, reason, rows)
        assert found[0]["field"] == field
    assert len(rows) == len(expected)
    shown = capsys.readouterr()
    assert shown.out.startswith(f"{len(GOOD)} documents ingested")
    assert f"0 unchanged, {len(expected)} refused, in " in shown.out
