"""Training configurations: those that ship, values from the command line, and one sentence for what is wrong."""

from pathlib import Path

import pytest

from encoder.errors import InvalidInput
from encoder.model_config import DEFAULT_MODEL_FOLDER
from encoder.training.config import CONFIGS_FOLDER, needs_teacher, read_config

MINIMAL = """
out = "out"
[model]
start = "default"
[optimizer]
learning_rate = 1e-4
[run]
steps = 10
[[sources]]
name = "own"
format = "jsonl"
path = "own.jsonl"
[[tasks]]
kind = "pairs"
batch_size = 4
"""


@pytest.mark.parametrize("path", sorted(CONFIGS_FOLDER.glob("*.toml")), ids=lambda path: path.stem)
def test_every_configuration_that_ships_is_valid_and_found_by_its_name(path: Path) -> None:
    found = read_config(Path(path.stem))
    assert found == read_config(path)
    assert found.teacher is not None or not any(needs_teacher(task) for task in found.tasks)


def test_the_papers_configurations_ship() -> None:
    names = {path.stem for path in CONFIGS_FOLDER.glob("*.toml")}
    assert {"msmarco-130m", "msmarco-370m", "msmarco-790m", "loco-2k", "loco-8k", "length-extension"} <= names
    for name, rate, epochs in (("msmarco-370m", 1e-5, 2), ("loco-2k", 5e-5, 2), ("loco-8k", 1e-5, 4)):
        found = read_config(Path(name))
        assert (found.optimizer.learning_rate, found.run.epochs) == (rate, epochs)


def test_values_may_be_changed_from_outside(tmp_path: Path) -> None:
    (tmp_path / "run.toml").write_text(MINIMAL)
    found = read_config(
        tmp_path / "run.toml",
        ["run.steps=20", "tasks.0.matryoshka=[64]", "out=elsewhere", "sources.0.path=other/rows.jsonl"],
    )
    assert (found.run.steps, found.tasks[0].matryoshka, found.out) == (20, (64,), Path("elsewhere"))
    assert found.sources[0].path == Path("other/rows.jsonl")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (["run.stepz=3"], r"run\.stepz: this table has no such key"),
        (["run.steps=0"], r"run\.steps: Input should be greater than or equal to 1, not 0\."),
        (["run.epochs=2"], r"run: give either steps or epochs"),
        (["tasks.0.kind=pears"], r"tasks\.0: .*'pears'"),
        (["tasks.0.sources=['others']"], r"tasks\.0\.sources names 'others'; the \[\[sources\]\] are own"),
        (["tasks.0.cosine_weight=1"], r"tasks\.0 learns from a teacher; give \[teacher\]"),
        (["tasks.0.info_nce_weight=0"], r"tasks\.0 has no weight above 0, so that nothing would be learnt"),
        (["tasks.0.words_weight=0.3"], r"tasks\.0\.words_weight adds to the teacher's similarities; give a relational"),
        (["tasks.0.query_widths=[20]"], r"tasks\.0\.query_widths\.0: .*multiple of 16, not 20"),
        (["tasks.0.query_widths=[64, 32]"], r"tasks\.0\.query_widths: widths must rise, .* they are \[64, 32\]"),
        (["tasks.0.passage_widths=[]"], r"tasks\.0\.passage_widths: widths must rise, and there must be one at least"),
        (["tasks.0.matryoshka=[0]"], r"tasks\.0\.matryoshka\.0: .*greater than 0, not 0"),
        (["optimizer.learning_rate=inf"], r"optimizer\.learning_rate: .*finite number, not inf"),
        (["sources.0.format=loco"], r"sources\.0: format loco needs corpus"),
        (["model.tokenizer=default"], r"model: fresh needs a tokenizer, and start brings its own"),
        (["tasks=[]"], r"tasks: Tuple should have at least 1 item"),
        (["steps"], "--set steps is not KEY=VALUE"),
        (["tasks.5.batch_size=3"], "5 is not a place"),
        (["out.folder=3"], "--set out.folder=3: out is 'out', which has no keys"),
    ],
)
def test_what_is_wrong_is_named(tmp_path: Path, changes: list[str], message: str) -> None:
    (tmp_path / "run.toml").write_text(MINIMAL)
    with pytest.raises(InvalidInput, match=message) as caught:
        read_config(tmp_path / "run.toml", changes)
    assert "\n" not in str(caught.value)


def test_default_is_the_model_that_ships_wherever_a_folder_is_named(tmp_path: Path) -> None:
    (tmp_path / "run.toml").write_text(MINIMAL)
    found = read_config(tmp_path / "run.toml", ["model.separate=true", "model.passage_start=default"]).model
    assert found.start_folder == found.passage_folder == found.tokenizer_folder == DEFAULT_MODEL_FOLDER
    found = read_config(tmp_path / "run.toml", ["model.separate=true", "model.passage_start=other"]).model
    assert (found.start_folder, found.passage_folder) == (DEFAULT_MODEL_FOLDER, Path("other"))


def test_a_file_that_is_none_is_named(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match=r"none\.toml cannot be read \(No such file"):
        read_config(tmp_path / "none.toml")
    (tmp_path / "bad.toml").write_text("out = ")
    with pytest.raises(InvalidInput, match=r"bad\.toml is not TOML"):
        read_config(tmp_path / "bad.toml")
