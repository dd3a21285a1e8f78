"""Batches of queries and passages: pairs for contrast, mined candidates for ranking; see ``sampling.py``."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from encoder.errors import InvalidInput
from encoder.training.bucketing import Bucket, Buckets, check_room, fit, merge_small
from encoder.training.examples import TrainingSet
from encoder.training.picking import pick
from encoder.training.rankings import targets
from encoder.training.token_store import Numbers, RaggedArray, Tokens

_FILL_TRIES = 8


@dataclass(frozen=True, slots=True)
class PairShape:
    """What a batch of queries and passages looks like. Widths are in tokens, special ones included."""

    batch_size: int  # queries of one process
    query_widths: tuple[int, ...]
    passage_widths: tuple[int, ...]
    negatives: int = 0  # of each query
    query_room: int = 1
    passage_room: int = 1


@dataclass(frozen=True, slots=True)
class RankingShape:
    """What a batch of queries with mined candidates looks like."""

    batch_size: int
    query_widths: tuple[int, ...]
    passage_widths: tuple[int, ...]
    candidates: int  # of each query, a positive first
    temperature: float = 1.0  # of the fused scores
    query_room: int = 1
    passage_room: int = 1


class PairBatch(NamedTuple):
    """Query ``i`` has the passages ``i * (1 + negatives)`` and following, its positive first."""

    query_tokens: Tokens  # (b, lq)
    query_lengths: Numbers  # (b,)
    passage_tokens: Tokens  # (b * (1 + negatives), lp)
    passage_lengths: Numbers
    query_numbers: Numbers  # (b,) of the set: equal for equal texts
    passage_numbers: Numbers  # (b * (1 + negatives),)


class RankingBatch(NamedTuple):
    """As :class:`PairBatch`, with as many candidates a query and the weight that a ranking gives each."""

    query_tokens: Tokens
    query_lengths: Numbers
    passage_tokens: Tokens
    passage_lengths: Numbers
    query_numbers: Numbers
    passage_numbers: Numbers
    targets: NDArray[np.float32]  # (b, candidates): rows sum to 1; 0 where a query has fewer candidates


class PairPlan(NamedTuple):
    """The pairs of a set, ready to be drawn."""

    buckets: Buckets  # of places in positives.values
    keys: Numbers  # of each place: query * passages + passage, rising
    passages: Numbers  # that have a token


def pair_batch(
    training_set: TrainingSet, shape: PairShape, seed: int, step: int, rank: int, world_size: int = 1
) -> PairBatch:
    """Draw pairs of a query and a positive, with negatives; where a query has too few, other passages of the set.

    A passage longer than its width is read from its beginning. :class:`InvalidInput` where no query has a positive.
    """
    plan = planned_pairs(training_set, shape)
    draw = plan.buckets.draw(seed, step, rank, world_size)
    queries, positives = np.divmod(plan.keys[draw.examples], len(training_set.passages))
    rng = np.random.default_rng([*draw.key, 1])
    negatives = pick(training_set.groups.negatives, queries, shape.negatives, rng)
    missing = (negatives < 0) | (training_set.passages.lengths[negatives] == 0)
    negatives[missing] = _others(plan, np.nonzero(missing)[0], queries, len(training_set.passages), rng)
    passages = np.concatenate([positives[:, None], negatives], axis=1).ravel()
    query_width, passage_width = draw.widths
    return PairBatch(
        *training_set.queries.texts(queries, query_width - shape.query_room),
        *training_set.passages.texts(passages, passage_width - shape.passage_room),
        queries,
        passages,
    )


def ranking_batch(
    training_set: TrainingSet, shape: RankingShape, seed: int, step: int, rank: int, world_size: int = 1
) -> RankingBatch:
    """Draw queries with candidates: a positive, then others at random.

    What is missing is the positive again, with no weight. :class:`InvalidInput` where nothing was mined for the set.
    """
    draw = planned_rankings(training_set, shape).draw(seed, step, rank, world_size)
    candidates, scores = _mined(training_set)
    queries = draw.examples
    rng = np.random.default_rng([*draw.key, 2])
    # Mining writes the positives first.
    rest = RaggedArray(np.arange(len(candidates.values)), candidates.starts)
    places = pick(rest, queries, shape.candidates, rng, first=True)
    found = places >= 0
    passages = candidates.values[np.where(found, places, places[:, :1])].astype(np.int64)
    weights = targets(np.where(found, scores.values[places], -np.inf), shape.temperature)
    query_width, passage_width = draw.widths
    return RankingBatch(
        *training_set.queries.texts(queries, query_width - shape.query_room),
        *training_set.passages.texts(passages.ravel(), passage_width - shape.passage_room),
        queries,
        passages.ravel(),
        weights,
    )


def _others(plan: PairPlan, rows: Numbers, queries: Numbers, passages: int, rng: np.random.Generator) -> Numbers:
    """Choose a passage for each of ``rows`` that does not answer its query, as far as a few tries find one."""
    found = plan.passages[rng.integers(0, len(plan.passages), len(rows))]
    for _ in range(_FILL_TRIES):
        keys = queries[rows] * passages + found
        at = np.minimum(np.searchsorted(plan.keys, keys), len(plan.keys) - 1)
        wrong = np.flatnonzero(plan.keys[at] == keys)
        if not len(wrong):
            break
        found[wrong] = plan.passages[rng.integers(0, len(plan.passages), len(wrong))]
    return found


def planned_pairs(training_set: TrainingSet, shape: PairShape) -> PairPlan:
    """Sort the pairs of a set into buckets, once."""
    return training_set.planned(shape, lambda: _pair_plan(training_set, shape))


def planned_rankings(training_set: TrainingSet, shape: RankingShape) -> Buckets:
    """Sort the queries that have candidates into buckets, once."""
    return training_set.planned(shape, lambda: _ranking_plan(training_set, shape))


def _pair_plan(training_set: TrainingSet, shape: PairShape) -> PairPlan:
    positives, passages = training_set.groups.positives, training_set.passages
    queries = np.repeat(np.arange(len(positives)), positives.lengths)
    keys = queries * max(len(passages), 1) + positives.values
    lengths = training_set.queries.lengths[queries], passages.lengths[positives.values]
    places = np.flatnonzero((lengths[0] > 0) & (lengths[1] > 0))
    if not len(places):
        raise InvalidInput(
            "sources", f"source {training_set.name!r} has no query with a positive; pairs cannot be drawn from it."
        )
    buckets = _two_widths(places, lengths[0][places], lengths[1][places], shape)
    return PairPlan(buckets, keys, np.flatnonzero(passages.lengths > 0))


def _ranking_plan(training_set: TrainingSet, shape: RankingShape) -> Buckets:
    candidates, _ = _mined(training_set)
    queries = np.flatnonzero((candidates.lengths > 1) & (training_set.queries.lengths > 0))
    if not len(queries):
        raise InvalidInput("sources", f"source {training_set.name!r} has no query with candidates to rank.")
    lengths = training_set.passages.lengths[candidates.values]
    # Of the candidates of a query the longest decides, so that none is cut where another is not.
    longest = np.maximum.reduceat(lengths, candidates.starts[:-1][queries])
    return _two_widths(queries, training_set.queries.lengths[queries], longest, shape)


def _mined(training_set: TrainingSet) -> tuple[RaggedArray, RaggedArray]:
    candidates, scores = training_set.groups.candidates, training_set.groups.candidate_scores
    if candidates is None or scores is None:
        raise InvalidInput(
            "mined",
            f"source {training_set.name!r} has no candidates to rank; set mined = true, and run `mamba-search mine`.",
        )
    return candidates, scores


def _two_widths(
    examples: Numbers, query_lengths: Numbers, passage_lengths: Numbers, shape: PairShape | RankingShape
) -> Buckets:
    check_room(shape.query_widths, shape.query_room)
    check_room(shape.passage_widths, shape.passage_room)
    columns = len(shape.passage_widths)
    places = fit(query_lengths, shape.query_widths, shape.query_room) * columns
    places += fit(passage_lengths, shape.passage_widths, shape.passage_room)
    widths = [(query, passage) for query in shape.query_widths for passage in shape.passage_widths]
    # The next passage width, or with the widest of them the next query width.
    wider = [n + 1 if (n + 1) % columns else min(n + columns, len(widths) - 1) for n in range(len(widths))]
    places = merge_small(places, wider, shape.batch_size)
    return Buckets([Bucket(examples[places == n], found, shape.batch_size) for n, found in enumerate(widths)])
