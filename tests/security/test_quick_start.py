"""What docs/security.md says is so: its certificates, its key, its commands, its client."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from services.cli.app import run
from services.door.key_ring import read_key_file
from services.door.settings import DoorSettings
from tests.fakes import FakeEncoder
from tests.serving import services_running
from tests.test_readme import BLOCKS, ROOT, shell


def test_the_quick_start_is_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "secure"
    shell(BLOCKS["security"].replace("build/secure", str(folder)))
    (entry,) = read_key_file(folder / "keys.json").keys
    assert entry.tenants == ("default",)
    door = DoorSettings(tls_cert=folder / "server.pem", tls_key=folder / "server.key", keys_file=folder / "keys.json")
    (tmp_path / "apples.txt").write_text("Apples want cold winters.")
    with services_running(tmp_path / "data", FakeEncoder, door=door) as targets:
        known = ["--tls-ca", str(folder / "ca.pem"), "--api-key-file", str(folder / "app.key")]
        assert run([*known, "ingest", str(tmp_path / "apples.txt"), "--target", targets.ingest]) == 0
        assert run([*known, "documents", "list", "--target", targets.ingest]) == 0
        capsys.readouterr()
        command = BLOCKS["security-commands"].replace("build/secure", str(folder))
        assert "Apples want cold winters." in shell(command.replace("127.0.0.1:50051", targets.search))
        # The key alone, without the authority, and the authority without a key.
        plain = ["search", "apples", "--target", targets.search]
        assert run([*known[2:], *plain]) == 69
        assert run([*known[:2], *plain]) == 77
        assert "There is no key or token" in capsys.readouterr().err
        assert run([*known, *plain, "--tenant", "other"]) == 77
        code = BLOCKS["security-client"].replace("build/secure", str(folder))
        done = subprocess.run(
            [sys.executable, "-c", code.replace("127.0.0.1:50051", targets.search)],
            cwd=ROOT,
            env=os.environ,  # noqa: TID251 - of a process of its own
            capture_output=True,
            text=True,
            check=True,
            timeout=60,
        )
    assert "apples.txt Apples want cold winters." in done.stdout
