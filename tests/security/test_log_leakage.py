"""No text, query or key is in a log, in the audit log, or in an error that another may read: at level DEBUG, too."""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import grpc
import pytest
from mambasearch.v1 import encoder_pb2, filter_pb2, index_pb2, ingest_pb2, jobs_pb2, metadata_pb2, search_pb2

from encoder.interface import TokenRow
from ingest.index.remote import RemoteIndex
from services.door.principal import Role
from services.settings import CommandSettings, IndexOwnerSettings
from tests.fakes import FakeEncoder
from tests.indexes import DIMENSION, FINGERPRINT, running_owner
from tests.replica_serving import serving
from tests.security.secured import secured

# In every text, query, title, metadata value and key of these tests.
MARK = "xylophonic"


class BrokenEncoder(FakeEncoder):
    """Fails with what it was given in the exception's words, as a library might."""

    async def query_rows(self, queries: Sequence[str]) -> list[TokenRow]:
        if "break" in queries[0]:
            raise RuntimeError(f"cannot encode {queries[0]}")
        return await super().query_rows(queries)


@pytest.fixture
def logged(caplog: pytest.LogCaptureFixture) -> pytest.LogCaptureFixture:
    caplog.set_level(logging.DEBUG)  # as a process does at its setting log_level
    return caplog


def written_below(folder: Path) -> str:
    return "\n".join(path.read_text() for path in folder.rglob("*") if path.is_file())


def test_search_and_ingestion_log_no_texts(
    logged: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    rows = [{"id": "row", "text": f"a row {MARK}"}, {"id": f"x{MARK}"[:3], "text": f"{MARK}\0"}, {"title": MARK}]
    (tmp_path / "rows.jsonl").write_text("\n".join(map(json.dumps, rows)))
    refusals: list[str] = []
    with secured(tmp_path, make_encoder=BrokenEncoder, audit_log=str(tmp_path / "audit")) as services:
        caller = services.caller(Role.SEARCH, Role.INGEST)
        stranger = services.with_credential(f"ms_{'0' * 12}_{MARK:x<43}")
        assert caller.put("d", f"A text {MARK}.", title=MARK).chunk_count == 1
        caller.put("d", f"Another text {MARK}\0.")
        caller.put("e", "", title=MARK)
        job = caller.job(str(tmp_path / "rows.jsonl"))
        where = filter_pb2.Filter(
            equals=filter_pb2.FieldEquals(field="metadata.title", value=metadata_pb2.MetadataValue(text=MARK))
        )
        for who in (caller, stranger):
            for method, request in (
                ("Search", search_pb2.SearchRequest(query=MARK)),
                ("Search", search_pb2.SearchRequest(query=f"break {MARK}")),
                ("Search", search_pb2.SearchRequest(query=f"{MARK}\0")),
                ("Search", search_pb2.SearchRequest(query=f"{MARK} " * 2000)),
                ("Search", search_pb2.SearchRequest(query=MARK, top_k=9999)),
                ("Retrieve", search_pb2.RetrieveRequest(query=f"break {MARK}")),
                ("ListDocuments", ingest_pb2.ListDocumentsRequest(filter=where)),
                ("DeleteByFilter", jobs_pb2.DeleteByFilterRequest(filter=where)),
                ("ListDeadLetters", jobs_pb2.ListDeadLettersRequest(job_id=job.job_id)),
            ):
                code, words = who.refusal(method, request)
                refusals.append(words)
                assert code != "OK" or who is caller
        letters = caller.call("ListDeadLetters", jobs_pb2.ListDeadLettersRequest(job_id=job.job_id)).dead_letters
        assert letters
        refusals += [letter.reason for letter in letters]
    audit, process = written_below(tmp_path / "audit"), capfd.readouterr()
    # The incident is logged, with where it came from.
    assert "RuntimeError" in logged.text
    assert logged.text.count("incident") >= 2
    assert audit.count("\n") > 15
    for where_it_may_be, text in {
        "logs": logged.text,
        "audit": audit,
        "errors": "\n".join(refusals),
        "output": process.out + process.err,
    }.items():
        assert MARK not in text, where_it_may_be
        assert str(caller.key) not in text, where_it_may_be
        assert "Bearer" not in text.replace('send "authorization: Bearer …"', ""), where_it_may_be


async def test_the_index_owner_logs_no_texts(logged: pytest.LogCaptureFixture, tmp_path: Path) -> None:
    async with running_owner(tmp_path) as target:
        index = await RemoteIndex.connect(target, dimension=DIMENSION, fingerprint=FINGERPRINT)
        async with grpc.aio.insecure_channel(target) as channel:
            key = index_pb2.IndexDocumentKey(tenant="t", document_id="d")
            for method, request in (
                ("GetRecords", index_pb2.GetRecordsRequest(keys=[key])),
                ("CountChunks", index_pb2.CountChunksRequest(versions=[index_pb2.IndexVersions(key=key)] * 5000)),
                ("OpenIndex", index_pb2.OpenIndexRequest(fingerprint=MARK, dimension=3)),
            ):
                send = channel.unary_unary(
                    f"/mambasearch.v1.IndexService/{method}",
                    request_serializer=type(request).SerializeToString,
                    response_deserializer=bytes,
                )
                try:
                    await send(request)
                except grpc.aio.AioRpcError as error:
                    assert error.code() is not grpc.StatusCode.INTERNAL  # noqa: PT017 - most are refused, and one is not
        await index.close()
    assert MARK not in logged.text


async def test_an_encoder_replica_logs_no_texts(logged: pytest.LogCaptureFixture) -> None:
    answers: list[str] = []
    async with serving(BrokenEncoder()) as served:
        for request in (
            encoder_pb2.EncodeQueriesRequest(queries=[MARK]),
            encoder_pb2.EncodeQueriesRequest(queries=[f"break {MARK}"]),
            encoder_pb2.EncodeQueriesRequest(queries=[f"{MARK}\0"]),
            encoder_pb2.EncodeQueriesRequest(queries=[f"{MARK} " * 5000]),
        ):
            try:
                await served.stub.EncodeQueries(request, metadata=(("application", "encoder"),))
            except grpc.aio.AioRpcError as error:
                answers.append(error.details() or "")
    assert len(answers) >= 2
    assert MARK not in logged.text + "".join(answers)


def test_settings_do_not_show_keys() -> None:
    settings: list[Any] = [
        CommandSettings.load({"api_key": f"ms_{MARK}"}),
        IndexOwnerSettings.load({"index_token": MARK * 3}),
    ]
    for one in settings:
        assert MARK not in repr(one)
        assert MARK not in one.model_dump_json()
        assert any(MARK in value for value in one.child_environment({}).values())
