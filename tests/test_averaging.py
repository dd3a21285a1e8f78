"""The mean of several models' weights."""

from pathlib import Path

import pytest
import torch

from encoder.checkpoint import load_model
from encoder.errors import CheckpointError, InvalidInput
from encoder.training.averaging import average, main
from tests.tiny_model import save_tiny_model


def test_weights_lie_between_those_of_the_models(tmp_path: Path) -> None:
    folders = [save_tiny_model(tmp_path / str(seed), seed=seed) for seed in range(2)]
    found = average(folders, [0.25, 0.75], tmp_path / "mean")
    one, other, written = (load_model(folder).state_dict() for folder in (*folders, tmp_path / "mean"))
    for name, tensor in found.state_dict().items():
        torch.testing.assert_close(tensor, 0.25 * one[name] + 0.75 * other[name])
        torch.testing.assert_close(tensor, written[name])
    assert any(not torch.equal(one[name], other[name]) for name in one)
    assert (tmp_path / "mean" / "tokenizer.json").read_bytes() == (folders[0] / "tokenizer.json").read_bytes()


@pytest.mark.parametrize("weights", [[1.0], [0.5, 0.6], [-0.5, 1.5]])
def test_weights_that_make_no_mean_are_refused(weights: list[float], tmp_path: Path) -> None:
    folders = [save_tiny_model(tmp_path / str(seed), seed=seed) for seed in range(2)]
    with pytest.raises(InvalidInput, match="for 2 models; give one each, 0 or more, 1 in sum"):
        average(folders, weights, tmp_path / "mean")


def test_models_of_other_shapes_are_refused_and_told_in_a_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folders = [save_tiny_model(tmp_path / str(layers), n_layers=layers) for layers in (1, 2)]
    with pytest.raises(CheckpointError, match="is another architecture than"):
        average(folders, [0.5, 0.5], tmp_path / "mean")
    given = [*map(str, folders), "--weights", "0.5", "0.5", "--out", str(tmp_path / "mean")]
    assert main(given) == 1
    assert "their mean is no model" in capsys.readouterr().err
    assert not (tmp_path / "mean").exists()
