"""The whole product on a machine with a GPU: queries and passages end to end, beside the bare encoder, in one run.

    python -m tests.benchmarks.load.service [--seconds 10] [--documents 400] [--replicas 1] [--batch-tokens N]
        [--passages-only]

``mamba-search up`` runs with the default model. Searches are asked over gRPC by one client, then by more and more, in
several processes, until no more are answered; likewise the encoder service alone. Passages go through the encoder
service as token ids and as texts, and documents through all of ingestion. Before and after, the same passages go
through the encoder in a process of its own. Several replicas share the GPU. The last line has the figures; the proof
fails unless passages as texts, tokenizing included, come through at 80 % of the bare encoder's speed.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import subprocess
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from itertools import islice
from multiprocessing import get_context
from pathlib import Path
from tempfile import TemporaryDirectory

from mambasearch.v1 import search_pb2

from encoder.client import EncoderClient
from encoder.errors import Overloaded
from encoder.model_config import DEFAULT_MODEL_FOLDER
from encoder.tokenizer import Tokenizer
from tests.benchmarks.load import reporting
from tests.benchmarks.load.bare_encoder import read_passages
from tests.benchmarks.load.clients import grpc_client
from tests.benchmarks.load.comparison import TOP_K, shuffled_questions
from tests.benchmarks.load.generator import OK, REFUSED, Answer, Load, closed_loop
from tests.benchmarks.load.ingesting import Ingestion
from tests.benchmarks.load.passages import requests_of_ids, requests_of_texts, through
from tests.benchmarks.load.running import ROOT, product_running
from tests.benchmarks.load.texts import read_documents

CLIENTS = (1, 8, 32, 64, 128, 256)
PROCESSES = 4  # of clients; one would be busier than the service
REQUESTS_AT_ONCE = 2  # of passages, in each process and for each replica
THROUGH_MIN = 0.80  # of the bare encoder's tokens a second, for texts
TOKEN = "of-this-benchmark"  # of the encoder service, which is asked directly, too
SETTINGS = {
    "MAMBASEARCH_ENCODER_TOKEN": TOKEN,
    "MAMBASEARCH_INGEST_BATCH_TOKENS": "131072",
    "MAMBASEARCH_SEARCH_CONCURRENCY_MAX": "512",
    "MAMBASEARCH_ENCODER_MAX_QUEUED_REQUESTS": "512",
    "MAMBASEARCH_ENCODER_MAX_ONGOING_REQUESTS": "1100",
}


def ask_searches(target: str, clients: int, seconds: float) -> Load:
    """Search, in a process of its own."""

    async def run() -> Load:
        async with grpc_client(target, shuffled_questions(), search_pb2.SEARCH_MODE_HYBRID, TOP_K) as ask:
            return await closed_loop(ask, clients, seconds)

    return asyncio.run(run())


def ask_embeddings(target: str, clients: int, seconds: float) -> Load:
    """Have queries encoded, each by a call, in a process of its own."""

    async def run() -> Load:
        encoder = EncoderClient(target, concurrency_max=clients, attempts_max=1, token=TOKEN)
        questions = shuffled_questions()

        async def ask(number: int) -> Answer:
            try:
                await encoder.encode_queries([questions[number % len(questions)]])
            except Overloaded as error:
                return Answer(REFUSED, error.retry_after_s)
            return Answer()

        try:
            return await closed_loop(ask, clients, seconds)
        finally:
            await encoder.close()

    return asyncio.run(run())


async def ingest(target: str, documents: int) -> tuple[float, int]:
    """Ingest documents; give tokens a second, and their number."""
    ingestion = Ingestion(target, islice(read_documents(), documents))
    started = time.perf_counter()
    await ingestion.begin()
    tokens = await ingestion.finish()
    return tokens / (time.perf_counter() - started), tokens


def bare(seconds: float) -> dict[str, float]:
    """Measure the encoder alone, in a process that is gone afterwards."""
    command = [sys.executable, "-m", "tests.benchmarks.load.bare_encoder", str(seconds)]
    lines = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, cwd=ROOT).stdout.splitlines()
    found: dict[str, float] = json.loads(lines[-1])
    print(f"bare encoder: {found['ids']:,.0f} tokens/s of ids, {found['texts']:,.0f} of texts", flush=True)
    return found


def sweep(name: str, ask: object, target: str, seconds: float, pool: ProcessPoolExecutor) -> list[dict[str, object]]:
    """Ask with more and more clients; a row for each number."""
    rows: list[dict[str, object]] = []
    for clients in CLIENTS:
        processes = min(clients, PROCESSES)
        work = [pool.submit(partial(ask, target, clients // processes, seconds)) for _ in range(processes)]  # type: ignore[arg-type]
        total = Load()
        for future in work:
            total.join(future.result())
        total.seconds /= processes
        rows.append({"system": name, "clients": clients, **total.figures()})
        print(rows[-1], flush=True)
    return rows


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=10.0, help="of each measurement")
    parser.add_argument("--documents", type=int, default=2000)
    parser.add_argument("--replicas", type=int, default=1, help="of the encoder, which share the GPU")
    parser.add_argument("--batch-tokens", type=int, help="read together by a replica (default: the service's own)")
    parser.add_argument("--passages-only", action="store_true", help="neither searches, queries nor ingestion")
    given = parser.parse_args()
    settings = SETTINGS | {"MAMBASEARCH_ENCODER_NUM_REPLICAS": str(given.replicas)}
    if given.batch_tokens:
        settings["MAMBASEARCH_ENCODER_BATCH_TOKENS"] = str(given.batch_tokens)
    tokenizer = Tokenizer.load(DEFAULT_MODEL_FOLDER)
    texts = read_passages(tokenizer)
    passages = {"ids": requests_of_ids(tokenizer.encode_batch(texts)), "texts": requests_of_texts(texts)}
    before = bare(given.seconds)
    passed: dict[str, float] = {}
    with (
        TemporaryDirectory() as folder,
        product_running(Path(folder) / "data", settings) as product,
        ProcessPoolExecutor(PROCESSES, mp_context=get_context("spawn")) as pool,
    ):
        at_once = REQUESTS_AT_ONCE * given.replicas
        for kind, requests in passages.items():
            passed[kind] = through(
                pool,
                PROCESSES,
                product.target("encoder"),
                requests,
                token=TOKEN,
                at_once=at_once,
                seconds=given.seconds,
            )
            print(f"through the service: {passed[kind]:,.0f} tokens/s of {kind}", flush=True)
        rows, ingested = [], 0.0
        if not given.passages_only:
            ingested, tokens = asyncio.run(ingest(product.target("ingest"), given.documents))
            print(f"ingestion: {tokens:,} tokens, {ingested:,.0f} tokens/s", flush=True)
            rows = sweep("search", ask_searches, product.target("search"), given.seconds, pool)
            rows += sweep("encoder", ask_embeddings, product.target("encoder"), given.seconds, pool)
    after = bare(given.seconds)
    alone = {kind: (before[kind] + after[kind]) / 2 for kind in before}
    reporting.write("service", [*rows, {"bare": alone, "through": passed, "ingestion": ingested}])
    errors = sum(count for row in rows for code, count in row["codes"].items() if code not in (OK, REFUSED))  # type: ignore[attr-defined]
    failed = errors or passed["texts"] < THROUGH_MIN * alone["texts"]
    shares = (f"{passed[kind]:,.0f} tokens/s of {kind} ({passed[kind] / alone[kind]:.0%})" for kind in passed)
    print(
        f"{'FAIL' if failed else 'PASS'}: passages through the service, beside the bare encoder: {', '.join(shares)}"
        f"{searches(rows, ingested) if rows else ''}; {errors} errors"
    )
    return 1 if failed else 0


def searches(rows: list[dict[str, object]], ingested: float) -> str:
    """Say how searches, queries and ingestion went."""
    search, encoder = ([row for row in rows if row["system"] == name] for name in ("search", "encoder"))
    best = [max(float(str(row["throughput"])) for row in each) for each in (search, encoder)]
    return (
        f"; one client p50 {search[0]['p50']} ms, p99 {search[0]['p99']} ms; at saturation {best[0]:,.0f} searches/s, "
        f"{best[1]:,.0f} encoded queries/s; ingestion {ingested:,.0f} tokens/s"
    )


if __name__ == "__main__":
    sys.exit(main())
