"""The demo behind `make demo`: starts everything, ingests three long documents, asks three questions over gRPC, stops.

It passes when each question's first hit is the expected document with the answer in its passage; else it exits with 1.
Ports and directories are of its own: a service that runs already is not disturbed.
"""

from __future__ import annotations

import json
import re
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import grpc
from mambasearch.v1 import search_pb2, search_pb2_grpc
from rich.console import Console
from rich.text import Text

HERE = Path(__file__).parent
COMMAND = Path(sys.executable).parent / "mamba-search"
STOP_TIMEOUT_S = 60
SEARCH_TIMEOUT_S = 30
TOP_K = 3
SHOWN_CHARS = 240

console = Console(highlight=False, soft_wrap=True)


def free_ports(count: int) -> list[int]:
    """Find ports that nobody listens on, all different."""
    sockets = [socket.socket() for _ in range(count)]
    try:
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]
    finally:
        for each in sockets:
            each.close()


@contextmanager
def running_service(data_dir: Path) -> Iterator[tuple[str, str]]:
    """Run `mamba-search up`; give the addresses of the search service and of the ingestion worker."""
    search, ingest, index, encoder, http = free_ports(5)
    ports = ("--search-port", search, "--ingest-port", ingest, "--index-port", index, "--encoder-port", encoder)
    command = [str(word) for word in (COMMAND, "up", "--data-dir", data_dir, *ports, "--http-port", http)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout
    try:
        for line in process.stdout:
            console.print(f"  {line.rstrip()}", style="dim", markup=False)
            if line.startswith("ready"):
                break
        else:
            raise SystemExit(f"The service did not start; exit code {process.wait()}.")
        yield f"127.0.0.1:{search}", f"127.0.0.1:{ingest}"
    finally:
        process.send_signal(signal.SIGINT)
        try:
            process.communicate(timeout=STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.communicate()
            raise SystemExit(f"The service did not stop within {STOP_TIMEOUT_S} s.") from None
    if process.returncode:
        raise SystemExit(f"The service ended with exit code {process.returncode}.")


def ask(target: str, question: str) -> search_pb2.SearchResponse:
    """Search over gRPC, as any client would."""
    with grpc.insecure_channel(target) as channel:
        stub = search_pb2_grpc.SearchServiceStub(channel)
        return stub.Search(search_pb2.SearchRequest(query=question, top_k=TOP_K), timeout=SEARCH_TIMEOUT_S)


def one_line(text: str) -> str:
    return " ".join(text.split())


def answers(hit: search_pb2.Hit, document: str, answer: str) -> bool:
    return hit.document_id == document and answer.lower() in one_line(hit.text).lower()


def show(hit: search_pb2.Hit, answer: str) -> None:
    """Print a hit with the part of its passage round the answer, where it has it."""
    text = one_line(hit.text)
    found = re.search(re.escape(answer), text, re.IGNORECASE)
    start = max(found.start() - SHOWN_CHARS // 2, 0) if found else 0
    if start:
        start = text.find(" ", start) + 1
    percent = 100 * hit.char_start // hit.document_chars
    shown = Text(f"  {hit.rank}. {hit.title}", style="cyan")
    shown.append(f"  ({percent}% into {hit.document_id}, score {hit.score:.4f})\n     ", style="dim")
    passage = Text(text[start : start + SHOWN_CHARS])
    passage.highlight_regex(f"(?i){re.escape(answer)}", "bold yellow")
    console.print(shown + Text("… " if start else "") + passage + Text(" …"))


def main() -> int:
    started = time.monotonic()
    questions = [json.loads(line) for line in (HERE / "questions.jsonl").read_text(encoding="utf-8").splitlines()]
    right = 0
    with tempfile.TemporaryDirectory(prefix="mamba-search-demo-") as folder:
        console.print("Starting the service: mamba-search up", style="bold")
        with running_service(Path(folder) / "data") as (search_target, ingest_target):
            console.print("\nIngesting: mamba-search ingest demo/documents", style="bold")
            subprocess.run([COMMAND, "ingest", HERE / "documents", "--target", ingest_target], check=True)
            for row in questions:
                console.print(f"\n{row['question']}", style="bold")
                hits = ask(search_target, row["question"]).hits
                for hit in hits:
                    show(hit, row["answer"])
                good = bool(hits) and answers(hits[0], row["document"], row["answer"])
                right += good
                verdict = "the answer is in the first passage" if good else f"expected: {row['answer']}"
                console.print(f"  {'✓' if good else '✗'} {verdict}", style="green" if good else "bold red")
    seconds = time.monotonic() - started
    console.print(f"\n{right} of {len(questions)} questions answered; the service has stopped ({seconds:.0f} s)")
    return 0 if right == len(questions) else 1


if __name__ == "__main__":
    sys.exit(main())
