"""Several sets as one: nothing of any is lost or changed; tasks whose texts are no negatives draw from all at once."""

import pickle
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from encoder.errors import InvalidInput
from encoder.training.examples import TrainingSet
from encoder.training.feeding import Feed
from encoder.training.joining import JoinedSet, join_sets
from encoder.training.sampling import DocumentShape, TextShape, batches_per_epoch, document_batch, text_batch
from tests.tiny_teacher import save_tiny_teacher
from tests.training_data import ALONE, distill_task, documents_task, pairs_task, train_config, write_sources
from tests.training_sets import made_set, prepared, write_rows

LENGTHS = st.lists(st.integers(0, 40), min_size=1, max_size=6)


def numbered(first: int, lengths: list[int]) -> list[list[int]]:
    """Texts of ids of their own: no two texts of one test are equal."""
    return [[1000 + 50 * (first + number) + place for place in range(length)] for number, length in enumerate(lengths)]


@given(st.lists(st.tuples(LENGTHS, LENGTHS), min_size=2, max_size=4), st.integers(1, 5), st.integers(1, 2))
@settings(max_examples=50, deadline=None)
def test_an_epoch_of_joined_sets_draws_each_text_of_each(
    sizes: list[tuple[list[int], list[int]]], batch_size: int, world_size: int
) -> None:
    parts = [
        made_set(
            numbered(100 * number, queries),
            numbered(100 * number + 50, passages),
            [[query % len(passages)] for query in range(len(queries))],
        )
        for number, (queries, passages) in enumerate(sizes)
    ]
    joined = join_sets(parts)
    texts = [part.passages[row].tolist() for part in parts for row in range(len(part.passages))]
    assert [joined.passages[row].tolist() for row in range(len(texts))] == texts
    answers = [
        part.passages[int(part.groups.positives[query][0])].tolist()
        for part in parts
        for query in range(len(part.queries))
    ]
    found = [joined.passages[int(row)].tolist() for (row,) in (joined.groups.positives[q] for q in range(len(answers)))]
    assert found == answers
    shape = TextShape("passages", (16, 48), batch_size)
    if not any(texts):
        with pytest.raises(InvalidInput, match="has no passages with a text"):
            batches_per_epoch(joined, shape, world_size)
        return
    drawn: Counter[tuple[int, ...]] = Counter()
    for step in range(batches_per_epoch(joined, shape, world_size)):
        for rank in range(world_size):
            tokens, lengths = text_batch(joined, shape, 0, step, rank, world_size)
            drawn.update(tuple(row[:length].tolist()) for row, length in zip(tokens, lengths, strict=True))
    assert set(drawn) == {tuple(text) for text in texts if text}


def test_documents_keep_their_chunks_and_questions() -> None:
    parts = [
        made_set(
            numbered(100 * number, [5]),
            numbered(100 * number + 10, [30, 20]),
            [[1]],
            chunk_ends=[[10, 30], [8, 20]],
            groups=[0, -1],
        )
        for number in range(3)
    ]
    joined = join_sets(parts)
    assert joined.passage_groups.tolist() == [0, -1, 1, -1, 2, -1]
    batch = document_batch(joined, DocumentShape(6, (64,), end_id=9, query_widths=(16,)), 0, 0, 0)
    for row, document in enumerate(batch.documents):
        text = joined.passages[int(document)].tolist()
        first = [10, 8][document % 2]
        assert batch.tokens[row, : batch.lengths[row]].tolist() == [*text[:first], 9, *text[first:], 9]
    asked = {
        int(batch.documents[row]): tokens[:length].tolist()
        for row, tokens, length in zip(batch.query_rows, batch.query_tokens, batch.query_lengths, strict=True)
    }
    assert asked == {1 + 2 * number: numbered(100 * number, [5])[0] for number in range(3)}


def test_joined_sets_are_mapped_again_in_another_process(tmp_path: Path) -> None:
    def part(name: str) -> TrainingSet:
        path = write_rows(tmp_path / f"{name}.jsonl", [{"text": f"{name} {n} goes by."} for n in range(3)])
        return prepared(tmp_path / "cache", name=name, format="jsonl", path=path)

    joined = join_sets([part("snow"), part("rain")])
    again = pickle.loads(pickle.dumps(joined))
    assert isinstance(again, JoinedSet)
    assert [again.passages[n].tolist() for n in range(6)] == [joined.passages[n].tolist() for n in range(6)]
    np.testing.assert_array_equal(again.passages.texts(np.arange(6), 16)[0], joined.passages.texts(np.arange(6), 16)[0])


def _named(feed: Feed) -> list[list[str]]:
    return [[each.name for each in sets] for sets in feed.sets]


def test_texts_that_are_no_negatives_come_from_all_sources_at_once(tmp_path: Path) -> None:
    data, teacher = write_sources(tmp_path), save_tiny_teacher(tmp_path / "teacher")
    tasks = [
        distill_task(sources=["pairs", "questions"]),
        documents_task(sources=["stories", "texts"], info_nce_weight=0.0),
        documents_task(sources=["stories", "texts"]),
        pairs_task(sources=["pairs", "stories"], passage_widths=[32, 2048]),
    ]
    feed = Feed.open(train_config(data, teacher, tasks), ALONE)
    assert _named(feed) == [
        ["pairs-facts, questions"],
        ["texts, stories"],
        ["texts", "stories"],
        ["pairs-facts", "stories"],
    ]
    config = train_config(data, teacher, tasks)
    weighed = [
        source.model_copy(update={"weight": 3.0} if source.name == "questions" else {}) for source in config.sources
    ]
    feed = Feed.open(config.model_copy(update={"sources": tuple(weighed)}), ALONE)
    assert _named(feed)[0] == ["pairs-facts", "questions"]
    assert feed.weights[0] == (1.0, 3.0)
