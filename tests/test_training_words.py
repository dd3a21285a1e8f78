"""The overlap of words: BM25's order, what is common weighs little, processes and special tokens do not matter."""

from pathlib import Path

import bm25s
import numpy as np
import pytest
import torch

from encoder.errors import InvalidInput
from encoder.training import lexical
from encoder.training.loop import train
from encoder.training.rows import TextRows, wrap
from encoder.training.task_checks import check_teacher
from encoder.training.teacher_rules import TeacherInput
from encoder.training.word_overlap import WordOverlap
from ingest import sparse
from tests.tiny_model import tiny_config
from tests.tiny_teacher import save_tiny_teacher
from tests.training_data import documents_task, logged, pairs_task, train_config, write_sources
from tests.training_sets import made_set

CPU = torch.device("cpu")
START, END = 1, 2
VOCABULARY = 50


def rows(texts: list[list[int]]) -> TextRows:
    lengths = np.array([len(text) for text in texts])
    tokens = np.zeros((len(texts), max(int(lengths.max()), 1)), dtype=np.int64)
    for row, text in zip(tokens, texts, strict=True):
        row[: len(text)] = text
    return wrap(tokens, lengths, (START,), END)


def test_it_is_bm25_as_a_share_of_the_most_that_a_query_can_get() -> None:
    rng = np.random.default_rng(0)
    passages = [rng.zipf(1.3, rng.integers(3, 30)).clip(1, 40).astype(int) + 5 for _ in range(60)]
    texts = [passage.tolist() for passage in passages]
    words = WordOverlap.of([made_set([[5]], texts, [[0]])], VOCABULARY, 512, CPU)
    queries = [rng.integers(6, 40, 4).tolist() for _ in range(10)]
    found = words.scores(rows(queries), rows(texts)).numpy()
    index = bm25s.BM25(k1=0.9, b=0.4, method="lucene")
    index.index([[str(token) for token in text] for text in texts], show_progress=False)
    for query, scores in zip(queries, found, strict=True):
        expected = index.get_scores([str(token) for token in set(query)])
        most = scores.max() / max(expected.max(), 1e-9) if expected.max() else 1.0
        np.testing.assert_allclose(scores, expected * most, rtol=1e-3, atol=1e-4)
    assert found.min() >= 0
    assert found.max() <= 1


def test_training_and_search_score_words_alike() -> None:
    assert (lexical.K1, lexical.B) == (sparse.K1, sparse.B)


def test_rare_words_count_more_than_common_ones() -> None:
    texts = [[6, 7], [6, 8], [6, 9], [6, 10]]
    words = WordOverlap.of([made_set([[5]], texts, [[0]])], VOCABULARY, 512, CPU)
    scores = words.scores(rows([[6, 7], [9]]), rows(texts))
    assert scores[0].argmax() == 0
    assert scores[0, 0] > 0.5 > 0.1 > scores[0, 1] > 0
    assert scores[1].nonzero().flatten().tolist() == [2]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_sources(tmp_path_factory.mktemp("data"))


@pytest.mark.parametrize("task", [pairs_task, documents_task])
def test_words_beside_the_teacher_change_what_is_learnt(data: Path, tmp_path: Path, task: object) -> None:
    teacher = save_tiny_teacher(tmp_path / "teacher")
    losses = []
    for weight in (0.0, 0.5):
        assert callable(task)
        tasks = [task(relational_weight=1.0, words_weight=weight)]
        train(train_config(data, teacher, tasks, out=tmp_path / str(weight), run={"steps": 1}))
        losses.append([value for key, value in logged(tmp_path / str(weight))[0].items() if "relational" in key])
    assert len(losses[0]) == len(losses[1]) == 1
    assert losses[0] != losses[1]


def test_a_teacher_of_another_vocabulary_has_no_words_in_common(data: Path, tmp_path: Path) -> None:
    teacher = save_tiny_teacher(tmp_path / "teacher")
    config = train_config(data, teacher, [pairs_task(relational_weight=1.0, words_weight=0.5)])

    class Foreign:
        dimension = 32
        word_embeddings: torch.Tensor | None = None
        shared: int | None = None

        def embed(self, texts: TeacherInput) -> torch.Tensor:
            raise AssertionError

    with pytest.raises(
        InvalidInput, match=r"tasks\.0\.words_weight .* the teacher does not share the model's vocabulary"
    ):
        check_teacher(config.tasks[0], "tasks.0", Foreign(), tiny_config(projection_dim=32))
