"""Parts of the whole product fail during load: no wrong answer, no lost acknowledgement, and all recovers by itself."""

from pathlib import Path

import pytest

from tests.chaos.causing import run, summary, table
from tests.chaos.faults import FAULTS


@pytest.mark.timeout(280)
async def test_faults_during_load_cost_no_answer_and_no_document(tmp_path: Path) -> None:
    report = await run(tmp_path, FAULTS, rounds=1, quiet_s=1.0)
    print(table(report))
    print(summary(report, 1))
    assert not report.problems
    assert {name: len(outcome.recoveries_s) for name, outcome in report.outcomes.items()} == {
        fault.name: 1 for fault in FAULTS
    }
    # The load was there, and the faults were felt: otherwise nothing was tested.
    assert len(report.searches.asked) > 500
    assert len(report.sent.acknowledged) > 50
    assert report.outcomes["index owner killed"].failed > 0
