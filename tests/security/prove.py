"""Runs every check of security and says on the last line how many passed: ``python -m tests.security.prove``."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

FOLDERS = [Path(__file__).parent, Path(__file__).parent.parent / "door"]


class Tally:
    """Counts outcomes by file."""

    def __init__(self) -> None:
        self.passed: dict[str, int] = {}
        self.others: list[str] = []

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.passed and report.when == "call":
            name = report.nodeid.partition("::")[0]
            self.passed[name] = self.passed.get(name, 0) + 1
        elif not report.passed:
            self.others.append(f"{report.outcome}: {report.nodeid}")


def main() -> int:
    tally = Tally()
    code = pytest.main(["-q", *map(str, FOLDERS)], plugins=[tally])
    for name, count in sorted(tally.passed.items()):
        print(f"{count:>5}  {name}")  # noqa: T201 - the report
    for line in tally.others:
        print(line)  # noqa: T201 - likewise
    passed = sum(tally.passed.values())
    # One that is skipped proves nothing: it counts as one that failed.
    print(f"security: {passed} of {passed + len(tally.others)} checks passed")  # noqa: T201 - the last line
    return int(code) or len(tally.others) > 0


if __name__ == "__main__":
    sys.exit(main())
