"""What works in the background leaves the machine to the others, also where the kernel shares it out among sessions."""

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from services.machine.children import Child, Part

AUTOGROUP = Path("/proc/self/autogroup")
ASK = "import os, ingest.priority; ingest.priority.lower_priority({by}); print(os.nice(0))"


def niceness_of(by: int, inherited: int) -> tuple[int, str]:
    """Niceness of a process in a new session, and of that session."""
    show = f"{ASK.format(by=by)}; print(open('{AUTOGROUP}').read() if os.path.exists('{AUTOGROUP}') else '')"
    command = ["nice", "-n", str(inherited), sys.executable, "-c", show]
    lines = subprocess.run(command, capture_output=True, text=True, check=True, start_new_session=True).stdout.split(
        "\n"
    )
    return int(lines[0]), lines[1]


@pytest.mark.parametrize(("by", "inherited", "expected"), [(10, 0, 10), (0, 7, 7), (19, 10, 19)])
def test_a_process_and_its_session_get_the_same_niceness(by: int, inherited: int, expected: int) -> None:
    process, session = niceness_of(by, inherited)
    assert process - os.nice(0) == expected or process == 19
    if AUTOGROUP.exists():
        assert session.endswith(f"nice {process}")


@pytest.mark.parametrize("niceness", [0, 10])
def test_a_part_is_started_with_its_niceness(tmp_path: Path, niceness: int) -> None:
    part = Part("sleeper", "tests.sleeper", "127.0.0.1:1", niceness=niceness)
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parent.parent)}  # noqa: TID251 - for a child process
    child = Child.start(part, environment, tmp_path / "log")
    try:
        pid = int(_line(tmp_path / "log"))
        assert os.getpriority(os.PRIO_PROCESS, pid) - os.nice(0) == niceness
        if AUTOGROUP.exists() and niceness:
            assert f"nice {os.getpriority(os.PRIO_PROCESS, pid)}" in Path(f"/proc/{pid}/autogroup").read_text()
    finally:
        child.kill()


def _line(file: Path) -> str:
    ends = time.monotonic() + 30
    while not file.read_text().endswith("\n"):
        assert time.monotonic() < ends, "the child said nothing"
        time.sleep(0.02)
    return file.read_text()
