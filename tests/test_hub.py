"""Models by hub id: what is downloaded, what is taken from the cache, and what is said where neither works."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from encoder.errors import MambaSearchError
from encoder.hub import is_hub_id, local_folder, needed_files, repository_of
from encoder.layouts.opening import open_model
from tests import upstream
from tests.fake_hub import hub_running

CHECK = (
    "import sys; from pathlib import Path; from services.encoding.model_folder import check_model;"
    "config, fingerprint = check_model(Path(sys.argv[1])); print(config.name, config.d_model, fingerprint)"
)
COMMAND = "import sys; from services.cli.app import run; sys.exit(run(sys.argv[1:]))"


def python(home: Path, code: str, *arguments: str, **changes: str) -> subprocess.CompletedProcess[str]:
    """Run code in a process of its own: huggingface_hub reads its environment when it is imported."""
    settings = {"HF_HOME": str(home), "HF_HUB_DISABLE_XET": "1", "HF_HUB_DISABLE_PROGRESS_BARS": "1"}
    environment = os.environ | settings | changes  # noqa: TID251 - for a process of its own
    command = [sys.executable, "-c", code, *arguments]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=120)


def test_a_model_is_downloaded_once_and_then_serves_offline(tmp_path: Path) -> None:
    repository = tmp_path / "repository"
    upstream.mamba2().save_pretrained(repository)
    upstream.write_tokenizer(repository)
    for unneeded in ("README.md", "pytorch_model.bin", "consolidated.safetensors", "tokenizer.model.v3"):
        (repository / unneeded).write_text("not asked for")
    home = tmp_path / "home"
    with hub_running(repository, "org/tiny") as (url, asked):
        first = python(home, CHECK, "org/tiny", HF_ENDPOINT=url)
        assert first.returncode == 0, first.stderr
        got = {line.rpartition("/")[2] for line in asked if line.startswith("GET /org/tiny/resolve/")}
        weights = {"model.safetensors"}
        assert got - {"generation_config.json"} == {"config.json", "tokenizer.json", "tokenizer_config.json"} | weights
        asked.clear()
        assert python(home, CHECK, "org/tiny", HF_ENDPOINT=url).stdout == first.stdout
        assert not [line for line in asked if "org/tiny" in line]
    offline = python(home, CHECK, "org/tiny", HF_HUB_OFFLINE="1")
    assert offline.stdout == first.stdout
    name, width, _ = first.stdout.split()
    assert (name, width) == ("org/tiny", "32")


def test_conversion_takes_the_tokenizer_alone_from_another_repository(tmp_path: Path) -> None:
    repository = tmp_path / "repository"
    upstream.mamba2().save_pretrained(repository)
    upstream.write_tokenizer(repository, eos=True)
    source, destination = str(upstream.STATE_SPACES / "mamba2"), str(tmp_path / "model")
    with hub_running(repository, "org/words") as (url, asked):
        arguments = ["convert", source, destination, "--tokenizer", "org/words"]
        done = python(tmp_path / "home", COMMAND, *arguments, HF_ENDPOINT=url)
        assert done.returncode == 0, done.stderr
        assert not [line for line in asked if line.endswith("safetensors")]
    assert open_model(Path(destination)).config.eos_token == "</s>"


def test_one_sentence_says_what_to_do_without_a_connection(tmp_path: Path) -> None:
    for changes in ({"HF_HUB_OFFLINE": "1"}, {"HF_ENDPOINT": "http://127.0.0.1:9"}):
        done = python(tmp_path, COMMAND, "convert", "org/tiny", str(tmp_path / "out"), **changes)
        assert done.returncode == 6
        assert done.stderr.count("\n") == 1
        assert "org/tiny is no folder, is not in the hub's cache" in done.stderr
        assert "hf download org/tiny --local-dir" in done.stderr


def test_an_unknown_repository_is_told_by_name(tmp_path: Path) -> None:
    with hub_running(tmp_path, "org/tiny") as (url, _):
        done = python(tmp_path / "home", COMMAND, "convert", "org/other", str(tmp_path / "out"), HF_ENDPOINT=url)
    assert done.returncode == 6
    assert "org/other is no folder" in done.stderr


def test_without_huggingface_hub_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(MambaSearchError, match=r"no folder org/tiny; .* install mamba-search\[hub\]"):
        open_model(Path("org/tiny"))


def test_folders_are_not_taken_for_ids(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "models").mkdir()
    assert is_hub_id(Path("org/tiny-1.3b"))
    for folder in ("models/gone", "model", "./org/tiny/deeper", "/org/tiny", "../org", "org/..", "a b/c"):
        assert not is_hub_id(Path(folder)), folder
        assert local_folder(Path(folder)) == Path(folder)


def test_only_one_kind_of_weights_is_needed() -> None:
    codestral = [
        *("config.json", "params.json", "tokenizer.json", "tokenizer.model.v3", "README.md"),
        *("consolidated.safetensors", "model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"),
        "model.safetensors.index.json",
    ]
    assert needed_files(codestral) == sorted({*codestral} - {"README.md", "tokenizer.model.v3", codestral[5]})
    assert needed_files(["params.json", "consolidated.safetensors"]) == ["consolidated.safetensors", "params.json"]
    assert needed_files(["config.json", "pytorch_model.bin"]) == ["config.json", "pytorch_model.bin"]
    embedder = [
        "modules.json",
        "config.json",
        "model.safetensors",
        "1_Pooling/config.json",
        "2_Dense/model.safetensors",
    ]
    others = ["onnx/model.safetensors", "onnx/config.json", "1_Pooling/deeper/config.json", "modeling_mamba2.py"]
    assert needed_files([*embedder, *others]) == sorted(embedder)
    assert needed_files(embedder, weights=False) == ["1_Pooling/config.json", "config.json", "modules.json"]


def test_the_name_of_a_cached_model_is_its_id() -> None:
    assert repository_of(Path("/c/models--org--a-b--c/snapshots/0001")) == "org/a-b--c"
    assert repository_of(Path("/models/mine")) is None
