"""One search and one document through real processes: one trace, their metrics, their lines in the logs."""

import asyncio
import json
from pathlib import Path

import grpc
from mambasearch.v1 import ingest_pb2, ingest_pb2_grpc, search_pb2, search_pb2_grpc

from tests.observing.collector import Collector, Received, collecting
from tests.observing.parts import Parts, running
from tests.observing.scraping import scrape

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
PARENT = "00f067aa0ba902b7"
SECRET = "zanzibarian cloves and their harvest"


async def test_a_search_is_one_trace_from_client_to_index_and_batch(tmp_path: Path) -> None:
    async with collecting() as collector:
        settings = {"otlp_endpoint": f"http://{collector.target}", "trace_ratio": 1, "access_log": "all"}
        async with running(tmp_path, settings) as parts:
            await _ingest(parts)
            await _search(parts)
            await _measured(parts)
            metrics = {part: await asyncio.to_thread(scrape, port) for part, port in parts.metrics.items()}
        _check_search(collector.trace(TRACE))
        _check_ingestion(collector)
    _check_metrics(metrics)
    _check_logs(tmp_path)


async def _ingest(parts: Parts) -> None:
    async with grpc.aio.insecure_channel(parts.target("ingest")) as channel:
        request = ingest_pb2.IngestDocumentsRequest(document_id="one", title="Spices", text=f"About {SECRET}.")
        stub = ingest_pb2_grpc.IngestServiceStub(channel)
        answers = [answer async for answer in stub.IngestDocuments(iter([request]), timeout=60)]
    assert [answer.outcome for answer in answers] == [ingest_pb2.INGEST_OUTCOME_INGESTED]


async def _search(parts: Parts) -> None:
    metadata = (("traceparent", f"00-{TRACE}-{PARENT}-01"), ("x-request-id", "the-apps-own-id"))
    async with grpc.aio.insecure_channel(parts.target("search")) as channel:
        stub = search_pb2_grpc.SearchServiceStub(channel)
        found = await stub.Search(search_pb2.SearchRequest(query=SECRET), metadata=metadata, timeout=30)
    assert [hit.document_id for hit in found.hits] == ["one"]


async def _measured(parts: Parts) -> None:
    """Wait until what is measured now and then has been, with the document in the index."""
    async with asyncio.timeout(40):
        while (await asyncio.to_thread(scrape, parts.metrics["index"])).get("mambasearch_index_size_bytes", 0) < 1000:  # noqa: ASYNC110 - another process measures
            await asyncio.sleep(0.5)


def _check_search(spans: list[Received]) -> None:
    by_id = {span.span_id: span for span in spans}

    def path(span: Received) -> list[str]:
        above = [] if span.parent_id == PARENT else path(by_id[span.parent_id])
        return [*above, f"{span.process}: {span.name}"]

    paths = [" > ".join(path(span)) for span in spans]
    search = "search: SearchService/Search"
    encode = f"{search} > search: mambasearch.v1.EncoderService/EncodeQueries > encoder: EncoderService/EncodeQueries"
    assert search in paths
    assert f"{encode} > encoder: encoder queue" in paths
    assert f"{encode} > encoder: encoder batch" in paths
    (batch,) = (span for span in spans if span.name == "encoder batch")
    assert batch.links == ((TRACE, batch.parent_id),)
    assert batch.attributes["lane"] == "queries"
    for method in ("SearchIndex", "ReadHits"):
        asked = f"{search} > search: mambasearch.v1.IndexService/{method} > index-owner: IndexService/{method}"
        assert asked in paths, paths
    assert not [span for span in spans if span.failed]


def _check_ingestion(collector: Collector) -> None:
    """A stream is a trace; each batch of chunks has one of its own, linked to the stream's."""
    (stream,) = (span for span in collector.spans if span.name == "IngestService/IngestDocuments")
    (batch,) = (span for span in collector.spans if span.name == "ingest batch")
    assert batch.trace_id != stream.trace_id
    assert (stream.trace_id, stream.span_id) in batch.links
    names = {span.name for span in collector.trace(batch.trace_id)}
    assert {"ingest encode", "ingest write", "EncoderService/EncodePassages", "IndexService/UpsertChunks"} <= names
    assert {"ingest prepare", "ingest commit"} <= {span.name for span in collector.spans}


def _check_metrics(metrics: dict[str, dict[str, float]]) -> None:
    assert metrics["search"]['mambasearch_requests_total{code="OK",method="SearchService/Search"}'] == 1
    assert metrics["search"]['mambasearch_search_stage_duration_seconds_count{stage="total"}'] == 1
    assert metrics["search"]["mambasearch_serving"] == 1
    assert metrics["ingest"]['mambasearch_ingest_documents_total{outcome="ingested"}'] == 1
    assert metrics["ingest"]["mambasearch_ingest_chunks_total"] == 1
    assert metrics["ingest"]["mambasearch_ingest_oldest_unacknowledged_seconds"] == 0
    assert metrics["ingest"]['mambasearch_ingest_jobs{state="queued"}'] == 0
    assert metrics["ingest"]['mambasearch_ingest_stage_duration_seconds_count{stage="write"}'] == 1
    assert metrics["index"]["mambasearch_index_size_bytes"] > 1000
    assert metrics["index"]['mambasearch_requests_total{code="OK",method="IndexService/SearchIndex"}'] >= 1
    encoder = metrics["encoder"]
    assert encoder['mambasearch_encoder_queue_requests{lane="queries",replica="encoder-0"}'] == 0
    assert encoder['mambasearch_encoder_forward_seconds_count{lane="queries",replica="encoder-0"}'] >= 1
    assert encoder['mambasearch_encoder_tokens_total{lane="passages",replica="encoder-0"}'] >= 3
    assert encoder['mambasearch_serving{replica="encoder-0"}'] == 1
    assert (
        encoder['mambasearch_requests_total{code="OK",method="EncoderService/EncodeQueries",replica="encoder-0"}'] == 1
    )


def _check_logs(folder: Path) -> None:
    for part in ("search", "index", "encoder", "ingest"):
        written = (folder / f"{part}.log").read_text()
        assert "cloves" not in written
        assert written.strip()
        for line in written.splitlines():
            assert {"time", "level", "logger", "process", "message"} <= json.loads(line).keys()
    calls = [json.loads(line) for line in (folder / "encoder.log").read_text().splitlines()]
    (call,) = (line for line in calls if line.get("method") == "EncoderService/EncodeQueries")
    assert (call["request_id"], call["trace_id"], call["code"]) == ("the-apps-own-id", TRACE, "OK")
