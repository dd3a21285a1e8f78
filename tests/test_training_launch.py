"""Training from the command line, by torchrun and by Ray Train: the same configuration, the same model."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from encoder.errors import InvalidInput
from encoder.training.ranks import choose_device
from services.cli.app import run
from tests.tiny_model import save_tiny_model
from tests.training_data import logged, write_sources

CONFIG = """
out = "{root}/{out}"
cache = "{root}/cache"
processes = 1
device = "cpu"
[model]
start = "{root}/start"
[optimizer]
learning_rate = 1e-3
[run]
steps = 4
dtype = "float32"
[[sources]]
name = "own"
format = "jsonl"
path = "{root}/pairs"
[[tasks]]
kind = "pairs"
batch_size = {batch_size}
query_widths = [32]
passage_widths = [64]
"""


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = write_sources(tmp_path_factory.mktemp("launch"))
    save_tiny_model(folder / "start")
    return folder


def write_config(root: Path, out: str, batch_size: int) -> Path:
    path = root / f"{out}.toml"
    path.write_text(CONFIG.format(root=root, out=out, batch_size=batch_size))
    return path


def python(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, *arguments], capture_output=True, text=True, check=False, timeout=250)


def weights(folder: Path) -> dict[str, torch.Tensor]:
    found: dict[str, torch.Tensor] = torch.load(folder / "state.pt", weights_only=True)["weights"]["shared"]
    return found


def assert_alike(found: Path, expected: Path) -> None:
    for name, value in weights(expected).items():
        torch.testing.assert_close(weights(found)[name], value, rtol=0, atol=1e-5, msg=name)


def test_the_command_trains_and_goes_on(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = str(write_config(root, "command", 8))
    assert run(["train", config, "--stop-after", "3"]) == 0
    assert [row["step"] for row in logged(root / "command")] == [1, 2, 3]
    assert run(["train", config, "--set", "run.steps=5"]) == 0
    assert [row["step"] for row in logged(root / "command")] == [1, 2, 3, 5]
    assert {"config.json", "model.safetensors", "tokenizer.json", "loss.svg"} <= {
        path.name for path in (root / "command").iterdir()
    }
    capsys.readouterr()
    assert run(["train", config, "--set", "optimizer.learning_rate=1"]) == 2
    assert "state.pt belongs to a run with another optimizer" in capsys.readouterr().err


def test_what_is_wrong_is_one_sentence(root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = str(write_config(root, "wrong", 8))
    (tmp_path / "bad.jsonl").write_text(json.dumps({"query": "q", "positive": "p"}) + "\n" + json.dumps({"query": "q"}))
    (tmp_path / "empty.jsonl").write_text("")
    for change, message in (
        (f"sources.0.path={tmp_path}/bad.jsonl", "bad.jsonl line 2: the query has no positive"),
        (f"sources.0.path={tmp_path}/empty.jsonl", "empty.jsonl"),
        (f"sources.0.path={tmp_path}/none.jsonl", "none.jsonl does not exist"),
        (f"model.start={tmp_path}", "config.json"),
        ("run.colour=3", "run.colour"),
    ):
        assert run(["train", config, "--set", change]) in (2, 6)
        told = capsys.readouterr().err
        assert message in told
        assert told.count("\n") == 1


def test_each_process_takes_a_gpu_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(InvalidInput, match="device is 'cuda', and there is no cuda:0; GPUs in sight: 0"):
        choose_device("cuda")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 4)
    assert [choose_device("auto", rank).index for rank in range(4)] == [0, 1, 2, 3]
    assert choose_device("cuda:2") == torch.device("cuda", 2)
    assert choose_device("cpu", 3) == torch.device("cpu")
    with pytest.raises(InvalidInput, match="'cuda:1' for several processes"):
        choose_device("cuda:1", 0)
    with pytest.raises(InvalidInput, match="there is no cuda:4; GPUs in sight: 4"):
        choose_device("auto", 4)
    with pytest.raises(InvalidInput, match="device is 'gpu'; it must be auto"):
        choose_device("gpu")


def test_torchrun_trains_in_two_processes(root: Path) -> None:
    assert run(["train", str(write_config(root, "one", 8))]) == 0
    config = write_config(root, "torchrun", 4)
    torchrun = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2")
    done = python(*torchrun, "-m", "encoder.training", "train", str(config), "--set", f"cache={root}/cache-of-two")
    assert done.returncode == 0, done.stderr
    assert "2 x cpu" in done.stderr
    assert_alike(root / "torchrun", root / "one")


def test_the_module_needs_training_s_packages_only(root: Path) -> None:
    config = str(write_config(root, "module", 8))
    names = ("grpc", "pydantic_settings", "qdrant_client", "ray", "tensorboard", "typer")
    code = (
        f"import runpy, sys; sys.modules.update(dict.fromkeys({names})); sys.argv[0] = 'training'; "
        "runpy.run_module('encoder.training', run_name='__main__')"
    )
    done = python("-c", code, "mine", config, "--set", "sources.0.mined=true", "--json")
    assert (done.returncode, json.loads(done.stdout)["source"]) == (0, "own-facts"), done.stderr
    done = python("-c", code, "train", config, "--stop-after", "2")
    assert done.returncode == 0, done.stderr
    rows = [json.loads(line) for line in done.stderr.splitlines()[1:]]
    assert [row["step"] for row in rows] == [1, 2]
    assert all(row["step_s"] > 0 for row in rows)
    done = python("-c", code, "train", config, "--ray-workers", "2")
    assert (done.returncode, done.stderr) == (1, "The package ray is missing; install ray[train].\n")


@pytest.mark.timeout(600)
def test_ray_trains_in_two_processes(root: Path) -> None:
    assert run(["train", str(write_config(root, "alone", 8))]) == 0
    config = write_config(root, "ray", 4)
    code = (
        f"from services.cli import main; import sys; sys.argv = ['', 'train', '{config}', '--ray-workers', '2']; main()"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=550)
    assert done.returncode == 0, done.stderr[-3000:]
    assert_alike(root / "ray", root / "alone")
