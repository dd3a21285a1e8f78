"""Training sets: a source's texts as token ids on disk, and which passages answer which query.

A set is a folder of the cache, made once by ``building.py`` and mapped, never read whole:

    set.json            what it was made of; written last
    queries/            distinct queries, a store of token ids
    passages/           distinct passages or documents
    positives/          for each query the numbers of its passages
    negatives/
    chunk_ends/         for each document where its chunks end
    passage_groups.npy  for each passage the number of the document it is a part of, or -1
    mined/              what mining wrote: negatives/ and candidates/, each with the scores
"""

from __future__ import annotations

import json
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TypeVar, cast

import numpy as np
from numpy.typing import NDArray

from encoder.errors import InvalidInput
from encoder.progress import ReportOf
from encoder.training.building import SET_FILE, build
from encoder.training.sources import SourceConfig, expand, parts_of
from encoder.training.token_store import RaggedArray, TokenStore
from encoder.training.tokenizing import TokenizingPool

MINED_FOLDER = "mined"
MINED_PARTS = ("negatives", "negative_scores", "candidates", "candidate_scores")

Plan = TypeVar("Plan")


@dataclass(frozen=True, slots=True)
class Groups:
    """Which passages belong to a query; all rows are by query number."""

    positives: RaggedArray  # passage numbers, at least one where the source has answers
    negatives: RaggedArray  # passage numbers, perhaps none
    candidates: RaggedArray | None = None  # passage numbers, the positives among them
    candidate_scores: RaggedArray | None = None  # float32, higher is better, beside them


@dataclass(frozen=True, eq=False)
class TrainingSet:
    """One source, ready to be drawn from. Cheap to pickle: another process maps the same files."""

    name: str
    folder: Path
    queries: TokenStore
    passages: TokenStore
    groups: Groups
    chunk_ends: RaggedArray | None  # of documents: by passage number, counted in the passage's tokens
    passage_groups: NDArray[np.int32]  # (passages,)
    sentence_ends: NDArray[np.int64]  # token ids after which a sentence may begin
    weight: float | None = None  # as configured; None: by size
    _plans: dict[Hashable, object] = field(default_factory=dict, repr=False, compare=False)

    @property
    def documents(self) -> TokenStore | None:
        """The passages, where they are documents that may be read in one pass."""
        return None if self.chunk_ends is None else self.passages

    def planned(self, key: Hashable, make: Callable[[], Plan]) -> Plan:
        """Keep what is worth computing once for this set: which texts fit which width."""
        if key not in self._plans:
            self._plans[key] = make()
        return cast("Plan", self._plans[key])

    def __reduce__(self) -> tuple[object, ...]:
        return open_set, (self.folder, self.weight, self.groups.candidates is not None)


def open_set(folder: Path, weight: float | None = None, mined: bool = False) -> TrainingSet:  # noqa: FBT001, FBT002
    """Map a set of the cache; :class:`InvalidInput` where it is incomplete, or nothing was mined for it."""
    try:
        about = json.loads((folder / SET_FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InvalidInput("cache", f"{folder} is no whole training set; delete it and prepare it again.") from error
    chunk_ends = folder / "chunk_ends"
    return TrainingSet(
        name=about["name"],
        folder=folder,
        queries=TokenStore.open(folder / "queries"),
        passages=TokenStore.open(folder / "passages"),
        groups=_groups(folder, about["name"], mined=mined),
        chunk_ends=RaggedArray.open(chunk_ends) if chunk_ends.exists() else None,
        passage_groups=np.load(folder / "passage_groups.npy", mmap_mode="r"),
        sentence_ends=np.array(about["sentence_ends"], dtype=np.int64),
        weight=weight,
    )


def _groups(folder: Path, name: str, *, mined: bool) -> Groups:
    positives, negatives = (RaggedArray.open(folder / part) for part in ("positives", "negatives"))
    if not mined:
        return Groups(positives, negatives)
    if not (folder / MINED_FOLDER).exists():
        raise InvalidInput("mined", f"nothing was mined for source {name!r}; run `mamba-search mine` with this file.")
    found = {part: RaggedArray.open(folder / MINED_FOLDER / part) for part in MINED_PARTS}
    return Groups(positives, found["negatives"], found["candidates"], found["candidate_scores"])


def prepare(
    sources: Sequence[SourceConfig],
    tokenizer_folder: Path,
    cache: Path,
    processes: int,
    *,
    report_of: ReportOf | None = None,
    with_mined: bool = True,
) -> list[TrainingSet]:
    """Open the sets of ``sources``; what is not in ``cache`` is tokenized first, by so many ``processes``.

    A set is complete or not there: one whose making was interrupted is made again. Several programs may ask for the
    same set at once. ``with_mined=False`` leaves out what was mined, for who is about to mine. ``report_of`` is asked
    for a source's callback, which is told how many rows are read.

    :class:`InvalidInput` for malformed rows, a query without positives, a source without a text.
    """
    expand(sources)  # two of one name are refused before the work
    sets: list[TrainingSet] = []
    with TokenizingPool(tokenizer_folder, processes) as pool:
        for source in sources:
            folders = [build(part, pool, cache, report_of and report_of(part.name)) for part in parts_of(source)]
            found = [open_set(folder, mined=source.mined and with_mined) for folder in folders]
            sets += _share_weight(source.weight, found)
    return sets


def _share_weight(weight: float | None, parts: Sequence[TrainingSet]) -> list[TrainingSet]:
    """Give each file of a folder its part of the folder's weight, by the number of its queries (or texts)."""
    if weight is None:
        return list(parts)
    sizes = [len(part.queries) or len(part.passages) for part in parts]
    return [replace(part, weight=weight * size / sum(sizes)) for part, size in zip(parts, sizes, strict=True)]
