"""One Ray for all bulk loads of the tests, in a process of its own; encoder and Qdrant in this one."""

from __future__ import annotations

import os
import secrets
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.bulk.loading import ROOT
from tests.tiny_model import save_tiny_model

HEAD = """
import logging, sys, ray
context = ray.init(address="local", num_cpus=4, include_dashboard=False, object_store_memory=100 << 20,
                   logging_level=logging.ERROR, log_to_driver=False, _temp_dir=sys.argv[1])
print(context.address_info["gcs_address"], flush=True)
sys.stdin.read()
"""


@pytest.fixture(scope="session")
def ray_environment() -> dict[str, str]:
    """What Ray's processes and those that join them have in common."""
    token = secrets.token_hex(32)
    ours = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": token, "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0"}
    ours |= {"RAY_USAGE_STATS_ENABLED": "0", "OMP_NUM_THREADS": "1", "PYTHONPATH": f"{ROOT}:{ROOT / 'proto'}"}
    return os.environ | ours  # noqa: TID251 - for child processes


@pytest.fixture(scope="session")
def ray_address(ray_environment: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    folder = Path(f"/tmp/mamba-bulk-{os.getpid()}")  # the path of a socket must be short
    with subprocess.Popen(
        [sys.executable, "-c", HEAD, str(folder)],
        env=ray_environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    ) as process:
        assert process.stdout is not None
        yield process.stdout.readline().strip()
        assert process.stdin is not None
        process.stdin.close()
        process.wait(30)
    subprocess.run(["rm", "-rf", str(folder)], check=True)


@pytest.fixture(scope="session")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_model(tmp_path_factory.mktemp("model") / "tiny")
