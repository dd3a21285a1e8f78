"""Memory of an ingestion: 10,000 documents and ten times as many, with a zero-cost encoder.

    python -m tests.benchmarks.ingest_memory [--documents 10000]

Each run is a process of its own, that reads documents from a file of JSON lines as the command line does and ingests
them into an index owner beside it, with a journal on disk. It tells the most memory that it and the process that cuts
for it ever held. The last line says whether ten times the documents need at most a tenth more.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import grpc

from encoder.fingerprint import index_fingerprint
from encoder.model_config import DEFAULT_MODEL_FOLDER
from encoder.tokenizer import Tokenizer
from ingest.chunking import Chunker
from ingest.cutting.processes import CuttingProcesses
from ingest.index.remote import RemoteIndex
from ingest.journal import Journal, journal_url
from ingest.loaders import load_documents
from ingest.pipeline import Ingestor
from ingest.receipts import Outcome
from services.settings import IndexOwnerSettings
from tests.benchmarks.zero_cost import DIMENSION, ZeroCostEncoder, make_documents
from tests.processes import free_port

TIMES = 10
GROWTH_MAX = 1.10
OWNER_START_S = 30.0


async def ingest(file: Path, folder: Path, target: str) -> None:
    """Ingest a file in this process, then print the peaks of this process and its child, MB, and documents/s."""
    chunker = Chunker(Tokenizer.load(DEFAULT_MODEL_FOLDER))
    fingerprint = index_fingerprint("zero", chunker.fingerprint)
    index = await RemoteIndex.connect(target, dimension=DIMENSION, fingerprint=fingerprint)
    journal = await Journal.open(journal_url(folder))
    cutter = CuttingProcesses(DEFAULT_MODEL_FOLDER, chunker, 1)
    ingestor = Ingestor(ZeroCostEncoder(), index, chunker, journal, cutter=cutter)  # type: ignore[arg-type]
    started, count = time.perf_counter(), 0
    async for receipt in ingestor.ingest_all(load_documents([str(file)], None)):
        assert receipt.outcome is Outcome.INGESTED, receipt
        count += 1
    seconds = time.perf_counter() - started
    for part in (cutter, journal, index):
        await part.close()
    peaks = [resource.getrusage(who).ru_maxrss / 1024 for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    print(*peaks, count / seconds)


def run(count: int, folder: Path) -> float:
    """Ingest so many documents in a process of its own; give the most memory that it and its child held, MB."""
    file = folder / "documents.jsonl"
    with file.open("w", encoding="utf-8") as lines:
        for document in make_documents(count, 1):
            lines.write(json.dumps({"id": document.document_id, "title": document.title, "text": document.text}) + "\n")
    with index_owner(folder / "data") as target:
        command = [sys.executable, "-m", "tests.benchmarks.ingest_memory", "--ingest", str(file), str(folder), target]
        told = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    worker, child, speed = map(float, told.split())
    print(
        f"{count:9,d} documents: peak {worker:,.0f} MB, and {child:,.0f} MB in the process that cuts; "
        f"{speed:,.0f} documents/s",
        flush=True,
    )
    return worker + child


@contextmanager
def index_owner(folder: Path) -> Iterator[str]:
    """Run an index owner over a folder; give its address."""
    settings = IndexOwnerSettings(data_dir=folder, index_port=free_port(), log_level="ERROR")
    command = [sys.executable, "-m", "services.index_owner"]
    owner = subprocess.Popen(command, env=settings.child_environment({}))
    try:
        with grpc.insecure_channel(target := f"127.0.0.1:{settings.index_port}") as channel:
            grpc.channel_ready_future(channel).result(OWNER_START_S)
        yield target
    finally:
        owner.terminate()
        owner.wait()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--documents", type=int, default=10_000, help="of the smaller run")
    parser.add_argument("--ingest", nargs=3, metavar=("FILE", "FOLDER", "TARGET"), help="one run, in this process")
    given = parser.parse_args()
    if given.ingest:
        file, folder, target = given.ingest
        asyncio.run(ingest(Path(file), Path(folder), target))
        return 0
    held = []
    for count in (given.documents, TIMES * given.documents):
        with tempfile.TemporaryDirectory(prefix="ingest-memory-") as name:
            held.append(run(count, Path(name)))
    growth = held[1] / held[0]
    passed = growth <= GROWTH_MAX
    print(
        f"{'PASS' if passed else 'FAIL'}: {TIMES * given.documents:,} documents need {growth:.3f} times the memory of "
        f"{given.documents:,} (at most {GROWTH_MAX})"
    )
    return 0 if passed else 1


if __name__ == "__main__":
    sys.exit(main())
