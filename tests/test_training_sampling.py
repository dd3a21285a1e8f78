"""Batches: the same for the same (seed, step, rank), no text left out, nothing out of place."""

from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from encoder.errors import InvalidInput
from encoder.training.examples import TrainingSet
from encoder.training.sampling import (
    CropShape,
    DocumentShape,
    PairShape,
    RankingShape,
    Shape,
    TextShape,
    batches_per_epoch,
    crop_batch,
    document_batch,
    pair_batch,
    ranking_batch,
    text_batch,
)
from encoder.training.shuffling import permuted, turn
from tests.training_sets import STOP, made_set

END = 9


def text(number: int, length: int) -> list[int]:
    """Token ids that tell the text and the place: 10, 11, ... in a text of its own range."""
    return [1000 + number * 100 + place % 90 for place in range(length)]


@st.composite
def sets(draw: st.DrawFn) -> TrainingSet:
    """Sets of a few queries and passages, empty ones and very long ones among them."""
    lengths = st.lists(st.sampled_from([0, 1, 5, 14, 15, 16, 40, 100]), min_size=1, max_size=12)
    queries, passages = draw(lengths), draw(lengths)
    queries[0], passages[0] = max(queries[0], 1), max(passages[0], 1)
    number = st.integers(0, len(passages) - 1)
    positives = [sorted(set(draw(st.lists(number, max_size=3)))) for _ in queries]
    positives[0] = sorted({0, *positives[0]})
    negatives = [sorted(set(draw(st.lists(number, max_size=4))) - set(found)) for found in positives]
    return made_set(
        [text(n, length) for n, length in enumerate(queries)],
        [text(n, length) for n, length in enumerate(passages)],
        positives,
        negatives=negatives,
    )


@given(sets(), st.integers(1, 7), st.integers(0, 3), st.integers(0, 5), st.integers(1, 3))
@settings(max_examples=60, deadline=None)
def test_every_pair_is_drawn_in_an_epoch_and_batches_are_what_they_say(
    found: TrainingSet, batch_size: int, negatives: int, seed: int, world_size: int
) -> None:
    shape = PairShape(batch_size, (16, 32), (16, 64), negatives)
    drawn = Counter[tuple[int, int]]()
    positives = found.groups.positives
    for step in range(batches_per_epoch(found, shape, world_size)):
        widths = set()
        for rank in range(world_size):
            batch = pair_batch(found, shape, seed, step, rank, world_size)
            again = pair_batch(found, shape, seed, step, rank, world_size)
            for part, same in zip(batch, again, strict=True):
                np.testing.assert_array_equal(part, same)
            assert len(batch.query_tokens) == batch_size
            assert len(batch.passage_tokens) == batch_size * (1 + negatives)
            assert min(batch.query_lengths.min(), batch.passage_lengths.min()) > 0
            first = batch.passage_numbers[:: 1 + negatives]
            drawn.update(zip(batch.query_numbers.tolist(), first.tolist(), strict=True))
            for number, row, length in zip(batch.query_numbers, batch.query_tokens, batch.query_lengths, strict=True):
                assert row[:length].tolist() == found.queries[number].tolist()[: len(row)]
                assert not row[length:].any()
            for number, row, length in zip(
                batch.passage_numbers, batch.passage_tokens, batch.passage_lengths, strict=True
            ):
                assert row[:length].tolist() == found.passages[number].tolist()[: len(row)]
            for query, group in zip(batch.query_numbers, batch.passage_numbers.reshape(batch_size, -1), strict=True):
                assert group[0] in positives[query]
            widths.add((batch.query_tokens.shape[1], batch.passage_tokens.shape[1]))
        assert len(widths) == 1
        assert widths <= {(15, 15), (15, 63), (31, 15), (31, 63)}
    expected = {
        (query, int(passage))
        for query in range(len(found.queries))
        for passage in positives[query]
        if len(found.queries[query]) and len(found.passages[passage])
    }
    assert set(drawn) == expected


def test_negatives_are_the_querys_own_and_then_any_that_do_not_answer_it() -> None:
    passages = [text(n, 5) for n in range(40)]
    found = made_set([[1], [2]], passages, [list(range(10)), [10]], negatives=[[20, 21, 22], []])
    shape = PairShape(16, (16,), (16,), negatives=4)
    seen: dict[int, set[int]] = {0: set(), 1: set()}
    for step in range(60):
        batch = pair_batch(found, shape, 0, step, 0)
        for query, group in zip(batch.query_numbers, batch.passage_numbers.reshape(16, 5)[:, 1:], strict=True):
            seen[query].update(group.tolist())
            if query == 0:
                assert {20, 21, 22} <= set(group.tolist())
                assert len(set(group.tolist())) == 4 or Counter(group.tolist()).most_common(1)[0][0] in {20, 21, 22}
    assert seen[0] == set(range(10, 40))
    assert seen[1] == set(range(40)) - {10}


def test_processes_and_epochs_differ() -> None:
    found = made_set([[n + 1] for n in range(64)], [text(n, 5) for n in range(64)], [[n] for n in range(64)])
    shape = PairShape(16, (16,), (16,))

    def numbers(seed: int, step: int, rank: int) -> list[int]:
        return pair_batch(found, shape, seed, step, rank, 2).query_numbers.tolist()

    epoch = [number for step in range(2) for rank in range(2) for number in numbers(0, step, rank)]
    assert sorted(epoch) == list(range(64))
    assert numbers(0, 0, 0) != numbers(0, 2, 0)
    assert numbers(0, 0, 0) != numbers(1, 0, 0)


@given(sets(), st.sampled_from(["queries", "passages", "windows"]), st.integers(1, 5), st.integers(0, 3))
@settings(max_examples=60, deadline=None)
def test_every_text_is_drawn_in_an_epoch(found: TrainingSet, kind: str, batch_size: int, seed: int) -> None:
    shape = TextShape(kind, (16, 32), batch_size)  # type: ignore[arg-type]
    store = found.queries if kind == "queries" else found.passages
    drawn = set()
    for step in range(batches_per_epoch(found, shape)):
        batch = text_batch(found, shape, seed, step, 0)
        assert batch.tokens.shape[1] in (15, 31)
        assert len(batch.tokens) * (batch.tokens.shape[1] + 1) == batch_size * 32
        assert batch.lengths.min() > 0
        for row, length in zip(batch.tokens, batch.lengths, strict=True):
            number = (row[0] - 1000) // 100
            drawn.add(number)
            place = (row[0] - 1000) % 100
            assert row[:length].tolist() == text(number, 1000)[place : place + length]
            if kind != "windows" or len(store[number]) <= len(row):
                assert row[:length].tolist() == store[number].tolist()[: len(row)]
    assert drawn == {number for number in range(len(store)) if len(store[number])}


def test_windows_begin_after_a_sentence_and_reach_every_part() -> None:
    sentence = [1, 2, 3, 4, 5, 6, STOP]
    long = [token + 100 * n if token != STOP else STOP for n in range(100) for token in sentence]
    found = made_set([[1]], [long], [[0]])
    shape = TextShape("windows", (64,), batch_size=4)
    begins = Counter[int]()
    covered = set()
    for step in range(40 * batches_per_epoch(found, shape)):
        batch = text_batch(found, shape, 1, step, 0)
        begins.update(batch.tokens[:, 0].tolist())
        covered.update(batch.tokens[batch.tokens > 0].tolist())
        assert batch.lengths.min() >= 7
    # Near the end of a text there may be no other sentence.
    assert sum(count for token, count in begins.items() if token % 100 == 1) > 0.96 * begins.total()
    assert covered == set(long)
    assert begins[1] > 0


def documents(*counts: int) -> TrainingSet:
    """Documents of so many chunks, of 10, 11, 12, 10, ... tokens; two queries about each."""
    lengths = [[10 + n % 3 for n in range(count)] for count in counts]
    return made_set(
        [[n + 1] for n in range(2 * len(counts))],
        [text(number, sum(found)) for number, found in enumerate(lengths)],
        [[n // 2] for n in range(2 * len(counts))],
        chunk_ends=[np.cumsum(found).tolist() for found in lengths],
    )


@given(
    st.lists(st.integers(0, 30), min_size=1, max_size=6),
    st.integers(1, 3),
    st.integers(0, 4),
    st.integers(0, 2),
    st.sampled_from([0, 0, 3, 40]),
)
@settings(max_examples=60, deadline=None)
def test_documents_have_an_end_token_after_each_chunk(
    counts: list[int], batch_size: int, seed: int, start: int, opening: int
) -> None:
    counts[0] = max(counts[0], 1)
    found = documents(*counts)
    assert found.chunk_ends is not None
    shape = DocumentShape(batch_size, (64, 128), END, start_ids=(3,) * start, query_widths=(16,), opening=opening)
    chunks_seen: dict[int, set[int]] = {number: set() for number in range(len(counts))}
    for step in range(6 * batches_per_epoch(found, shape)):
        batch = document_batch(found, shape, seed, step, 0)
        assert (batch.tokens[batch.places[:, 0], batch.places[:, 1]] == END).all()
        assert ((batch.tokens == END).sum(axis=1) == np.bincount(batch.places[:, 0], minlength=len(batch.tokens))).all()
        assert (batch.tokens[:, :start] == 3).all()
        assert ((batch.tokens != 0).sum(axis=1) == batch.lengths).all()
        chunks, lengths = batch.chunks()
        for row, chunk, length in zip(batch.spans[:, 0], chunks, lengths, strict=True):
            number = batch.documents[row]
            ends, ids = [0, *found.chunk_ends[number].tolist()], found.passages[number].tolist()
            head = ids[: min(opening, ends[1])]
            place = next(
                n
                for n in range(len(ends) - 1)
                if chunk[:length].tolist() == [*(head if n else []), *ids[ends[n] : ends[n + 1]]]
            )
            chunks_seen[number].add(place)
        for row, query in zip(batch.query_rows, batch.query_numbers, strict=True):
            assert query // 2 == batch.documents[row]
            assert (batch.places[:, 0] == row).sum() == counts[batch.documents[row]]
    for number, count in enumerate(counts):
        if count <= 8:  # of longer ones chunks may look alike
            assert chunks_seen[number] == set(range(count))


def test_whole_documents_bring_queries_and_parts_do_not() -> None:
    found = documents(4, 4, 30)
    shape = DocumentShape(2, (64, 128), END, query_widths=(16,), queries=2)
    asked = Counter[int]()
    for step in range(20 * batches_per_epoch(found, shape)):
        asked.update(document_batch(found, shape, 0, step, 0).query_numbers.tolist())
    assert set(asked) == {0, 1, 2, 3}


def ranked() -> TrainingSet:
    return made_set(
        [[1], [2], [3]],
        [text(n, 5 + n) for n in range(20)],
        [[4], [5], []],
        candidates=[[4, 1, 2, 3], [5, 6], []],
        candidate_scores=[[3.0, 2.0, 1.0, 0.0], [1.0, 1.0], []],
    )


def test_candidates_come_with_the_weights_of_their_ranking() -> None:
    found = ranked()
    seen = set()
    for step in range(30):
        batch = ranking_batch(found, RankingShape(4, (16,), (32,), candidates=3, temperature=0.5), 0, step, 0)
        assert batch.targets.shape == (4, 3)
        np.testing.assert_allclose(batch.targets.sum(axis=1), 1, rtol=1e-6)
        for query, numbers, weights in zip(
            batch.query_numbers, batch.passage_numbers.reshape(4, 3), batch.targets, strict=True
        ):
            if query == 0:
                assert numbers[0] == 4
                scores = np.array([{4: 3.0, 1: 2.0, 2: 1.0, 3: 0.0}[int(n)] for n in numbers])
                expected = np.exp(scores / 0.5) / np.exp(scores / 0.5).sum()
                np.testing.assert_allclose(weights, expected, rtol=1e-5)
                seen.update(numbers.tolist())
            else:
                assert numbers.tolist() == [5, 6, 5]
                np.testing.assert_allclose(weights, [0.5, 0.5, 0], rtol=1e-6)
    assert seen == {1, 2, 3, 4}


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        (PairShape(2, (16,), (16,), query_room=16), "widths begins with 16; 16 columns are for special tokens"),
        (RankingShape(2, (16,), (16,), 2), "has no candidates to rank; set mined = true"),
        (DocumentShape(2, (64,), END), 'holds passages, no documents; set level = "document"'),
    ],
)
def test_shapes_that_cannot_be_are_refused(shape: Shape, message: str) -> None:
    with pytest.raises(InvalidInput, match=message):
        batches_per_epoch(made_set([[1]], [[2]], [[0]]), shape)


def test_a_set_without_what_is_asked_is_refused() -> None:
    nothing = made_set([[]], [[]], [[0]])
    with pytest.raises(InvalidInput, match="'made' has no query with a positive"):
        pair_batch(nothing, PairShape(2, (16,), (16,)), 0, 0, 0)
    with pytest.raises(InvalidInput, match="'made' has no passages with a text"):
        text_batch(nothing, TextShape("passages", (16,), 2), 0, 0, 0)
    with pytest.raises(InvalidInput, match="a chunk of source 'made' needs 18 columns"):
        document_batch(documents(3), DocumentShape(2, (16,), END, start_ids=(1, 1, 1, 1, 1)), 0, 0, 0)


@given(st.integers(1, 3000), st.integers(0, 5))
@settings(max_examples=60, deadline=None)
def test_a_permutation_holds_each_number_once(count: int, key: int) -> None:
    whole = permuted(np.arange(count), count, (key,))
    assert sorted(whole.tolist()) == list(range(count))
    some = np.arange(0, count, 3)
    np.testing.assert_array_equal(permuted(some, count, (key,)), whole[some])


@given(st.lists(st.floats(0.001, 100), min_size=1, max_size=8), st.integers(0, 3), st.integers(0, 5000))
@settings(max_examples=25, deadline=None)
def test_turns_count_themselves(weights: list[float], seed: int, first: int) -> None:
    taken = [turn(weights, seed, step) for step in range(first, first + 50)]
    counted = dict(reversed(taken))
    for choice, occurrence in taken:
        assert counted[choice] == occurrence
        counted[choice] += 1


def test_turns_follow_the_weights_however_small() -> None:
    weights = [1.0, 2.0, 5.0, 0.002]
    steps = 20 * 1024
    last = {turn(weights, 0, step).choice: turn(weights, 0, step).occurrence for step in range(steps - 1024, steps)}
    whole = sum(weights)
    for choice in range(3):
        assert last[choice] == pytest.approx(steps * weights[choice] / whole, abs=22)
    rare = sum(turn(weights, 0, step).choice == 3 for step in range(steps))
    assert 1 <= rare <= 20


@given(sets(), st.integers(1, 7), st.floats(0, 1), st.integers(0, 3), st.integers(0, 5))
@settings(max_examples=60, deadline=None)
def test_a_crop_is_a_stretch_of_its_window_and_stays_or_is_taken_out(
    found: TrainingSet, batch_size: int, removed: float, seed: int, step: int
) -> None:
    windows = TextShape("windows", (16, 64), batch_size)
    shape = CropShape(windows, query_width=16, crop_min=4, removed=removed)
    batch = crop_batch(found, shape, seed, step, 0)
    whole = text_batch(found, windows, seed, step, 0)
    numbers = [number for rank in (0, 1) for number in crop_batch(found, shape, seed, step, rank, 2).numbers.tolist()]
    assert len(set(numbers)) == len(numbers)
    for row in range(len(batch.numbers)):
        window = whole.tokens[row, : whole.lengths[row]].tolist()
        query = batch.query_tokens[row, : batch.query_lengths[row]].tolist()
        passage = batch.passage_tokens[row, : batch.passage_lengths[row]].tolist()
        assert min(4, len(window)) <= len(query) <= 15
        begins = [place for place in range(len(window)) if window[place : place + len(query)] == query]
        assert begins
        cut = [window[:begin] + window[begin + len(query) :] for begin in begins]
        assert passage == window or (passage in cut and len(passage) >= len(query))


def test_crops_are_taken_out_as_often_as_asked_and_begin_with_sentences() -> None:
    passage = [*text(0, 40), STOP, *text(1, 20), STOP, *text(2, 20)]
    found = made_set([[1]], [passage] * 50, [[0]])
    windows = TextShape("windows", (96,), 50)
    kept = crop_batch(found, CropShape(windows, 32, crop_min=8, removed=0.0), 0, 0, 0)
    taken = crop_batch(found, CropShape(windows, 32, crop_min=8, removed=1.0), 0, 0, 0)
    assert (kept.passage_lengths == len(passage)).all()
    assert (taken.passage_lengths == len(passage) - taken.query_lengths).all()
    begins = [kept.query_tokens[row, 0] for row in range(50)]
    assert sum(begin in (text(1, 1)[0], text(2, 1)[0]) for begin in begins) > 10
