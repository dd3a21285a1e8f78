"""Parts of the running product fail, one after another, while searches and ingestion go on; nothing may come of it.

    python -m tests.chaos.causing [--rounds 5] [--quiet-s 5]

No answer may be wrong: it equals that of a quiet moment, or it is an error with an honest status. No document that was
acknowledged may be lost. For each fault it is told how long it took from the moment its cause was gone (or, of a kill,
from the kill) until every search was answered again. The last line has the figures.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from mambasearch.v1 import ingest_pb2, ingest_pb2_grpc

from encoder.evaluation.datasets import load_evaluation_set
from tests.chaos.asking import OpenChannel, Searches, ask_until, learn
from tests.chaos.faults import FAULTS, Fault, Unnoticed
from tests.chaos.node import MODULES, Node, PartEnded
from tests.chaos.sending import Sent, missing, send_until

TEXTS = Path("encoder/evaluation/datasets/squad_xquad_en")
DOCUMENTS, QUESTIONS = 40, 20
CLIENTS = 3
START_TIMEOUT_S = 120.0
SETTLE_TIMEOUT_S = 90.0
RIGHT_IN_A_ROW = 60  # answers, before the next fault


@dataclass(slots=True)
class Outcome:
    """What became of one kind of fault, over all rounds."""

    recoveries_s: list[float] = field(default_factory=list)
    failed: int = 0  # searches with an honest error
    notes: list[str] = field(default_factory=list)


@dataclass(slots=True)
class Report:
    """What a run found."""

    outcomes: dict[str, Outcome] = field(default_factory=lambda: defaultdict(Outcome))
    searches: Searches = field(default_factory=Searches)
    sent: Sent = field(default_factory=Sent)
    problems: list[str] = field(default_factory=list)


async def run(folder: Path, faults: Sequence[Fault], rounds: int, quiet_s: float) -> Report:
    """Start everything, learn the right answers, and cause all faults in each round."""
    node, report, done = Node(folder), Report(), asyncio.Event()
    working: list[asyncio.Task[None]] = []
    try:
        await node.link.start()
        for part in MODULES:
            node.start(part)
        for part in MODULES:
            await node.until_healthy(part, START_TIMEOUT_S)
        known = await learn(node.channel, await _fill(node.channel))
        working = [
            asyncio.create_task(ask_until(done, node.channel, known, report.searches, 7 * number))
            for number in range(CLIENTS)
        ]
        working.append(asyncio.create_task(send_until(done, node.channel, report.sent)))
        await asyncio.sleep(quiet_s)
        for _ in range(rounds):
            for fault in faults:
                await _cause(fault, node, report)
                node.check_running()
                await asyncio.sleep(quiet_s)
        done.set()
        await asyncio.wait_for(asyncio.gather(*working), SETTLE_TIMEOUT_S)
        report.problems += await missing(node.channel, report.sent)
    except PartEnded as ended:
        report.problems.append(str(ended))
    finally:
        for task in working:
            task.cancel()
        await asyncio.gather(*working, return_exceptions=True)
        await node.close()
    report.problems += report.searches.wrong + report.searches.dishonest() + report.sent.problems
    return report


async def _cause(fault: Fault, node: Node, report: Report) -> None:
    began = time.monotonic()
    before = len(report.sent.acknowledged)
    outcome = report.outcomes[fault.name]
    try:
        note = await fault.act(node)
    except Unnoticed as problem:
        report.problems.append(f"{fault.name}: {problem}")
        return
    gone = time.monotonic()
    try:
        async with asyncio.timeout(SETTLE_TIMEOUT_S):
            while report.searches.ok_in_a_row(gone) < RIGHT_IN_A_ROW or len(report.sent.acknowledged) == before:  # noqa: ASYNC110
                await asyncio.sleep(0.1)
    except TimeoutError:
        report.problems.append(f"{fault.name}: not all was answered again within {SETTLE_TIMEOUT_S:.0f} s")
        return
    answered_s, failed = report.searches.recovered(began)
    recovery_s = max(0.0, answered_s - (gone - began))
    outcome.recoveries_s.append(recovery_s)
    outcome.failed += failed
    outcome.notes.append(note)
    if recovery_s > fault.recovery_max_s:
        report.problems.append(
            f"{fault.name}: all was answered again after {recovery_s:.1f} s; {fault.recovery_max_s:.0f} s are allowed"
        )
    print(f"{fault.name} ({note}): recovered after {recovery_s:.1f} s, {failed} searches with an error", flush=True)


async def _fill(open_channel: OpenChannel) -> list[str]:
    """Ingest paragraphs; gives questions about them."""
    found = load_evaluation_set(TEXTS)
    documents = found.documents[:DOCUMENTS]
    names = {document.document_id for document in documents}
    requests = [
        ingest_pb2.IngestDocumentsRequest(document_id=each.document_id, text=each.text, title=each.title)
        for each in documents
    ]
    async with open_channel("ingest") as channel:
        async for response in ingest_pb2_grpc.IngestServiceStub(channel).IngestDocuments(iter(requests), timeout=120):
            assert response.outcome == ingest_pb2.INGEST_OUTCOME_INGESTED, response
    about = [text for query_id, text in found.queries.items() if names & found.qrels[query_id].keys()]
    return about[:: max(1, len(about) // QUESTIONS)][:QUESTIONS]


def table(report: Report) -> str:
    """Set a Markdown table of the faults."""
    lines = ["| fault | times | recovered after, median and most | searches with an error | |", "|---|---|---|---|---|"]
    for name, outcome in report.outcomes.items():
        times = sorted(outcome.recoveries_s) or [float("nan")]
        lines.append(
            f"| {name} | {len(outcome.recoveries_s)} | {times[len(times) // 2]:.1f} s, {times[-1]:.1f} s | "
            f"{outcome.failed} | {outcome.notes[-1] if outcome.notes else ''} |"
        )
    return "\n".join(lines)


def summary(report: Report, rounds: int) -> str:
    """Say in one line what was found."""
    recoveries = [seconds for outcome in report.outcomes.values() for seconds in outcome.recoveries_s]
    searches = report.searches
    return (
        f"{'FAIL' if report.problems else 'PASS'}: {rounds} rounds of {len(report.outcomes)} faults, "
        f"{len(searches.asked):,} searches, {len(searches.wrong)} wrong answers (bar 0), "
        f"{len(report.sent.acknowledged):,} documents acknowledged, recovered after "
        f"{max(recoveries, default=float('nan')):.1f} s at most, {len(report.problems)} problems (bar 0)"
    )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--quiet-s", type=float, default=5.0)
    parser.add_argument("--only", help="a part of the name of the faults to cause")
    given = parser.parse_args()
    faults = [fault for fault in FAULTS if (given.only or "") in fault.name]
    with tempfile.TemporaryDirectory(prefix="chaos-") as folder:
        report = asyncio.run(run(Path(folder), faults, given.rounds, given.quiet_s))
    for problem in report.problems[:30]:
        print(problem)
    print(table(report))
    print(summary(report, given.rounds))
    return 1 if report.problems else 0


if __name__ == "__main__":
    sys.exit(main())
