"""The passages whose embeddings are nearest, exactly and in blocks: never all embeddings or scores in memory."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from encoder.progress import Report
from encoder.training.examples import TrainingSet
from encoder.training.rows import Ids
from encoder.training.token_store import Numbers, RaggedArray
from encoder.training.units import Scores, Units

Embeddings = NDArray[np.float16]
Done = Callable[[int, int], None]  # told how many are done, of how many

_EMBEDDED_AT_ONCE = 8192
_UNITS_AT_ONCE = 65_536
_QUERIES_AT_ONCE = 1024
_QUERIES_FILE, _UNITS_FILE, _NUMBERS_FILE = "queries.npy", "units.npy", "nearest.npy"


class Embedder(Protocol):
    """Embeds texts given as token ids, none empty, without special tokens: ``(n, d)``, each row of length 1."""

    dimension: int

    def embed_queries(self, queries: Sequence[Ids]) -> NDArray[np.float32]:
        """Embed queries."""

    def embed_passages(self, passages: Sequence[Ids]) -> NDArray[np.float32]:
        """Embed passages."""


class Nearest(NamedTuple):
    """The best passages of each query; -inf where there are fewer."""

    numbers: Numbers  # (queries, k)
    scores: Scores  # (queries, k)


@dataclass(frozen=True, slots=True)
class Neighbours:
    """One model's embeddings of a set, and what they find, in a folder. Pickled as its name: others map the files."""

    folder: Path
    queries: Embeddings  # (queries, d)
    units: Embeddings  # (units, d)
    numbers: Numbers  # (queries, k) passages

    @classmethod
    def find(
        cls,
        embedder: Embedder,
        training_set: TrainingSet,
        units: Units,
        k: int,
        device: torch.device,
        folder: Path,
        report: Report,
    ) -> Neighbours:
        """Embed a set and find the ``k`` nearest passages of each query; write it all into ``folder``, a new one."""
        folder.mkdir()

        def reported(what: str) -> Done:
            return lambda done, total: report(f"{folder.name} {what}", done, total)

        queries = embed_queries(embedder, training_set.queries, folder / _QUERIES_FILE, reported("queries"))
        passages = embed_units(embedder, units, folder / _UNITS_FILE, reported("passages"))
        found = nearest(queries, passages, units, k, device, reported("nearest"))
        np.save(folder / _NUMBERS_FILE, found.numbers)
        return cls(folder, queries, passages, found.numbers)

    @classmethod
    def open(cls, folder: Path) -> Neighbours:
        """Map what was found before."""
        files = (folder / name for name in (_QUERIES_FILE, _UNITS_FILE, _NUMBERS_FILE))
        return cls(folder, *(np.load(file, mmap_mode="r") for file in files))

    def __reduce__(self) -> tuple[object, ...]:
        return type(self).open, (self.folder,)


def embed_units(embedder: Embedder, units: Units, path: Path, done: Done) -> Embeddings:
    """Embed all units into a file, ``(units, d)`` in 16 bits, and map it."""
    return _embed(embedder.embed_passages, units.tokens, len(units), embedder.dimension, path, done)


def embed_queries(embedder: Embedder, queries: RaggedArray, path: Path, done: Done) -> Embeddings:
    """Embed all queries into a file, ``(queries, d)`` in 16 bits, and map it."""
    return _embed(embedder.embed_queries, queries.__getitem__, len(queries), embedder.dimension, path, done)


def _embed(
    embed: Callable[[Sequence[Ids]], NDArray[np.float32]],
    text: Callable[[int], Ids],
    count: int,
    dimension: int,
    path: Path,
    done: Done,
) -> Embeddings:
    found: Embeddings = np.lib.format.open_memmap(path, "w+", np.dtype(np.float16), (max(count, 1), dimension))
    for first in range(0, count, _EMBEDDED_AT_ONCE):
        numbers = range(first, min(first + _EMBEDDED_AT_ONCE, count))
        texts = [(number, text(number)) for number in numbers]
        readable = [(number, ids) for number, ids in texts if len(ids)]
        if readable:
            found[[number for number, _ in readable]] = embed([ids for _, ids in readable])
        done(numbers.stop, count)
    return found


def nearest(
    queries: Embeddings, embeddings: Embeddings, units: Units, k: int, device: torch.device, done: Done
) -> Nearest:
    """Find the ``k`` passages with the best unit for each query, by the product of their embeddings."""
    dtype = torch.float16 if device.type == "cuda" else torch.float32
    passages = len(units.firsts) - 1
    k = min(k, passages)
    numbers = torch.zeros((len(queries), k), dtype=torch.int64)
    scores = torch.full((len(queries), k), -torch.inf)
    for first, last in _blocks(units):
        block = torch.from_numpy(np.asarray(embeddings[units.firsts[first] : units.firsts[last]])).to(device, dtype)
        counts = torch.from_numpy(units.counts[first:last]).to(device)
        for begin in range(0, len(queries), _QUERIES_AT_ONCE):
            rows = slice(begin, begin + _QUERIES_AT_ONCE)
            asked = torch.from_numpy(np.asarray(queries[rows])).to(device, dtype)
            values, places = _best_of(asked, block, counts).topk(min(k, last - first), dim=1)
            joined = torch.cat([scores[rows], values.cpu()], dim=1)
            scores[rows], order = joined.topk(k, dim=1)
            numbers[rows] = torch.cat([numbers[rows], places.cpu() + first], dim=1).gather(1, order)
        done(last, passages)
    return Nearest(numbers.numpy(), scores.numpy())


def _best_of(queries: Tensor, block: Tensor, counts: Tensor) -> Tensor:
    """Score the passages of a block: ``(queries, passages)`` float32, -inf where a passage has no unit."""
    scores = (block @ queries.T).float()  # (units, queries)
    if len(counts) == len(scores) and bool((counts == 1).all()):
        return scores.T
    return torch.segment_reduce(scores, "max", lengths=counts, axis=0, initial=-torch.inf).T


def _blocks(units: Units) -> Iterator[tuple[int, int]]:
    """Cut the passages into stretches of about so many units, at least one passage each."""
    first, passages = 0, len(units.firsts) - 1
    while first < passages:
        room = units.firsts[first] + _UNITS_AT_ONCE
        last = max(int(np.searchsorted(units.firsts, room, side="right")) - 1, first + 1)
        yield first, last
        first = last


def scores_of(query: NDArray[np.floating], embeddings: Embeddings, units: Units, passages: Numbers) -> Scores:
    """Score chosen passages ``(n,)``, none without a unit, for one query's embedding ``(d,)``: ``(n,)``."""
    counts = units.counts[passages]
    first = np.cumsum(counts) - counts
    rows = np.repeat(units.firsts[passages] - first, counts) + np.arange(int(counts.sum()))
    products = embeddings[rows].astype(np.float32) @ query.astype(np.float32)
    return np.maximum.reduceat(products, first) if len(products) else products
