"""No name leads out of the folders that may be read, and no id becomes a path."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from mambasearch.v1 import ingest_pb2, jobs_pb2

from ingest.sources.policy import SourcePolicy
from services.door.principal import Role
from tests.security.secured import Caller, secured

SECRET = "password zeppelin"


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, Caller]]:
    folder = tmp_path_factory.mktemp("paths")
    allowed = folder / "allowed"
    (allowed / "inner").mkdir(parents=True)
    (folder / "allowed-too").mkdir()
    for file in (folder / "secret.txt", folder / "allowed-too" / "secret.txt"):
        file.write_text(SECRET)
    (allowed / "good.txt").write_text("good words")
    (allowed / "link.txt").symlink_to(folder / "secret.txt")
    (allowed / "folder").symlink_to(folder / "allowed-too")
    policy = replace(SourcePolicy(), schemes=frozenset({"file"}), folders=(allowed,))
    with secured(folder, policy=policy) as services:
        yield allowed, services.caller(Role.INGEST, Role.SEARCH)


@pytest.mark.parametrize(
    "source",
    [
        "{allowed}/../secret.txt",
        "{allowed}/inner/../../secret.txt",
        "{allowed}/%2e%2e/secret.txt",
        "{allowed}/link.txt",
        "{allowed}/folder/secret.txt",
        "{allowed}-too/secret.txt",
        "{allowed}/../*.txt",
        "/etc/passwd",
        "/proc/self/environ",
        "file://{allowed}/../secret.txt",
        "file:///etc/passwd",
        "file://localhost/etc/passwd",
        "../secret.txt",
        "https://127.0.0.1/secret.txt",
        "http://169.254.169.254/latest/meta-data",
        "git+file://{allowed}/../secret.txt",
    ],
)
def test_a_source_outside_of_the_folders_is_not_read(scene: tuple[Path, Caller], source: str) -> None:
    allowed, caller = scene
    job = caller.job(source.format(allowed=allowed))
    letters = caller.call("ListDeadLetters", jobs_pb2.ListDeadLettersRequest(job_id=job.job_id)).dead_letters
    assert (job.progress.ingested, len(letters) >= 1) == (0, True)
    assert not any(SECRET in letter.reason for letter in letters)
    assert caller.found(SECRET) == []


def test_what_may_be_read_is(scene: tuple[Path, Caller]) -> None:
    allowed, caller = scene
    job = caller.job(str(allowed / "good.txt"))
    assert (job.progress.ingested, job.progress.failed) == (1, 0)


@pytest.mark.parametrize(
    "document_id", ["../../etc/passwd", "/etc/passwd", "..", "a/../../b", "file:///etc/passwd", "C:\\x", "%2e%2e/%00"]
)
def test_a_document_id_is_a_name_and_no_path(scene: tuple[Path, Caller], document_id: str) -> None:
    allowed, caller = scene
    files = {path for path in allowed.parent.rglob("*") if "data" not in path.parts}
    assert caller.put(document_id, "words of an odd name").outcome == ingest_pb2.INGEST_OUTCOME_INGESTED
    found = caller.call("GetDocument", ingest_pb2.GetDocumentRequest(document_id=document_id))
    assert found.document_id == document_id
    assert {path for path in allowed.parent.rglob("*") if "data" not in path.parts} == files
    caller.call("DeleteDocument", ingest_pb2.DeleteDocumentRequest(document_id=document_id))


@pytest.mark.parametrize("tenant", ["../x", "a/b", "..", "a\0b", "%2e", "a b", "é"])
def test_a_tenant_is_a_plain_name(scene: tuple[Path, Caller], tenant: str, tmp_path: Path) -> None:
    _, caller = scene
    asked = ingest_pb2.ListDocumentsRequest(tenant=tenant)
    assert caller.refusal("ListDocuments", asked)[0] == "PERMISSION_DENIED"
