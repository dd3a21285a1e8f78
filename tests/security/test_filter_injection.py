"""What callers write into filters, ids and tokens is data: no query language reads it, and reaches no others."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator

import pytest
from mambasearch.v1 import filter_pb2, ingest_pb2, jobs_pb2, metadata_pb2

from services.door.principal import Role
from tests.security.secured import Caller, secured

HOSTILE = [
    "' OR '1'='1",
    '" OR ""="',
    "'; DROP TABLE jobs; --",
    "%",
    "_",
    "*",
    "\\",
    ".*",
    '{"match": {"any": ["acme"]}}',
    "${jndi:ldap://x}",
    "{{7*7}}",
    "$(id)",
    "\u202e",
    "tenant",
]


@pytest.fixture(scope="module")
def callers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Caller, Caller]]:
    with secured(tmp_path_factory.mktemp("injection")) as services:
        anna = services.caller(Role.INGEST, Role.SEARCH, tenants=["acme"])
        bert = services.caller(Role.INGEST, Role.SEARCH, tenants=["bolt"])
        anna.put("theirs", "words of acme", team="acme")
        bert.put("own", "words of bolt", team="bolt")
        yield anna, bert


def value(text: str) -> metadata_pb2.MetadataValue:
    return metadata_pb2.MetadataValue(text=text)


def documents(caller: Caller, where: filter_pb2.Filter) -> list[str]:
    found = caller.call("ListDocuments", ingest_pb2.ListDocumentsRequest(filter=where))
    return [document.document_id for document in found.documents]


@pytest.mark.parametrize("text", HOSTILE)
def test_a_value_is_compared_and_nothing_else(callers: tuple[Caller, Caller], text: str) -> None:
    _, bert = callers
    for where in (
        filter_pb2.Filter(equals=filter_pb2.FieldEquals(field="metadata.team", value=value(text))),
        filter_pb2.Filter(is_in=filter_pb2.FieldIsIn(field="metadata.team", values=[value(text)])),
        filter_pb2.Filter(equals=filter_pb2.FieldEquals(field="document_id", value=value(text))),
        filter_pb2.Filter(document_id_prefix=text),
    ):
        assert documents(bert, where) == []
        # The same value is found where a document has it.
    bert.put("odd", "words", team=text)
    same = filter_pb2.Filter(equals=filter_pb2.FieldEquals(field="metadata.team", value=value(text)))
    assert documents(bert, same) == ["odd"]
    bert.call("DeleteDocument", ingest_pb2.DeleteDocumentRequest(document_id="odd"))


@pytest.mark.parametrize(
    "field",
    [
        "tenant",
        "generation",
        "content_hash",
        "metadata",
        "metadata.",
        "metadata.a.b",
        "metadata.A",
        "metadata.x;y",
        "text",
    ]
    + [f"metadata.{text}" for text in HOSTILE if text not in ("_", "tenant")],
)
def test_only_the_fields_of_documents_are_asked_for(callers: tuple[Caller, Caller], field: str) -> None:
    _, bert = callers
    for where in (
        filter_pb2.Filter(equals=filter_pb2.FieldEquals(field=field, value=value("acme"))),
        filter_pb2.Filter(exists=field),
    ):
        code, words = bert.refusal("ListDocuments", ingest_pb2.ListDocumentsRequest(filter=where))
        assert code == "INVALID_ARGUMENT", words
        asked = jobs_pb2.DeleteByFilterRequest(filter=where)
        assert bert.refusal("DeleteByFilter", asked)[0] == "INVALID_ARGUMENT"


def test_no_filter_reaches_another_tenant(callers: tuple[Caller, Caller]) -> None:
    anna, bert = callers
    everything = filter_pb2.Filter(
        any_of=filter_pb2.Filters(
            filters=[
                filter_pb2.Filter(negated=filter_pb2.Filter(document_id_prefix="own")),
                filter_pb2.Filter(exists="metadata.team"),
                filter_pb2.Filter(document_id_prefix="theirs"),
            ]
        )
    )
    assert documents(bert, everything) == ["own"]
    job = bert.call("DeleteByFilter", jobs_pb2.DeleteByFilterRequest(filter=everything))
    bert.call("WatchJob", jobs_pb2.WatchJobRequest(job_id=job.job_id))
    assert documents(anna, filter_pb2.Filter(exists="metadata.team")) == ["theirs"]
    bert.put("own", "words of bolt", team="bolt")


def test_a_filter_that_is_nested_without_end_is_refused(callers: tuple[Caller, Caller]) -> None:
    _, bert = callers
    where = filter_pb2.Filter(exists="title")
    for _ in range(40):
        where = filter_pb2.Filter(negated=where)
    code, _ = bert.refusal("ListDocuments", ingest_pb2.ListDocumentsRequest(filter=where))
    assert code == "INVALID_ARGUMENT"


@pytest.mark.parametrize("text", HOSTILE)
def test_ids_and_names_are_compared_and_nothing_else(callers: tuple[Caller, Caller], text: str) -> None:
    _, bert = callers
    for method, request in (
        ("GetJob", jobs_pb2.GetJobRequest(job_id=text)),
        ("CancelJob", jobs_pb2.CancelJobRequest(job_id=text)),
        ("ReplayDeadLetters", jobs_pb2.ReplayDeadLettersRequest(job_id=text)),
        ("GetDocument", ingest_pb2.GetDocumentRequest(document_id=text)),
    ):
        assert bert.refusal(method, request)[0] == "NOT_FOUND", method
    assert not bert.call("ListDeadLetters", jobs_pb2.ListDeadLettersRequest(job_id=text)).dead_letters
    if text not in ("_", "tenant"):
        asked = jobs_pb2.CreateIngestJobRequest(sources=["/x"], request_id=text)
        assert bert.refusal("CreateIngestJob", asked)[0] == "INVALID_ARGUMENT"


@pytest.mark.parametrize(
    "after", [[], [""], ["x", "y"], [1.5], [None], [{}], ["' OR 1=1 --"], [1e308, "'"], ["\0"], [[["deep"]]]]
)
def test_a_page_token_that_is_made_up_is_refused(callers: tuple[Caller, Caller], after: list[object]) -> None:
    _, bert = callers
    token = base64.urlsafe_b64encode(json.dumps(["0" * 16, *after]).encode()).decode()
    for method, request in (
        ("ListDocuments", ingest_pb2.ListDocumentsRequest(page_token=token)),
        ("ListJobs", jobs_pb2.ListJobsRequest(page_token=token)),
        ("ListDeadLetters", jobs_pb2.ListDeadLettersRequest(page_token=token)),
    ):
        assert bert.refusal(method, request)[0] == "INVALID_ARGUMENT"
