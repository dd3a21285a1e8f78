"""Tenants cannot see each other: in no method, by no id, and not by the words of a refusal."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from mambasearch.v1 import ingest_pb2, jobs_pb2, search_pb2

from services.door.principal import Role
from tests.security.secured import INGEST_SERVICE, SEARCH_SERVICE, Caller, Secured, secured

SECRET = "heliotrope zeppelin"
OK, DENIED, MISSING = "OK", "PERMISSION_DENIED", "NOT_FOUND"


@dataclass(frozen=True)
class Scene:
    """Two tenants with documents, jobs and dead letters, and who works for whom."""

    services: Secured
    folder: Path
    anna: Caller  # of acme
    bert: Caller  # of bolt
    both: Caller
    admin: Caller
    job_id: str  # of acme
    letter_id: str  # of acme


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    folder = tmp_path_factory.mktemp("tenants")
    (folder / "rows.jsonl").write_text('{"id": "row", "text": "words of a row"}\n{"id": "bad"}\n')
    with secured(folder) as services:
        roles = (Role.SEARCH, Role.INGEST)
        anna, bert = services.caller(*roles, tenants=["acme"]), services.caller(*roles, tenants=["bolt"])
        both = services.caller(*roles, tenants=["acme", "bolt"])
        admin = services.caller(Role.ADMIN, tenants=None)
        assert anna.put("plan", f"The {SECRET} starts at dawn.", team="balloons").chunk_count == 1
        assert bert.put("plan", "A plan of bolts and nuts.").chunk_count == 1
        job = anna.job(str(folder / "rows.jsonl"), request_id="nightly")
        letters = anna.call("ListDeadLetters", jobs_pb2.ListDeadLettersRequest())
        assert [letter.tenant for letter in letters.dead_letters] == ["acme"]
        yield Scene(services, folder, anna, bert, both, admin, job.job_id, letters.dead_letters[0].dead_letter_id)


def requests_for(method: Any, tenant: str) -> Any:
    """Make a request of a method that names a tenant wherever it can."""
    request = method.input_type._concrete_class()
    if "tenant" in method.input_type.fields_by_name:
        request.tenant = tenant
    elif "requests" in method.input_type.fields_by_name:
        request.requests.add(query=SECRET, tenant=tenant)
    elif "request" in method.input_type.fields_by_name:
        request.request.tenant = tenant
    else:
        return None
    for field, value in (("query", SECRET), ("document_id", "plan"), ("text", "words")):
        if field in method.input_type.fields_by_name:
            setattr(request, field, value)
    return request


METHODS = [method for service in (SEARCH_SERVICE, INGEST_SERVICE) for method in service.methods]
NAMING = [method for method in METHODS if requests_for(method, "x") is not None]
OF_JOBS = ("GetJob", "WatchJob", "CancelJob", "ReplayDeadLetters")


def test_every_method_is_looked_at_here() -> None:
    assert {method.name for method in METHODS} == {method.name for method in NAMING} | set(OF_JOBS)


@pytest.mark.parametrize("method", NAMING, ids=lambda method: method.name)
def test_another_tenant_is_refused_whether_it_exists_or_not(scene: Scene, method: Any) -> None:
    answers = set()
    for tenant in ("acme", "none_such", "default", "../acme", "acme'--", "*"):
        request = requests_for(method, tenant)
        if method.name == "IngestDocuments":
            # A stream refuses the one document, and goes on.
            (answer,) = scene.bert.call(method.name, request)
            code, words = answer.error.code, answer.error.message
            assert (code, answer.outcome) == (7, ingest_pb2.INGEST_OUTCOME_REJECTED)
        else:
            code, words = scene.bert.refusal(method.name, request)
            assert code == DENIED, words
        answers.add((code, words.replace(repr(tenant), "NAME")))
    assert len(answers) == 1
    assert SECRET not in str(answers)


def test_what_is_asked_for_without_a_tenant_is_of_the_callers_only_one(scene: Scene) -> None:
    assert [name for name, _ in scene.anna.found(SECRET)] == ["plan"]
    assert scene.bert.found(SECRET) == []
    assert scene.admin.found(SECRET) == []  # who sees all and names none means the default tenant
    assert [name for name, _ in scene.admin.found(SECRET, "acme")] == ["plan"]
    assert [name for name, _ in scene.both.found(SECRET, "acme")] == ["plan"]
    code, words = scene.both.refusal("Search", search_pb2.SearchRequest(query=SECRET))
    assert (code, words) == ("INVALID_ARGUMENT", "tenant is empty, and this caller has several; name one of them.")


def test_a_retrieval_holds_nothing_of_another_tenant(scene: Scene) -> None:
    found = scene.bert.call("Retrieve", search_pb2.RetrieveRequest(query=f"{SECRET} plan"))
    assert "zeppelin" not in str(found)
    assert "zeppelin" in str(scene.anna.call("Retrieve", search_pb2.RetrieveRequest(query=SECRET)))


def test_a_document_of_the_same_id_is_another(scene: Scene) -> None:
    theirs = scene.anna.call("GetDocument", ingest_pb2.GetDocumentRequest(document_id="plan"))
    own = scene.bert.call("GetDocument", ingest_pb2.GetDocumentRequest(document_id="plan"))
    assert own.content_hash != theirs.content_hash
    scene.bert.put("mine", "Only of bolt.")
    scene.bert.call("DeleteDocument", ingest_pb2.DeleteDocumentRequest(document_id="mine"))
    assert scene.anna.refusal("DeleteDocument", ingest_pb2.DeleteDocumentRequest(document_id="mine"))[0] == MISSING
    assert [name for name, _ in scene.anna.found(SECRET)] == ["plan"]
    missing = scene.bert.refusal("GetDocument", ingest_pb2.GetDocumentRequest(document_id="row"))
    assert missing == (MISSING, "There is no document 'row' in the index.")


def test_lists_hold_the_callers_own(scene: Scene) -> None:
    documents = scene.bert.call("ListDocuments", ingest_pb2.ListDocumentsRequest()).documents
    assert [one.document_id for one in documents] == ["plan"]
    assert not scene.bert.call("ListJobs", jobs_pb2.ListJobsRequest()).jobs
    assert not scene.bert.call("ListDeadLetters", jobs_pb2.ListDeadLettersRequest()).dead_letters
    asked = jobs_pb2.ListDeadLettersRequest(job_id=scene.job_id)
    assert not scene.bert.call("ListDeadLetters", asked).dead_letters
    assert [job.job_id for job in scene.anna.call("ListJobs", jobs_pb2.ListJobsRequest()).jobs] == [scene.job_id]
    assert len(scene.admin.call("ListJobs", jobs_pb2.ListJobsRequest()).jobs) >= 1


@pytest.mark.parametrize("method", OF_JOBS)
def test_a_job_of_another_tenant_is_none(scene: Scene, method: str) -> None:
    (found,) = [one for one in METHODS if one.name == method]
    make = found.input_type._concrete_class
    theirs = scene.bert.refusal(method, make(job_id=scene.job_id))
    none = scene.bert.refusal(method, make(job_id="0" * 32))
    assert theirs == (MISSING, f"There is no job {scene.job_id!r}.")
    assert none == (MISSING, f"There is no job {'0' * 32!r}.")
    assert scene.anna.refusal("GetJob", jobs_pb2.GetJobRequest(job_id=scene.job_id))[0] == OK


def test_letters_of_another_tenant_are_replayed_by_nobody_else(scene: Scene) -> None:
    own = scene.bert.job(str(scene.folder / "rows.jsonl"))
    asked = jobs_pb2.ReplayDeadLettersRequest(job_id=own.job_id, dead_letter_ids=[scene.letter_id])
    assert scene.bert.refusal("ReplayDeadLetters", asked)[0] == MISSING
    letters = scene.anna.call("ListDeadLetters", jobs_pb2.ListDeadLettersRequest()).dead_letters
    assert [letter.replay_job_id for letter in letters] == [""]
    for letter in scene.bert.call("ListDeadLetters", jobs_pb2.ListDeadLettersRequest()).dead_letters:
        assert letter.tenant == "bolt"


def test_a_request_id_of_another_tenant_is_free(scene: Scene) -> None:
    source = str(scene.folder / "rows.jsonl")
    made = scene.bert.job(source, request_id="nightly")
    assert made.job_id != scene.job_id
    assert made.request_id == "nightly"
    assert scene.bert.job(source, request_id="nightly").job_id == made.job_id
    assert scene.anna.job(source, request_id="nightly").job_id == scene.job_id


def test_a_job_of_all_tenants_is_its_makers_alone(scene: Scene) -> None:
    (scene.folder / "mixed.jsonl").write_text('{"id": "m", "text": "mixed", "tenant": "acme"}\n{"id": "b"}\n')
    job = scene.admin.job(str(scene.folder / "mixed.jsonl"))
    default = scene.services.caller(Role.INGEST, tenants=["default"])
    assert default.refusal("GetJob", jobs_pb2.GetJobRequest(job_id=job.job_id))[0] == MISSING
    assert job.job_id not in {one.job_id for one in default.call("ListJobs", jobs_pb2.ListJobsRequest()).jobs}
    asked = jobs_pb2.ReplayDeadLettersRequest(job_id=job.job_id)
    assert default.refusal("ReplayDeadLetters", asked)[0] == MISSING
    assert scene.admin.refusal("GetJob", jobs_pb2.GetJobRequest(job_id=job.job_id))[0] == OK


def test_a_job_reads_no_document_of_another_tenant(scene: Scene) -> None:
    (scene.folder / "foreign.jsonl").write_text('{"id": "foreign", "text": "words", "tenant": "acme"}\n')
    job = scene.bert.job(str(scene.folder / "foreign.jsonl"))
    assert (job.progress.ingested, job.progress.failed) == (0, 1)
    asked = ingest_pb2.GetDocumentRequest(document_id="foreign")
    assert scene.anna.refusal("GetDocument", asked)[0] == MISSING


def test_pages_of_another_tenant_do_not_go_on(scene: Scene) -> None:
    scene.anna.put("second", "More of acme.")
    page = scene.anna.call("ListDocuments", ingest_pb2.ListDocumentsRequest(page_size=1))
    assert page.next_page_token
    asked = ingest_pb2.ListDocumentsRequest(page_size=1, page_token=page.next_page_token)
    code, words = scene.bert.refusal("ListDocuments", asked)
    assert (code, "page_token is not one" in words) == ("INVALID_ARGUMENT", True)


def test_a_deletion_touches_the_callers_own_alone(scene: Scene) -> None:
    before = len(scene.anna.call("ListDocuments", ingest_pb2.ListDocumentsRequest()).documents)
    job = scene.bert.call("DeleteByFilter", jobs_pb2.DeleteByFilterRequest(all_documents=True))
    ended = scene.bert.call("WatchJob", jobs_pb2.WatchJobRequest(job_id=job.job_id))[-1]
    assert ended.progress.deleted >= 1
    assert not scene.bert.call("ListDocuments", ingest_pb2.ListDocumentsRequest()).documents
    assert len(scene.anna.call("ListDocuments", ingest_pb2.ListDocumentsRequest()).documents) == before
    scene.bert.put("plan", "A plan of bolts and nuts.")


def test_one_stream_may_hold_documents_of_several_of_the_callers_tenants(scene: Scene) -> None:
    sent = [
        ingest_pb2.IngestDocumentsRequest(document_id="s", text="stream words", tenant=tenant)
        for tenant in ("acme", "third", "bolt", "")
    ]
    outcomes = [(one.outcome, one.error.code) for one in scene.both.call("IngestDocuments", sent)]
    ingested, rejected = ingest_pb2.INGEST_OUTCOME_INGESTED, ingest_pb2.INGEST_OUTCOME_REJECTED
    assert outcomes == [(ingested, 0), (rejected, 7), (ingested, 0), (rejected, 3)]
