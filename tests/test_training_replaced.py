"""Tokens set in place of others: as many as asked for, of the whole vocabulary, the same for student and teacher."""

from pathlib import Path

import numpy as np
import torch

from encoder.model_config import DEFAULT_MODEL_FOLDER
from encoder.tokenizer import Tokenizer
from encoder.training.feeding import Feed
from encoder.training.rows import TextRows
from encoder.training.tasks import DistillRows
from tests.tiny_teacher import save_tiny_teacher
from tests.training_data import ALONE, distill_task, train_config, write_sources


def texts_of(root: Path, replaced: float) -> tuple[TextRows, TextRows]:
    """What student and teacher read of one batch of stretches of texts."""
    task = distill_task(sources=["texts"], texts="windows", widths=[64], batch_size=48, replaced=replaced)
    rows = Feed.open(train_config(root, root / "teacher", [task]), ALONE)[0].rows
    assert isinstance(rows, DistillRows)
    (teacher,) = rows.teacher
    assert isinstance(teacher, TextRows)
    return rows.texts, teacher


def test_some_tokens_become_others_of_the_vocabulary_for_both(tmp_path: Path) -> None:
    write_sources(tmp_path)
    save_tiny_teacher(tmp_path / "teacher")
    before, _ = texts_of(tmp_path, 0.0)
    student, teacher = texts_of(tmp_path, 0.4)
    assert torch.equal(student.ends, before.ends)
    lengths = student.ends.tolist()
    changed, own = [], []
    for row, length in enumerate(lengths):
        text = student.tokens[row, :length]
        assert torch.equal(teacher.tokens[row, 1 : length + 1], text)
        assert student.tokens[row, length] == before.tokens[row, length]  # the end stays
        changed.append(float((text != before.tokens[row, :length]).float().mean()))
        own += text[text != before.tokens[row, :length]].tolist()
    assert 0.15 < np.mean(changed) < 0.25  # half of 0.4: each text has a share of its own
    assert max(changed) > 0.3
    assert min(changed) < 0.1
    assert set(own) <= set(Tokenizer.load(DEFAULT_MODEL_FOLDER).ordinary_ids())
    assert len(set(own)) > 0.9 * len(own)


def test_texts_consist_of_no_special_and_no_unused_tokens() -> None:
    tokenizer = Tokenizer.load(DEFAULT_MODEL_FOLDER)
    ids = tokenizer.ordinary_ids()
    assert len(ids) == tokenizer.vocabulary_size - 999  # [PAD], [unused0] and so on come first
    assert set(tokenizer.encode("A [SEP] of 3 <b>naïve</b> cafés!")) <= set(ids)
