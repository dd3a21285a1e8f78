"""``mamba-search up`` as a whole: every process real, a client that has nothing but the generated stubs."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.rpc import error_details_pb2
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc
from grpc_status import rpc_status
from mambasearch.v1 import encoder_pb2, encoder_pb2_grpc, ingest_pb2, ingest_pb2_grpc, search_pb2, search_pb2_grpc

from encoder.client_calls import token_metadata
from encoder.model_config import DEFAULT_MODEL_FOLDER, WEIGHTS_FILE
from tests.processes import alive, descendants, free_port, listening_addresses
from tests.tiny_model import save_tiny_model

ROOT = Path(__file__).parent.parent.parent
PORTS = ("encoder", "search", "http", "ingest", "index")
TOKEN = "known-to-this-test"
DOCUMENTS = [
    (
        "lighthouse",
        "The keeper of Skerry Rock",
        "The keeper burned his furniture when the oil ran out.",
    ),
    ("orchard", "Orchard notes", "Prune apple trees in February, before the sap rises, and never in the rain."),
    ("submarine", "Under the ice", "The submarine crossed beneath the polar ice without once raising its periscope."),
]


class Up:
    def __init__(self, process: subprocess.Popen[str], ports: dict[str, int], data_dir: Path) -> None:
        self.process = process
        self.ports = ports
        self.data_dir = data_dir
        self.lines: list[str] = []

    def wait_for(self, words: str) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.lines.append(line)
            if words in line:
                return
        raise AssertionError("".join(self.lines))

    def channel(self, part: str) -> grpc.Channel:
        return grpc.insecure_channel(f"127.0.0.1:{self.ports[part]}")


def free_ports() -> dict[str, int]:
    return {part: free_port() for part in PORTS}


def command(folder: Path, model: Path, ports: dict[str, int]) -> dict[str, Any]:
    """What to run, as ``subprocess`` takes it."""
    settings = {f"MAMBASEARCH_{part.upper()}_PORT": str(port) for part, port in ports.items()}
    settings |= {
        "MAMBASEARCH_DATA_DIR": str(folder),
        "MAMBASEARCH_QUERY_MODEL": str(model),
        "MAMBASEARCH_PASSAGE_MODEL": str(model),
        "MAMBASEARCH_ENCODER_TOKEN": TOKEN,
    }
    return {
        "args": [sys.executable, "-c", "from services.cli import main; main()", "up"],
        "cwd": folder.parent,
        "env": os.environ | settings,  # noqa: TID251 - for a child process
        "stdout": subprocess.PIPE,
        "stderr": subprocess.STDOUT,
        "text": True,
    }


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    if (DEFAULT_MODEL_FOLDER / WEIGHTS_FILE).exists():
        return DEFAULT_MODEL_FOLDER
    return save_tiny_model(tmp_path_factory.mktemp("models") / "tiny")


@pytest.fixture(scope="module")
def up(tmp_path_factory: pytest.TempPathFactory, model: Path) -> Iterator[Up]:
    data_dir, ports = tmp_path_factory.mktemp("up") / "data", free_ports()
    with subprocess.Popen(**command(data_dir, model, ports)) as process:
        running = Up(process, ports, data_dir)
        running.wait_for("ready after")
        yield running
        process.kill()


@pytest.fixture(scope="module")
def ingested(up: Up) -> Up:
    requests = [
        ingest_pb2.IngestDocumentsRequest(document_id=name, title=title, text=text, source=f"{name}.txt")
        for name, title, text in DOCUMENTS
    ]
    bad = [ingest_pb2.IngestDocumentsRequest(document_id="empty", text=" "), requests[0]]
    with up.channel("ingest") as channel:
        stub = ingest_pb2_grpc.IngestServiceStub(channel)
        answers = list(stub.IngestDocuments(iter([*requests, *bad]), timeout=30))
    assert [answer.document_id for answer in answers] == ["lighthouse", "orchard", "submarine", "empty", "lighthouse"]
    assert [answer.outcome for answer in answers] == [
        ingest_pb2.INGEST_OUTCOME_INGESTED,
        ingest_pb2.INGEST_OUTCOME_INGESTED,
        ingest_pb2.INGEST_OUTCOME_INGESTED,
        ingest_pb2.INGEST_OUTCOME_REJECTED,
        ingest_pb2.INGEST_OUTCOME_UNCHANGED,
    ]
    assert (answers[3].error.code, answers[3].error.field) == (grpc.StatusCode.INVALID_ARGUMENT.value[0], "text")
    return up


@pytest.mark.parametrize("mode", ["SEARCH_MODE_UNSPECIFIED", "SEARCH_MODE_SPARSE", "SEARCH_MODE_HYBRID"])
def test_search_finds_what_was_ingested(ingested: Up, mode: str) -> None:
    with ingested.channel("search") as channel:
        stub = search_pb2_grpc.SearchServiceStub(channel)
        request = search_pb2.SearchRequest(query="when to prune apple trees", mode=mode, top_k=2)
        answer = stub.Search(request, timeout=10)
    assert answer.hits[0].document_id == "orchard"
    assert answer.hits[0].title == "Orchard notes"
    assert answer.hits[0].source == "orchard.txt"
    assert "February" in answer.hits[0].text
    assert len(answer.hits) <= 2


def test_dense_search_scores_every_chunk(ingested: Up) -> None:
    with ingested.channel("search") as channel:
        stub = search_pb2_grpc.SearchServiceStub(channel)
        request = search_pb2.SearchRequest(query="the submarine under the ice", mode=search_pb2.SEARCH_MODE_DENSE)
        answer = stub.Search(request, timeout=10)
    assert {hit.document_id for hit in answer.hits} == {name for name, _, _ in DOCUMENTS}
    assert all(-1.001 <= hit.score == hit.dense_score <= 1.001 for hit in answer.hits)
    assert answer.query_tokens == 6


def test_retrieve_keeps_to_the_budget(ingested: Up) -> None:
    with ingested.channel("search") as channel:
        stub = search_pb2_grpc.SearchServiceStub(channel)
        answer = stub.Retrieve(search_pb2.RetrieveRequest(query="keeper furniture", token_budget=60), timeout=10)
    assert 0 < answer.token_count < answer.context_tokens <= 60
    assert "[1] The keeper of Skerry Rock" in answer.context
    assert answer.passages[0].document_id == "lighthouse"


@pytest.mark.parametrize(
    ("request_fields", "field"),
    [
        ({"query": ""}, "query"),
        ({"query": "word " * 600}, "query"),
        ({"query": "apples", "top_k": 201}, "top_k"),
        ({"query": "apples", "mode": 99}, "mode"),
    ],
)
def test_bad_input_is_refused_with_the_field(ingested: Up, request_fields: dict, field: str) -> None:
    with ingested.channel("search") as channel:
        stub = search_pb2_grpc.SearchServiceStub(channel)
        with pytest.raises(grpc.RpcError) as failure:
            stub.Search(search_pb2.SearchRequest(**request_fields), timeout=10)
    assert failure.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    bad_request = error_details_pb2.BadRequest()
    assert any(detail.Unpack(bad_request) for detail in rpc_status.from_call(failure.value).details)
    assert bad_request.field_violations[0].field == field


def test_documents_can_be_read_and_deleted(ingested: Up) -> None:
    with ingested.channel("ingest") as channel:
        stub = ingest_pb2_grpc.IngestServiceStub(channel)
        document = stub.GetDocument(ingest_pb2.GetDocumentRequest(document_id="submarine"), timeout=10)
        assert (document.title, document.generation, document.chunk_count) == ("Under the ice", 1, 1)
        assert document.char_count == len(DOCUMENTS[2][2])
        assert abs(document.ingested_at.seconds - time.time()) < 120
        deleted = stub.DeleteDocument(ingest_pb2.DeleteDocumentRequest(document_id="submarine"), timeout=10)
        assert deleted.chunk_count == 1
        for call, request in (
            (stub.GetDocument, ingest_pb2.GetDocumentRequest(document_id="submarine")),
            (stub.DeleteDocument, ingest_pb2.DeleteDocumentRequest(document_id="submarine")),
        ):
            with pytest.raises(grpc.RpcError) as failure:
                call(request, timeout=10)
            assert failure.value.code() is grpc.StatusCode.NOT_FOUND
        with pytest.raises(grpc.RpcError) as failure:
            stub.GetDocument(ingest_pb2.GetDocumentRequest(), timeout=10)
        assert failure.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    with ingested.channel("search") as channel:
        answer = search_pb2_grpc.SearchServiceStub(channel).Search(
            search_pb2.SearchRequest(query="submarine"), timeout=10
        )
    assert "submarine" not in {hit.document_id for hit in answer.hits}


def test_the_encoder_answers_too(up: Up) -> None:
    request = encoder_pb2.EncodeQueriesRequest(queries=["one", "two words"])
    with up.channel("encoder") as channel:
        stub = encoder_pb2_grpc.EncoderServiceStub(channel)
        metadata = (("application", "encoder"), *token_metadata(TOKEN))
        answer = stub.EncodeQueries(request, metadata=metadata, timeout=10)
        with pytest.raises(grpc.RpcError) as failure:
            stub.EncodeQueries(request, metadata=metadata[:1], timeout=10)
    assert failure.value.code() is grpc.StatusCode.UNAUTHENTICATED
    assert len(answer.embeddings) == 2 * 4 * answer.dimension
    assert list(answer.token_counts) == [2, 3]


@pytest.mark.parametrize(
    ("part", "service"),
    [("search", "mambasearch.v1.SearchService"), ("ingest", "mambasearch.v1.IngestService")],
)
def test_health_and_reflection(up: Up, part: str, service: str) -> None:
    with up.channel(part) as channel:
        answer = health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(service=service), timeout=10)
        assert answer.status == health_pb2.HealthCheckResponse.SERVING
        request = reflection_pb2.ServerReflectionRequest(file_containing_symbol=service)
        stub = reflection_pb2_grpc.ServerReflectionStub(channel)
        found = next(iter(stub.ServerReflectionInfo(iter([request]), timeout=10)))
    assert found.file_descriptor_response.file_descriptor_proto


def test_a_second_one_is_refused_before_it_starts_anything(up: Up, model: Path, tmp_path: Path) -> None:
    second = subprocess.run(**command(tmp_path / "data", model, up.ports), timeout=20)
    assert second.stdout == (
        f"mamba-search: encoder_port {up.ports['encoder']} on 127.0.0.1 cannot be had (Address already in use); "
        "stop what uses it or choose another.\n"
    )
    assert second.returncode == 73
    third = subprocess.run(**command(up.data_dir, model, free_ports()), timeout=20)
    assert f"mamba-search: Data directory {up.data_dir} is held by another process" in third.stdout
    assert third.returncode == 73


def test_no_text_is_logged(ingested: Up) -> None:
    logs = "".join(path.read_text(errors="replace") for path in (ingested.data_dir / "logs").iterdir())
    assert "listening on" in logs
    for words in ("furniture", "prune", "periscope"):
        assert words not in logs.lower()


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_ctrl_c_leaves_nothing(ingested: Up) -> None:
    """Comes last: it ends what the others use."""
    pids = descendants(ingested.process.pid)
    assert {port for _, port in listening_addresses(pids)} >= set(ingested.ports.values())
    ray_directory = ray_directory_of(pids)
    assert ray_directory.exists()
    ingested.process.send_signal(signal.SIGINT)
    ingested.wait_for("stopped")
    assert ingested.process.wait(30) == 0
    assert not [pid for pid in pids if alive(pid)]
    for port in ingested.ports.values():
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(("127.0.0.1", port))
    assert not ray_directory.exists()


def ray_directory_of(pids: set[int]) -> Path:
    for pid in pids:
        for word in Path(f"/proc/{pid}/cmdline").read_bytes().decode().split("\0"):
            if word.startswith("--temp-dir="):
                return Path(word.partition("=")[2])
    raise AssertionError("no Ray process")
