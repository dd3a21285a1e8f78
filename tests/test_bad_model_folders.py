"""What may be wrong with a model folder besides a missing or misshapen weight: one sentence each, never a traceback."""

import errno
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

import pytest
import safetensors.torch
import torch

from encoder import conversion
from encoder.checkpoint import load_model
from encoder.conversion import convert
from encoder.errors import CheckpointError, InvalidInput, StorageFull
from encoder.layouts.opening import open_model
from services.encoding.model_folder import check_model
from tests import upstream
from tests.tiny_model import save_tiny_model


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return save_tiny_model(tmp_path / "model")


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [
        ("n_layers", 10**12, "n_layers is 1000000000000; .* less than or equal to 1024"),
        ("d_model", 10**30, "d_model is 10+; .* less than or equal to"),
        ("d_state", -5, "d_state is -5; .* greater than or equal to 0"),
        ("norm_eps", float("inf"), "norm_eps is inf; .* finite"),
        ("passage_tokens_max", 2**31, "passage_tokens_max is 2147483648; "),
        ("passage_prompt", "\ud800", "passage_prompt is .*; it is not whole Unicode text"),
        ("head_dim", 7, r"config\.json: head_dim 7 does not divide"),
        ("surprise", 1, "surprise is no key of a model's configuration"),
    ],
)
def test_our_configuration(folder: Path, key: str, value: object, words: str) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {key: value}))
    with pytest.raises(CheckpointError, match=words):
        load_model(folder)


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [
        ("hidden_size", float("inf"), "hidden_size is inf; a whole number"),
        ("hidden_size", float("nan"), "hidden_size is nan; a whole number"),
        ("num_hidden_layers", None, "num_hidden_layers is None; a whole number"),
        ("num_hidden_layers", 10**12, "n_layers is 1000000000000; "),
        ("layer_norm_epsilon", 10**400, "layer_norm_epsilon is 10+; a finite number"),
    ],
)
def test_a_configuration_of_transformers(tmp_path: Path, key: str, value: object, words: str) -> None:
    upstream.mamba1().save_pretrained(tmp_path)
    path = tmp_path / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {key: value}))
    with pytest.raises(CheckpointError, match=words):
        load_model(tmp_path)


def test_configurations_of_no_layout(folder: Path) -> None:
    path = folder / "config.json"
    for text, words in (
        ('{"hidden_size": 8}', "none of the keys that tell a layout: architecture .* model_type"),
        ("[" * 200_000, "nested too deep"),
    ):
        path.write_text(text)
        with pytest.raises(CheckpointError, match=words):
            open_model(folder)


def test_folders_that_cannot_be_looked_at(tmp_path: Path) -> None:
    loop = tmp_path / "loop"
    loop.symlink_to("loop")
    for source, words in ((loop, "symbolic links"), (tmp_path / ("n" * 300), "too long"), (Path("a\0b"), "null")):
        with pytest.raises(CheckpointError, match=words):
            load_model(source)


@pytest.mark.parametrize("name", ["", "..", "n" * 300])
def test_shards_without_a_file_name(tmp_path: Path, name: str) -> None:
    upstream.write_bin_shards(tmp_path, upstream.mamba2())
    index = tmp_path / "pytorch_model.bin.index.json"
    index.write_text(json.dumps({"weight_map": {"key": name}}))
    with pytest.raises(CheckpointError, match="weight_map puts key into"):
        open_model(tmp_path)


class Shell:
    """What a pickle with code in it usually calls: a module that torch knows to be harmful."""

    def __reduce__(self) -> tuple[Callable[..., object], tuple[object, ...]]:
        return os.system, ("false",)


def test_what_a_pickle_may_hold(tmp_path: Path) -> None:
    folder = upstream.copy_state_spaces("mamba2", tmp_path)
    path = folder / "pytorch_model.bin"
    name = "backbone.embedding.weight"
    for content, words in (
        ({"a": Shell()}, "more than tensors"),
        ({1: torch.zeros(1)}, "1 is Tensor, not a tensor with a name"),
        ({name: torch.empty(32, 8, device="meta")}, f"{name} is sparse or has no values"),
        ({name: torch.zeros(32, 8).to_sparse()}, f"{name} is sparse or has no values"),
    ):
        torch.save(content, path)
        with pytest.raises(CheckpointError, match=words):
            load_model(folder)
    # No code: an error page, a placeholder of git-lfs, a pickle of nothing.
    for data in (b"<html>404</html>", b"version https://git-lfs.github.com/spec/v1\n", b"."):
        path.write_bytes(data)
        with pytest.raises(CheckpointError, match="is not a file of tensors"):
            load_model(folder)


def test_files_of_old_versions_of_torch_are_served_too(tmp_path: Path) -> None:
    upstream.write_bin(tmp_path, upstream.mamba1())
    upstream.write_tokenizer(tmp_path, eos=True)
    path = tmp_path / "pytorch_model.bin"
    torch.save(torch.load(path, weights_only=True), path, _use_new_zipfile_serialization=False)
    load_model(tmp_path)
    check_model(tmp_path)


def test_weights_beyond_float32_and_single_numbers_in_8_bits(folder: Path) -> None:
    path = folder / "model.safetensors"
    whole = safetensors.torch.load_file(path)
    name = "backbone.embedding.weight"
    for value, words in (
        (whole[name].double() * 1e300, "not finite"),
        (torch.tensor(1, dtype=torch.int8), "0 dimensions, not a matrix"),
    ):
        safetensors.torch.save_file(whole | {name: value}, path)
        with pytest.raises(CheckpointError, match=words):
            load_model(folder)


def test_a_tokenizer_that_cannot_tokenize(tmp_path: Path) -> None:
    upstream.mamba1().save_pretrained(tmp_path)
    path = upstream.write_tokenizer(tmp_path, eos=True)
    values = json.loads(path.read_text())
    values["model"]["vocab"] = {}
    path.write_text(json.dumps(values | {"added_tokens": [], "post_processor": None}))
    with pytest.raises(CheckpointError, match=r"tokenizer\.json cannot tokenize a text"):
        open_model(tmp_path)


def test_destinations_that_cannot_be_written(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for destination in (folder / "config.json" / "x", tmp_path / ("n" * 300)):
        with pytest.raises(InvalidInput, match=r"cannot be (written|read) \(.*\); name"):
            convert(folder, destination)
    full = safetensors.SafetensorError(f"I/O error: No space left on device (os error {errno.ENOSPC})")
    for failure in (full, OSError(errno.ENOSPC, "No space left on device")):

        def fail(*_: object, failure: Exception = failure, **__: object) -> NoReturn:
            raise failure

        monkeypatch.setattr(conversion, "save_model", fail)
        with pytest.raises(StorageFull, match=r"The disk of .* is full"):
            convert(folder, tmp_path / "new")
    assert {path.name for path in tmp_path.iterdir()} == {"model"}
