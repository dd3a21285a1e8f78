"""The committed gRPC stubs are what `make stubs` generates."""

import subprocess
import sys
from pathlib import Path

PROTO = Path(__file__).parent.parent / "proto"


def test_committed_stubs_are_the_generated_ones(tmp_path: Path) -> None:
    sources = sorted(str(path.relative_to(PROTO)) for path in PROTO.rglob("*.proto"))
    assert sources
    outputs = [f"--{kind}_out={tmp_path}" for kind in ("python", "pyi", "grpc_python")]
    command = [sys.executable, "-m", "grpc_tools.protoc", f"--proto_path={PROTO}", *outputs, *sources]
    subprocess.run(command, check=True, timeout=60)

    generated = {path.relative_to(tmp_path): path.read_bytes() for path in tmp_path.rglob("*_pb2*.py*")}
    committed = {path.relative_to(PROTO): path.read_bytes() for path in PROTO.rglob("*_pb2*.py*")}
    committed = {path: data for path, data in committed.items() if path.suffix in {".py", ".pyi"}}
    assert generated.keys() == committed.keys()
    assert len(generated) == 3 * len(sources)
    for path, data in generated.items():
        assert data == committed[path], f"{path} is stale; run `make stubs`"
