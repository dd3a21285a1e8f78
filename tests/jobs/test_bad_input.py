"""Everything bad that a job can meet, all in one: each is one dead letter with its reason, and the rest goes on."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from ingest import files
from ingest.jobs.states import JobState
from ingest.receipts import Stage
from ingest.sources.policy import SourcePolicy
from tests.job_running import create, ended, letters_of, make_runner, running
from tests.jobs.conftest import Parts
from tests.loading.files import make_docx, make_pdf, paragraph, write

pytestmark = pytest.mark.filterwarnings("ignore:Payload indexes have no effect in the local Qdrant")

MIB = 1024 * 1024
TEXT_BYTES_MAX = 4 * MIB  # in place of 64 MiB: ten million tokens would take a test minutes

ROWS = {
    "good": {"text": "A good row."},
    "same": {"text": "The first of its id."},
    "same ": {"id": "same", "text": "The second of its id."},
    "wrong type": {"text": "x", "metadata": {"year": {"in": 2020}}},
    "nobody's": {"text": "x", "tenant": "stranger"},
    "no text": {"title": "x"},
    "no id": {"id": "a\0b", "text": "NUL in an id."},
}
# Of each dead letter: where it was read, the field at fault, and a part of its reason.
EXPECTED = {
    "broken.pdf": ("text", "is not a PDF file that can be read"),
    "secret.pdf": ("text", "is protected by a password; save it without one."),
    "bomb.docx": ("text", "times its size; the limit is 200 times"),
    "huge.txt": ("text", f"has {2 << 30} bytes; the limit of plain text is"),
    "long.txt": ("text", f"has more than {TEXT_BYTES_MAX} bytes, the limit of a document; split it."),
    "binary.txt": ("text", "is not text (byte 5 is NUL): it is binary"),
    "latin.txt": ("text", "is not UTF-8 (byte 3)"),
    "nul.txt": ("text", "is not text (byte 1 is NUL)"),
    "empty.html": ("text", "has no text; a page that a script fills"),
    "loop.txt": ("paths", "cannot be read (Too many levels of symbolic links)"),
    "gone.txt": ("paths", "cannot be read (No such file or directory)"),
    "rows.jsonl:3": ("document_id", "has the same document_id, 'same', as"),
    "rows.jsonl:4": ("metadata.year", "metadata.year is of type dict; it must be a string, number"),
    "rows.jsonl:5": ("tenant", "tenant 'stranger' does not exist"),
    "rows.jsonl:6": ("text", "text is missing; give the document's text."),
    "rows.jsonl:7": ("document_id", "document_id holds NUL (at character 1), which no text has; remove it."),
}


def write_everything(folder: Path) -> None:
    write(folder / "good.txt", "A good file.")
    write(folder / "zzz.md", "# Good\n\nThe last one is good, too.")
    write(folder / "broken.pdf", b"%PDF-1.7\nnothing of the kind")
    write(folder / "secret.pdf", make_pdf("Text", password="secret"))
    write(folder / "bomb.docx", make_docx(paragraph("x"), more={"word/x.xml": b"\0" * 9 * MIB}))
    write(folder / "huge.txt", "")
    os.truncate(folder / "huge.txt", 2 << 30)
    write(folder / "long.txt", b"token " * (TEXT_BYTES_MAX // 6 + 1))
    write(folder / "binary.txt", b"PK\3\4\x14\0\0\0")
    write(folder / "latin.txt", b"caf\xe9 au lait")
    write(folder / "nul.txt", b"a\0b")
    write(folder / "empty.html", "<html><script>text()</script></html>")
    (folder / "loop.txt").symlink_to(folder / "loop.txt")
    write(folder / "gone.txt", "It vanishes before it is read.")
    rows = [json.dumps({"id": name, **row}) for name, row in ROWS.items()]
    write(folder / "rows.jsonl", "\n".join(rows) + "\n")


async def test_everything_bad_is_a_dead_letter(parts: Parts, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_everything(tmp_path)
    monkeypatch.setattr("ingest.loaders.TEXT_BYTES_MAX", TEXT_BYTES_MAX)
    opening = files.open_file

    def open_or_lose(path: Path) -> object:
        if path.name == "gone.txt":
            path.unlink()
        return opening(path)

    monkeypatch.setattr(files, "open_file", open_or_lose)
    job = await create(parts.store, tmp_path)
    async with running(make_runner(parts.journal.database, parts.worker)):
        job = await ended(parts.store, job)
    letters = {Path(letter.place).name: letter for letter in await letters_of(parts.store, job)}
    assert sorted(letters) == sorted(EXPECTED)
    for place, (field, reason) in EXPECTED.items():
        assert letters[place].field == field, place
        assert reason in letters[place].reason, place
        assert (letters[place].stage, letters[place].attempts, letters[place].code) == (Stage.READ, 1, 3)
    assert letters["rows.jsonl:3"].document_id == "same"
    assert (job.state, job.counts.ingested, job.counts.failed) == (JobState.SUCCEEDED, 4, len(EXPECTED))
    records, _ = await parts.index.list_records("default", "", 100)
    assert {record.document_id for record in records} == {"good.txt", "zzz.md", "good", "same"}


async def test_what_may_not_be_read_is_a_dead_letter_for_each_source(parts: Parts, tmp_path: Path) -> None:
    write(tmp_path / "open" / "a.txt", "For all.")
    write(tmp_path / "closed" / "b.txt", "For nobody.")
    (tmp_path / "open" / "link.txt").symlink_to(tmp_path / "closed" / "b.txt")
    policy = SourcePolicy(frozenset(("file", "http")), frozenset(("localhost",)), (tmp_path / "open",))
    sources = (
        tmp_path / "open",
        tmp_path / "closed",
        f"{tmp_path}/open/../closed/*.txt",
        "http://localhost:9/x.txt",
        "http://example.org/x.txt",
        "s3://bucket/x.txt",
    )
    job = await create(parts.store, *sources)
    async with running(make_runner(parts.journal.database, parts.worker, policy=policy)):
        job = await ended(parts.store, job)
    assert (job.counts.ingested, job.counts.failed) == (1, 6)
    reasons = {letter.place: letter.reason for letter in await letters_of(parts.store, job)}
    assert "leads out of the folders allowed here" in reasons[str(tmp_path / "closed")]
    assert "leads out of the folders allowed here" in reasons[str(sources[2])]
    assert "an address of this machine" in reasons["http://localhost:9/x.txt"]
    assert "not among the hosts and buckets allowed" in reasons["http://example.org/x.txt"]
    assert "is read by 's3', but allowed here is file, http" in reasons["s3://bucket/x.txt"]
    assert "is a link that leads out of" in reasons[str(tmp_path / "open" / "link.txt")]


async def test_a_job_of_a_tenant_takes_no_document_of_another(parts: Parts, tmp_path: Path) -> None:
    rows = [{"id": "mine", "text": "x"}, {"id": "too", "text": "y", "tenant": "acme"}, {"text": "z", "tenant": "other"}]
    path = write(tmp_path / "rows.jsonl", "\n".join(map(json.dumps, rows)))
    job = await create(parts.store, path, tenant="acme")
    async with running(make_runner(parts.journal.database, parts.worker)):
        job = await ended(parts.store, job)
    assert (job.counts.ingested, job.counts.failed) == (2, 1)
    (letter,) = await letters_of(parts.store, job)
    assert (letter.tenant, letter.field) == ("acme", "tenant")
    assert "tenant is 'other', but the job is 'acme''s" in letter.reason
