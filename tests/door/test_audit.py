"""The audit log: what stands in it, where it goes, and that it stops nothing."""

from __future__ import annotations

import errno
import io
import json
import logging
import os
from pathlib import Path
from typing import Any

import pytest
from mambasearch.v1 import ingest_pb2, search_pb2

from services.door import audit
from services.door.audit import AuditEntry, AuditLog
from services.door.principal import Role
from tests.security.secured import secured

ENTRY = AuditEntry("key:1", "S/M", "t", "d", "ok", "OK", 1.5, "r")


def lines_of(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_each_call_and_each_document_is_noted(tmp_path: Path) -> None:
    with secured(tmp_path, audit_log=str(tmp_path / "audit")) as services:
        caller = services.caller(Role.SEARCH, Role.INGEST, tenants=["acme"])
        caller.put("a", "some words")
        caller.put("b", "")
        caller.call("Search", search_pb2.SearchRequest(query="words"), (("x-request-id", "mine-1"),))
        caller.refusal("Search", search_pb2.SearchRequest(query="words", tenant="bolt"))
        caller.refusal("GetDocument", ingest_pb2.GetDocumentRequest(document_id="none"))
        services.with_credential("ms_wrong").refusal("Search", search_pb2.SearchRequest(query="words"))
    who = f"key:{str(caller.key).split('_')[1]}"
    ingest = lines_of(tmp_path / "audit" / "audit-IngestService.jsonl")
    search = lines_of(tmp_path / "audit" / "audit-SearchService.jsonl")
    keys = {"time", "who", "method", "tenant", "thing", "outcome", "code", "duration_ms", "request_id"}
    assert all(set(line) == keys for line in ingest + search)
    seen = [(line["who"], line["tenant"], line["thing"], line["outcome"], line["code"]) for line in ingest]
    assert seen == [
        (who, "acme", "a", "ingested", "OK"),
        (who, "acme", "", "ok", "OK"),
        (who, "acme", "b", "rejected", "INVALID_ARGUMENT"),
        (who, "acme", "", "ok", "OK"),
        (who, "acme", "none", "failed", "NOT_FOUND"),
    ]
    assert [(line["who"], line["outcome"], line["code"]) for line in search] == [
        (who, "ok", "OK"),
        (who, "refused", "PERMISSION_DENIED"),
        ("", "refused", "UNAUTHENTICATED"),
    ]
    assert search[0]["request_id"] == "mine-1"
    assert search[0]["method"] == "mambasearch.v1.SearchService/Search"
    assert (tmp_path / "audit" / "audit-SearchService.jsonl").stat().st_mode & 0o077 == 0


def test_a_file_is_put_aside_at_its_size(tmp_path: Path) -> None:
    log = AuditLog("p", str(tmp_path), bytes_max=1000, files=3)
    for _ in range(60):
        log.note(ENTRY)
    log.close()
    files = sorted(tmp_path.iterdir())
    assert {"audit-p.jsonl.1", "audit-p.jsonl.2"} <= {file.name for file in files}
    assert len(files) <= 3
    assert all(file.stat().st_size < 1200 for file in files)
    assert all(lines_of(file) for file in files)


def test_standard_error_may_be_the_place() -> None:
    stream = io.StringIO()
    log = AuditLog("p", "-", stderr=stream)
    log.note(ENTRY)
    log.close()
    assert json.loads(stream.getvalue())["thing"] == "d"


def test_a_full_disk_loses_lines_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    write, states = os.write, iter(["good", "full", "half", "good", "good"])

    def writing(number: int, data: bytes) -> int:
        state = next(states)
        if state == "full":
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return write(number, data[: len(data) // 2] if state == "half" else data)

    monkeypatch.setattr(audit.os, "write", writing)
    log = AuditLog("p", str(tmp_path))
    with caplog.at_level(logging.ERROR):
        for _ in range(5):
            log.note(ENTRY)
        log.close()
    assert log.lost == 2
    assert "lines of the audit log were lost so far: No space left on device" in caplog.text
    good, torn, *others = (tmp_path / "audit-p.jsonl").read_text().splitlines()
    assert not torn.endswith("}")
    assert [json.loads(line)["thing"] for line in (good, *others)] == ["d", "d", "d"]


def test_more_than_can_be_written_is_counted(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(audit, "LINES_WAITING_MAX", 3)
    blocked = io.StringIO()
    log = AuditLog("p", "-", stderr=blocked)
    for _ in range(5000):
        log.note(ENTRY)
    log.close()
    assert log.lost + len(blocked.getvalue().splitlines()) == 5000


def test_where_there_is_no_log_nothing_is_kept() -> None:
    log = AuditLog("p", "")
    assert not log.is_kept
    log.note(ENTRY)
    log.close()
