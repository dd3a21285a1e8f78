"""Batches of queries cut out of texts: a stretch of a window asks for the window. See ``sampling.py``.

Independent of any human question: the inverse cloze task (Lee et al. 2019, arXiv 1906.00300) and the crops of
Contriever (Izacard et al. 2021, arXiv 2112.09118). Where the stretch stays in the window, words themselves must be
matched; where it is taken out, what they mean.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from encoder.training.examples import TrainingSet
from encoder.training.text_sampling import TextShape, planned_texts, text_batch
from encoder.training.token_store import Numbers, Tokens

_SENTENCE_WITHIN = 24  # tokens in which a crop looks for a sentence to begin with
_SEED_OF_CROPS = 7


@dataclass(frozen=True, slots=True)
class CropShape:
    """What a batch of crops looks like. Widths are in tokens, special ones included."""

    windows: TextShape
    query_width: int
    crop_min: int  # tokens
    removed: float  # share of crops that are taken out of their window
    query_room: int = 1


class CropBatch(NamedTuple):
    """Query ``i`` was cut out of window ``i``."""

    query_tokens: Tokens  # (b, lq)
    query_lengths: Numbers  # (b,)
    passage_tokens: Tokens  # (b, lp)
    passage_lengths: Numbers  # (b,)
    numbers: Numbers  # (b,) different in all processes


def crop_batch(
    training_set: TrainingSet, shape: CropShape, seed: int, step: int, rank: int, world_size: int = 1
) -> CropBatch:
    """Draw windows and cut a query out of each. :class:`InvalidInput` where the set has no text."""
    windows = text_batch(training_set, shape.windows, seed, step, rank, world_size)
    rng = np.random.default_rng([seed, step, rank, _SEED_OF_CROPS])
    width = shape.query_width - shape.query_room
    queries = np.zeros((len(windows.tokens), width), dtype=np.int64)
    passages = np.zeros_like(windows.tokens)
    query_lengths, passage_lengths = np.zeros_like(windows.lengths), windows.lengths.copy()
    ends = np.isin(windows.tokens, training_set.sentence_ends)
    removed = rng.random(len(queries)) < shape.removed
    for row, (tokens, length) in enumerate(zip(windows.tokens, windows.lengths, strict=True)):
        begin, end = _crop(ends[row, :length], shape.crop_min, width, rng)
        queries[row, : end - begin] = tokens[begin:end]
        query_lengths[row] = end - begin
        kept = tokens[:length]
        if removed[row] and length >= 2 * (end - begin):
            kept = np.concatenate([tokens[:begin], tokens[end:length]])
        passages[row, : len(kept)] = kept
        passage_lengths[row] = len(kept)
    numbers = rank * len(queries) + np.arange(len(queries))
    return CropBatch(queries, query_lengths, passages, passage_lengths, numbers)


def crops_per_epoch(training_set: TrainingSet, shape: CropShape, world_size: int) -> int:
    """Count the steps in which every window is drawn."""
    return planned_texts(training_set, shape.windows).batches_per_epoch(world_size)


def _crop(ends: NDArray[np.bool_], least: int, most: int, rng: np.random.Generator) -> tuple[int, int]:
    """Choose a stretch of a text ``(l,)`` of which ``ends`` marks where sentences end: at one's begin if one is near.

    It stops with the sentence where that leaves enough.
    """
    length = min(int(rng.integers(least, most + 1)), len(ends))
    begin = int(rng.integers(0, len(ends) - length + 1))
    near = np.flatnonzero(ends[begin : begin + _SENTENCE_WITHIN])
    if begin and len(near) and begin + near[0] + 1 + least <= len(ends):
        begin += int(near[0]) + 1
    end = min(begin + length, len(ends))
    stop = np.flatnonzero(ends[begin + least - 1 : end])
    return begin, begin + least + int(stop[0]) if len(stop) else end
