"""Packed rows: what stands in them, and that they teach what the same texts teach one a row."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from encoder.errors import InvalidInput
from encoder.training.loop import train
from encoder.training.rows import fold, pack, wrap
from tests.tiny_model import tiny_config
from tests.tiny_teacher import save_tiny_teacher
from tests.training_data import distill_task, documents_task, logged, pairs_task, train_config, write_sources

START, END = 7, 9


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_sources(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="module")
def teacher(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_teacher(tmp_path_factory.mktemp("teacher"))


@given(st.lists(st.integers(1, 30), min_size=1, max_size=40), st.sampled_from([32, 64, 96]))
def test_every_text_stands_whole_in_one_row_and_in_order(counts: list[int], width: int) -> None:
    lengths = np.array(counts)
    tokens = 100 + np.arange(len(counts))[:, None] * 40 + np.arange(30)
    packed = pack(tokens, lengths, (START,), END, width)
    alone = wrap(tokens, lengths, (START,), END)
    assert packed.sequences is not None
    assert packed.tokens.shape == packed.sequences.shape
    assert packed.tokens.shape[1] == width
    assert packed.count_tokens() == alone.count_tokens() == sum(counts) + 2 * len(counts)
    assert packed.ends[:, 0].tolist() == sorted(packed.ends[:, 0].tolist())
    for number, (row, end) in enumerate(packed.ends.tolist()):
        begin = end - int(alone.ends[number])
        assert packed.tokens[row, begin : end + 1].tolist() == alone.tokens[number, : end - begin + 1].tolist()
        marks = packed.sequences[row, begin : end + 1]
        assert (marks == marks[0]).all()
        assert marks[0] > 0
        assert begin == 0 or packed.sequences[row, begin - 1] != marks[0]
    # Next fit leaves less than half of all rows but the last empty.
    assert packed.count_tokens() > (len(packed.tokens) - 1) * width / 2


def test_documents_beside_each_other_keep_their_places_and_no_padding() -> None:
    tokens = np.arange(5 * 16).reshape(5, 16)
    lengths = np.array([10, 16, 16, 12, 1])
    places = np.array([[0, 3], [0, 9], [2, 15], [4, 0]])
    folded = fold(tokens, lengths, places, 48)
    assert folded.tokens.shape == (2, 48)
    assert [int(folded.tokens[row, column]) for row, column in folded.ends.tolist()] == [3, 9, 47, 64]
    assert folded.sequences is not None
    numbers = np.repeat([1, 2, 3, 0, 4, 5, 0], [10, 16, 16, 6, 12, 1, 35])
    assert folded.sequences.flatten().tolist() == numbers.tolist()
    assert folded.tokens.flatten()[numbers > 0].tolist() == [
        token for row, length in zip(tokens.tolist(), lengths, strict=True) for token in row[:length]
    ]


def test_packed_rows_teach_what_rows_of_one_text_teach(data: Path, teacher: Path, tmp_path: Path) -> None:
    tasks = [
        pairs_task(negatives=1, cosine_weight=1.0),
        distill_task(sources=["texts"], texts="windows", widths=[32]),
        documents_task(widths=[512]),
    ]
    logs = []
    for name, pack_tokens in (("rows", None), ("packed", 1024)):
        run = {"steps": 8, "log_every": 1, "pack_tokens": pack_tokens}
        train(train_config(data, teacher, tasks, out=tmp_path / name, run=run))
        logs.append(logged(tmp_path / name))
    kinds = {key for row in logs[0] for key in row if key.startswith("loss/")}
    assert {"loss/pairs_info_nce", "loss/distill_windows_cosine", "loss/documents_cosine"} <= kinds
    for one, other in zip(*logs, strict=True):
        assert one["tokens"] == other["tokens"]
        assert one["loss"] == pytest.approx(other["loss"], rel=1e-3)
        assert one["gradient_norm"] == pytest.approx(other["gradient_norm"], rel=1e-2)


def test_packed_rows_in_slices_teach_the_same(data: Path, tmp_path: Path) -> None:
    logs = []
    for name, slice_tokens in (("whole", None), ("sliced", 64)):
        run = {"steps": 3, "log_every": 1, "pack_tokens": 64, "slice_tokens": slice_tokens}
        train(train_config(data, None, [pairs_task(negatives=1)], out=tmp_path / name, run=run))
        logs.append(logged(tmp_path / name))
    for one, other in zip(*logs, strict=True):
        assert one["loss"] == pytest.approx(other["loss"], rel=1e-3)
        assert one["gradient_norm"] == pytest.approx(other["gradient_norm"], rel=1e-2)


def test_what_does_not_fit_packed_rows_is_refused(data: Path, tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match=r"tasks\.0 reads texts of up to 128 tokens, more than run\.pack_tokens, 64"):
        train_config(data, None, [pairs_task(passage_widths=[64, 128])], run={"pack_tokens": 64})
    model = {"fresh": tiny_config(vocabulary_size=30522, pooling="mean").model_dump(), "tokenizer": "default"}
    config = train_config(data, None, [pairs_task()], out=tmp_path, run={"pack_tokens": 64}, model=model)
    with pytest.raises(InvalidInput, match="takes the mean of a text's hidden states and cannot read packed rows"):
        train(config)
