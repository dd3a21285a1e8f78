"""Which processes stay light: torch and Ray are loaded where models run, and nowhere else."""

import subprocess
import sys

import pytest

LIGHT = [
    "encoder.client",
    "encoder.grpc_errors",
    "services.search_service",
    "services.ingest_service",
    "services.index_owner",
    "services.machine.supervisor",
    "services.machine.preflight",
    "services.settings",
    "services.search.searcher",
    "services.encoding.replica",
    "services.cli",
]
# Ray is imported once its environment is set, torch where the replica loads its model.
LAZY = ["services.encoder_service"]
SCRIPT = (
    "import importlib, sys; importlib.import_module(sys.argv[1]); print(*sorted({'torch', 'ray'} & set(sys.modules)))"
)


@pytest.mark.parametrize("module", [*LIGHT, *LAZY])
def test_importing_loads_neither_torch_nor_ray(module: str) -> None:
    run = subprocess.run([sys.executable, "-c", SCRIPT, module], capture_output=True, text=True, timeout=60)
    assert run.returncode == 0, run.stderr
    assert run.stdout.split() == []
