"""``mamba-search convert``: folders of other layouts, and of ours, written in ours; then they encode text."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from encoder.checkpoint import load_model
from encoder.layouts.opening import OWN, open_model
from encoder.model_config import DEFAULT_MODEL_FOLDER
from encoder.tokenizer import Tokenizer
from encoder.weights import is_matrix
from services.cli.app import run
from services.encoding.model_folder import check_model
from tests import upstream
from tests.tiny_model import save_tiny_model

EXIT_USAGE, EXIT_CHECKPOINT = 2, 6


@pytest.fixture(autouse=True)
def settings(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MAMBASEARCH_ENCODER_THREADS", "1")
    monkeypatch.setenv("COLUMNS", "200")


def refusal(capsys: pytest.CaptureFixture[str]) -> str:
    shown = capsys.readouterr()
    assert shown.out == ""
    assert shown.err.count("\n") == 1
    return shown.err


@pytest.mark.parametrize("name", ["mamba1", "mamba2"])
def test_a_base_model_with_a_tokenizer_encodes_text(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    source, destination = upstream.STATE_SPACES / name, tmp_path / "out" / "model"
    tokenizer = upstream.write_tokenizer(tmp_path / "tokenizer")
    arguments = ["--tokenizer", str(tokenizer.parent), "--eos-token", "</s>", "--bits", "32", "--name", "mine"]
    limits = ["--query-prompt", "q ", "--query-tokens-max", "7", "--passage-tokens-max", "70"]
    assert run(["convert", str(source), str(destination), *arguments, *limits]) == 0
    model = load_model(destination)
    parameters = sum(parameter.numel() for parameter in model.parameters())
    assert f"mine, {name}, {parameters:,} parameters in 32 bits" in capsys.readouterr().out
    found, expected = model.state_dict(), load_model(source).state_dict()
    assert all(torch.equal(found[key], expected[key]) for key in expected)
    config, _ = check_model(destination)
    assert open_model(destination).layout == OWN
    assert (config.name, config.eos_token, config.pooling, config.query_prompt) == ("mine", "</s>", "eos", "q ")
    assert (config.query_tokens_max, config.passage_tokens_max) == (7, 70)
    assert run(["encode", "a b c", "d", "--model", str(destination)]) == 0
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [row["token_count"] for row in rows] == [4, 2]
    assert all(np.isclose(np.linalg.norm(row["embedding"]), 1, atol=1e-4) for row in rows)
    assert not list(tmp_path.glob("out/.*"))


@pytest.mark.parametrize("bits", [8, 16, 32])
def test_bits_are_those_of_the_matrices(tmp_path: Path, bits: int) -> None:
    upstream.mamba1().save_pretrained(tmp_path / "source")
    upstream.write_tokenizer(tmp_path / "source", bos=True, eos=True)
    assert run(["convert", str(tmp_path / "source"), str(tmp_path / "model"), "--bits", str(bits)]) == 0
    exact, found = load_model(tmp_path / "source"), load_model(tmp_path / "model")
    assert found.config.model_dump() == exact.config.model_dump()
    assert (found.config.bos_token, found.config.eos_token) == ("<s>", "</s>")
    for name, value in exact.state_dict().items():
        error = (found.state_dict()[name] - value).abs().max()
        assert error <= (value.abs().max() / {8: 250, 16: 250, 32: 1e30}[bits] if is_matrix(name) else 0), name


def test_our_own_model_can_be_given_other_settings(tmp_path: Path) -> None:
    source = save_tiny_model(tmp_path / "tiny")
    assert run(["convert", str(source), str(tmp_path / "mean"), "--pooling", "mean", "--bits", "32"]) == 0
    config = open_model(tmp_path / "mean").config
    assert config.model_dump() == open_model(source).config.model_dump() | {"pooling": "mean"}
    assert Tokenizer.load(tmp_path / "mean").fingerprint == Tokenizer.load(DEFAULT_MODEL_FOLDER).fingerprint


def test_what_the_tokenizer_given_wraps_texts_in(tmp_path: Path) -> None:
    tokenizer = upstream.write_tokenizer(tmp_path / "tokenizer", bos=True, eos=True)
    source = str(upstream.STATE_SPACES / "mamba2")
    assert run(["convert", source, str(tmp_path / "model"), "--tokenizer", str(tokenizer)]) == 0
    config = open_model(tmp_path / "model").config
    assert (config.bos_token, config.eos_token, config.pooling) == ("<s>", "</s>", "eos")


def test_a_missing_tokenizer_is_asked_for(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source, destination = str(upstream.STATE_SPACES / "mamba2"), tmp_path / "model"
    assert run(["convert", source, str(destination)]) == EXIT_CHECKPOINT
    assert "has no tokenizer.json; name one with --tokenizer" in refusal(capsys)
    assert run(["convert", source, str(destination), "--tokenizer", str(tmp_path)]) == EXIT_CHECKPOINT
    assert "has no tokenizer.json" in refusal(capsys)
    assert not destination.exists()


def test_a_tokenizer_with_more_tokens_than_the_model_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tokenizer = str(DEFAULT_MODEL_FOLDER / "tokenizer.json")
    source = str(upstream.STATE_SPACES / "mamba2")
    assert run(["convert", source, str(tmp_path / "model"), "--tokenizer", tokenizer]) == EXIT_CHECKPOINT
    assert "has 30522 tokens; vocabulary_size of the model mamba2 is 32" in refusal(capsys)


@pytest.mark.parametrize(
    ("option", "value", "words"),
    [
        ("--eos-token", "<end>", "eos_token '<end>'"),
        ("--query-tokens-max", "0", "query_tokens_max"),
        ("--pooling", "eos", "pooling eos needs an eos_token"),
    ],
)
def test_settings_that_cannot_be(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], option: str, value: str, words: str
) -> None:
    tokenizer = str(upstream.write_tokenizer(tmp_path / "tokenizer"))
    arguments = ["convert", str(upstream.STATE_SPACES / "mamba2"), str(tmp_path / "model"), "--tokenizer", tokenizer]
    assert run([*arguments, option, value]) == EXIT_CHECKPOINT
    assert words in refusal(capsys)
    assert not (tmp_path / "model").exists()


def test_nothing_is_overwritten_and_nothing_half_is_left(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tokenizer = upstream.write_tokenizer(tmp_path / "tokenizer")
    folder = upstream.copy_state_spaces("mamba2", tmp_path)
    assert run(["convert", str(folder), str(tokenizer.parent), "--tokenizer", str(tokenizer)]) == EXIT_USAGE
    assert "is there already, and not empty" in refusal(capsys)
    weights = torch.load(folder / "pytorch_model.bin", weights_only=True)
    weights["backbone.norm_f.weight"][0] = float("inf")
    torch.save(weights, folder / "pytorch_model.bin")
    empty = tmp_path / "empty"
    empty.mkdir()
    assert run(["convert", str(folder), str(empty), "--tokenizer", str(tokenizer)]) == EXIT_CHECKPOINT
    assert "backbone.norm_f.weight holds values that are not finite" in refusal(capsys)
    assert not list(empty.iterdir())
    assert {path.name for path in tmp_path.iterdir()} == {"tokenizer", "mamba2", "empty"}
