"""Batches of texts without a partner, for distillation: whole ones by length, and windows of long ones.

See ``sampling.py``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np

from encoder.errors import InvalidInput
from encoder.training.bucketing import PARTS_MAX, Buckets, by_width, check_room, number_parts
from encoder.training.examples import TrainingSet
from encoder.training.token_store import Numbers, Tokens

_SENTENCE_WITHIN = 64  # tokens in which a window looks for a sentence to begin with
_WINDOW_MIN = 16  # tokens of a window, where its text has them


@dataclass(frozen=True, slots=True)
class TextShape:
    """What a batch of texts looks like.

    ``queries`` and ``passages`` are read whole, and cut at the widest width; ``windows`` are passages, of which those
    that are longer are read in stretches that begin after a sentence.
    """

    texts: Literal["queries", "passages", "windows"]
    widths: tuple[int, ...]
    batch_size: int  # texts of the widest width, and as many tokens of others
    room: int = 1


class TextBatch(NamedTuple):
    """Texts of one kind."""

    tokens: Tokens  # (b, l)
    lengths: Numbers  # (b,)


def text_batch(
    training_set: TrainingSet, shape: TextShape, seed: int, step: int, rank: int, world_size: int = 1
) -> TextBatch:
    """Draw texts. :class:`InvalidInput` where the set has none of the kind."""
    draw = planned_texts(training_set, shape).draw(seed, step, rank, world_size)
    store = training_set.queries if shape.texts == "queries" else training_set.passages
    texts, windows = np.divmod(draw.examples, PARTS_MAX)
    width = draw.widths[0] - shape.room
    if shape.texts != "windows":
        return TextBatch(*store.texts(texts, width))
    rng = np.random.default_rng([*draw.key, 3])
    lengths = store.lengths[texts]
    long = lengths > width
    begins = _window_begins(training_set, texts, windows, width, rng)
    wanted = rng.integers(width - width // 4, width + 1, len(texts))
    remaining = np.where(long, np.minimum(wanted, lengths - begins), lengths)
    return TextBatch(*store.cut(store.starts[texts] + np.where(long, begins, 0), remaining, width))


def _window_begins(
    training_set: TrainingSet, texts: Numbers, windows: Numbers, width: int, rng: np.random.Generator
) -> Numbers:
    """Choose where each window begins in its text: somewhere in its own stretch, moved on to a sentence's begin."""
    store = training_set.passages
    lengths = store.lengths[texts]
    last = np.maximum(lengths - _WINDOW_MIN, 0)
    stretch = lengths / -(-lengths // width)
    # The first stretch begins with the text itself in a quarter of the cases.
    begins = np.clip((windows + rng.random(len(texts)) - 0.25) * stretch, 0, last).astype(np.int64)
    ahead, seen = store.cut(store.starts[texts] + begins, last - begins, min(_SENTENCE_WITHIN, width // 2))
    ends = np.isin(ahead, training_set.sentence_ends) & (np.arange(ahead.shape[1]) < seen[:, None])
    moved = begins + np.argmax(ends, axis=1) + 1
    # The text's own beginning is one, too.
    return np.asarray(np.where((begins > 0) & ends.any(axis=1), moved, begins))


def planned_texts(training_set: TrainingSet, shape: TextShape) -> Buckets:
    """Sort the texts of a set into buckets, once."""
    return training_set.planned(shape, lambda: _text_plan(training_set, shape))


def _text_plan(training_set: TrainingSet, shape: TextShape) -> Buckets:
    check_room(shape.widths, shape.room)
    store = training_set.queries if shape.texts == "queries" else training_set.passages
    widest = shape.widths[-1] - shape.room
    texts = np.flatnonzero(store.lengths > 0)
    if not len(texts):
        raise InvalidInput("sources", f"source {training_set.name!r} has no {shape.texts} with a text.")
    lengths = store.lengths[texts]
    counts = -(-lengths // widest) if shape.texts == "windows" else np.ones_like(lengths)
    examples = number_parts(texts, counts)
    return by_width(examples, np.repeat(lengths, counts), shape.widths, shape.room, shape.batch_size)
