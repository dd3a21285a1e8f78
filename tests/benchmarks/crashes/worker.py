"""The ingestion worker with failpoints between index and journal, and short leases: the start of a process for tests.

python -m tests.benchmarks.crashes.worker FOLDER NUMBER

The clock of worker 1 is ahead of that of worker 0, as on another machine.
"""

import sys
import time
from pathlib import Path
from typing import Any

import ingest.collecting
from ingest.index.interface import VectorIndex
from ingest.journal import Journal
from services import backends, ingest_service
from tests.benchmarks.crashes.failpoints import Failpoints

LEASE_S = 3.0
AHEAD_S = 1.0


def main(folder: Path, number: int) -> int:
    open_index, open_journal = backends.open_index, Journal.open

    async def failing_index(**named: Any) -> VectorIndex:
        return Failpoints(await open_index(**named), folder)  # type: ignore[return-value]

    async def failing_journal(url: str) -> Journal:
        journal = await open_journal(url, lease_s=LEASE_S, now=lambda: time.time() + number * AHEAD_S)
        return Failpoints(journal, folder)  # type: ignore[return-value]

    backends.open_index = failing_index
    Journal.open = failing_journal  # type: ignore[method-assign,assignment]
    ingest.collecting.HEARTBEAT_S = 0.5
    return ingest_service.main()


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), int(sys.argv[2])))
