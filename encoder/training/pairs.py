"""Batches of (query, positive) pairs, each batch from one source and one pair of widths. Knows no student.

A batch of one source makes in-batch negatives hard: they share topic and style with the positive.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from encoder.errors import InvalidInput
from encoder.training.batches import Batch, TokenStore
from encoder.training.corpus import PackedTexts
from encoder.training.teacher import Teacher

_TEACHER_BATCH = 2048


@dataclass(frozen=True, slots=True)
class PairBatch:
    """Row i of the queries belongs to row i of the positives; equal numbers mean equal texts."""

    queries: Batch
    positives: Batch
    query_numbers: Tensor  # (b,)
    positive_numbers: Tensor  # (b,)


@dataclass(frozen=True, slots=True)
class _Bucket:
    """Pairs of one source that fit one pair of widths."""

    rows: Tensor
    query_width: int
    positive_width: int


class PairSampler:
    """All pairs of a corpus folder on a device, in buckets by source and widths (tokens, EOS included)."""

    def __init__(
        self,
        corpus: Path,
        query_widths: tuple[int, ...],
        positive_widths: tuple[int, ...],
        smallest_bucket: int,
        device: torch.device,
    ) -> None:
        names = sorted(path.name.removesuffix(".pairs.npy") for path in corpus.glob("*.pairs.npy"))
        if not names:
            raise InvalidInput(
                "corpus", f"{corpus} holds no *.pairs.npy; make it with python -m encoder.training.corpus."
            )
        packs = [
            [PackedTexts.load(corpus / f"{name}.{part}.npz") for name in names] for part in ("queries", "positives")
        ]
        self.queries = TokenStore(PackedTexts.join(packs[0]), device)
        self.positives = TokenStore(PackedTexts.join(packs[1]), device)
        pairs, sources = [], []
        query_shift = positive_shift = 0
        for number, name in enumerate(names):
            found = np.load(corpus / f"{name}.pairs.npy")
            pairs.append(found + np.array([query_shift, positive_shift]))
            sources.append(np.full(len(found), number))
            query_shift += len(packs[0][number])
            positive_shift += len(packs[1][number])
        self.pairs = torch.from_numpy(np.concatenate(pairs)).to(device)  # (rows, 2)
        self.begins = self.positives.starts[self.pairs[:, 1]]  # (rows,): where the window of each positive begins
        self._query_widths, self._positive_widths = query_widths, positive_widths
        self._buckets = self._make_buckets(torch.from_numpy(np.concatenate(sources)).to(device), smallest_bucket)
        self._weights = torch.tensor([float(len(bucket.rows)) for bucket in self._buckets])

    def _make_buckets(self, sources: Tensor, smallest: int) -> list[_Bucket]:
        """Put each pair into the narrowest bucket it fits; a bucket too small joins the next wider one."""
        query_lengths = self.queries.lengths[self.pairs[:, 0]]
        positive_lengths = self.positives.lengths[self.pairs[:, 1]]
        buckets: list[_Bucket] = []
        for source in sources.unique():
            left = sources == source
            for query_width in self._query_widths:
                for positive_width in self._positive_widths:
                    widest_query = query_width == self._query_widths[-1]
                    widest_positive = positive_width == self._positive_widths[-1]
                    fits_query = (query_lengths < query_width) | widest_query
                    fits = left & fits_query & ((positive_lengths < positive_width) | widest_positive)
                    rows = torch.nonzero(fits).squeeze(1)
                    if len(rows) >= smallest or (widest_query and widest_positive and len(rows) > 1):
                        buckets.append(_Bucket(rows, query_width, positive_width))
                        left = left & ~fits
        return buckets

    def choose_windows(self, teacher: Teacher, windows_max: int = 64) -> None:
        """For positives longer than the widest bucket: read the window that the teacher finds closest to the query."""
        width = self._positive_widths[-1] - 1
        lengths = self.positives.lengths
        wanted = torch.zeros(len(lengths), dtype=torch.bool, device=lengths.device)
        wanted[self.pairs[:, 1]] = True
        long = torch.nonzero((lengths > width) & wanted).squeeze(1)
        counts = torch.zeros_like(lengths)
        counts[long] = ((lengths[long] + width - 1) // width).clamp(max=windows_max)
        first = torch.cumsum(counts, 0) - counts
        owners = torch.repeat_interleave(torch.arange(len(lengths), device=lengths.device), counts)
        order = torch.arange(len(owners), device=lengths.device) - first[owners]
        begins = self.positives.starts[owners] + order * width
        remaining = self.positives.starts[owners + 1] - begins
        embedded = [
            teacher.embed(self.positives.cut(begins[at], remaining[at], width)).half()
            for at in torch.arange(len(begins), device=lengths.device).split(_TEACHER_BATCH)
        ]
        rows = torch.nonzero(counts[self.pairs[:, 1]] > 0).squeeze(1)
        if not len(rows):
            return
        windows = torch.cat(embedded)
        for at in rows.split(_TEACHER_BATCH):
            asked = teacher.embed(self.queries.texts(self.pairs[at, 0], self._query_widths[-1] - 1)).half()
            positive = self.pairs[at, 1]
            span = torch.arange(int(counts[positive].max()), device=lengths.device)
            candidates = (first[positive][:, None] + span).clamp(max=len(windows) - 1)  # (rows, windows)
            scores = torch.einsum("rd,rwd->rw", asked, windows[candidates]).float()
            best = scores.masked_fill(span >= counts[positive][:, None], -2.0).argmax(1)
            self.begins[at] = self.positives.starts[positive] + best * width

    def draw(self, batch_size: int, generator: torch.Generator) -> PairBatch:
        """Draw a bucket in proportion to its pairs, then pairs from it."""
        device = self.pairs.device
        seed = int(torch.randint(2**31, (1,), generator=generator, device=device))
        chooser = torch.Generator().manual_seed(seed)
        bucket = self._buckets[int(torch.multinomial(self._weights, 1, generator=chooser))]
        drawn = bucket.rows[torch.randint(len(bucket.rows), (batch_size,), generator=generator, device=device)]
        query, positive = self.pairs[drawn].unbind(1)
        begins = self.begins[drawn]
        remaining = self.positives.starts[positive + 1] - begins
        return PairBatch(
            queries=self.queries.texts(query, bucket.query_width - 1),
            positives=self.positives.cut(begins, remaining, bucket.positive_width - 1),
            query_numbers=query,
            positive_numbers=positive,
        )
