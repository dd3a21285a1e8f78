"""What both halves of a search find in an index, of committed versions alone. Knows no scores but the index's."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from ingest.filters import matches
from ingest.index.interface import (
    LIMIT_MAX,
    READ_MAX,
    ChunkKey,
    DocumentKey,
    DocumentRecord,
    Generations,
    HitsRead,
    IndexHit,
    ReadConsistency,
    Scope,
    SparseVector,
    VectorIndex,
)
from services.search.fusion import DEPTH
from services.search.query_encoding import EncodedQuery

# How many candidates each half of a search contributes: dropped generations need more than top_k, and fusion, where
# there are two halves, goes so deep.
CANDIDATES_PER_HIT = 4
CANDIDATES_MIN = DEPTH
# How often a search is repeated, with twice the candidates and then with all, and without what was found and is not
# committed, where too few are.
ROUNDS_MAX = 3


@dataclass(slots=True)
class IndexTimes:
    """Seconds in the index, added up while a search goes on."""

    dense_s: float = 0.0
    sparse_s: float = 0.0
    records_s: float = 0.0
    total_s: float = 0.0


@dataclass(frozen=True, slots=True)
class Candidates:
    """What both halves of a search found, best first."""

    dense: Sequence[IndexHit]
    sparse: Sequence[IndexHit]
    sparse_complete: bool  # whether the index has no more chunks with a word of the query

    def __len__(self) -> int:
        """Count what both halves found, together."""
        return len(self.dense) + len(self.sparse)

    def committed(self, generations: Generations) -> Candidates:
        """Keep the chunks of generations that are committed, by document_id."""
        dense, sparse = (_committed(half, generations) for half in (self.dense, self.sparse))
        return Candidates(dense, sparse, self.sparse_complete)

    def joined(self, other: Candidates) -> Candidates:
        """Add what another search found; a chunk that both found stands once."""
        return Candidates(
            _joined(self.dense, other.dense),
            _joined(self.sparse, other.sparse),
            self.sparse_complete and other.sparse_complete,
        )

    def chunks(self) -> set[ChunkKey]:
        """Collect the chunks, each once."""
        return {hit.chunk for hit in (*self.dense, *self.sparse)}

    def document_ids(self) -> set[str]:
        """Name the documents."""
        return {hit.chunk.document_id for hit in (*self.dense, *self.sparse)}


@dataclass(frozen=True, slots=True)
class Asked:
    """What both halves are asked."""

    encoding: asyncio.Future[EncodedQuery] | None  # None: no dense half
    sparse: SparseVector | None  # None: no sparse half
    scope: Scope
    times: IndexTimes = field(default_factory=IndexTimes)
    excluded: DocumentRecord | None = None  # a document that is not looked for
    read_first: int = 0  # how many of the first hits are read along, where there is one half alone


@dataclass(frozen=True, slots=True)
class Found:
    """The committed candidates, with their documents' records where these were asked for."""

    candidates: Candidates
    records: Mapping[str, DocumentRecord] | None  # by document_id; those alone that the scope's filter holds for
    exhausted: bool  # whether the index has no more
    read: HitsRead  # of the first hits, where that was asked for


async def find_candidates(
    index: VectorIndex,
    asked: Asked,
    wanted: int,
    count: Callable[[Candidates], int],
    *,
    with_records: bool = False,
) -> Found:
    """Ask the index until ``count`` says that enough committed candidates are there, or no more are to be had.

    A document of which other generations than the committed ones were found may have been replaced during the
    search: it is asked for again, its committed generations alone. Those stay whole for longer than a search
    takes, so once is enough, however often it is replaced meanwhile. What was not committed in one round and is no
    longer looked at may be so in the next: such a document is asked for again in each.

    What is committed, the index says along with what it found. With ``with_records`` the records are read then, and
    say so: every candidate is of the version that its record is of, however late somebody looks at it.
    """
    least = CANDIDATES_MIN if asked.encoding is not None and asked.sparse is not None else 1
    limit = min(max(CANDIDATES_PER_HIT * wanted, least), LIMIT_MAX)
    without: dict[str, set[int]] = {}  # however many chunks a version under way has, they crowd out no others
    if asked.excluded is not None:
        without[asked.excluded.document_id] = set(asked.excluded.generations)
    records: dict[str, DocumentRecord] | None = None
    for round_number in range(1, ROUNDS_MAX + 1):
        scope = replace(asked.scope, without=without) if without else asked.scope
        found, generations, read = await _ask(index, asked, limit, scope)
        if with_records:
            records = await _records(index, asked, found.document_ids() | without.keys())
            generations = {name: record.generations for name, record in records.items()}
        if asked.excluded is not None:
            generations = {name: these for name, these in generations.items() if name != asked.excluded.document_id}
        committed = found.committed(generations)
        stale = [] if len(committed) == len(found) else _not_committed(found, generations)
        for again in _committed_of({*without, *(name for name, _ in stale)}, asked.scope, generations):
            committed = committed.joined((await _ask(index, replace(asked, read_first=0), limit, again))[0])
        full = max(len(found.dense), len(found.sparse)) >= limit
        more = full and (limit < LIMIT_MAX or stale)
        if round_number == ROUNDS_MAX or not more or count(committed) >= wanted:
            break
        for document_id, generation in stale:
            if document_id in without or len(without) < READ_MAX:
                without.setdefault(document_id, set()).add(generation)
        limit = min(2 * limit, LIMIT_MAX) if round_number + 1 < ROUNDS_MAX else LIMIT_MAX
    return Found(committed, records, exhausted=not full, read=read)


async def _ask(index: VectorIndex, asked: Asked, limit: int, scope: Scope) -> tuple[Candidates, Generations, HitsRead]:
    """Ask both halves; give what they found, what of it is committed, and what was read of the first hits."""
    embedding = (await asked.encoding).embedding if asked.encoding else None
    sparse = asked.sparse if asked.sparse is not None and len(asked.sparse.indices) else None
    if embedding is None and sparse is None:
        return Candidates((), (), sparse_complete=True), {}, ({}, {})
    first = asked.read_first if embedding is None or sparse is None else 0
    started = time.perf_counter()
    answer = await index.search(embedding, sparse, limit, scope, read_first=first)
    asked.times.total_s += time.perf_counter() - started
    asked.times.dense_s += answer.dense_s
    asked.times.sparse_s += answer.sparse_s
    return Candidates(answer.dense, answer.sparse, len(answer.sparse) < limit), answer.committed, answer.read


async def _records(index: VectorIndex, asked: Asked, document_ids: Iterable[str]) -> dict[str, DocumentRecord]:
    """Read the records of documents, those alone that the filter holds for: the index's word may be a moment old."""
    started = time.perf_counter()
    scope = asked.scope
    found = await read_records(index, scope.tenant, document_ids, scope.consistency)
    spent_s = time.perf_counter() - started
    asked.times.records_s += spent_s
    asked.times.total_s += spent_s
    if scope.filter is None:
        return found
    return {name: record for name, record in found.items() if matches(scope.filter, record)}


async def read_records(
    index: VectorIndex, tenant: str, document_ids: Iterable[str], consistency: ReadConsistency
) -> dict[str, DocumentRecord]:
    """Read a tenant's committed records, by document_id."""
    keys = [DocumentKey(tenant, document_id) for document_id in document_ids]
    found: dict[str, DocumentRecord] = {}
    for start in range(0, len(keys), READ_MAX):
        records = await index.get_records(keys[start : start + READ_MAX], consistency=consistency)
        found |= {key.document_id: record for key, record in records.items()}
    return found


def _committed(hits: Sequence[IndexHit], generations: Generations) -> list[IndexHit]:
    return [hit for hit in hits if hit.chunk.generation in generations.get(hit.chunk.document_id, ())]


def _joined(first: Sequence[IndexHit], second: Sequence[IndexHit]) -> list[IndexHit]:
    hits = {hit.chunk: hit for hit in (*second, *first)}
    return sorted(hits.values(), key=lambda hit: -hit.score)


def _not_committed(found: Candidates, generations: Generations) -> list[tuple[str, int]]:
    """Name the documents, with the generations, that were found and are not committed; each once."""
    versions = dict.fromkeys((hit.chunk.document_id, hit.chunk.generation) for hit in (*found.dense, *found.sparse))
    return [(name, generation) for name, generation in versions if generation not in generations.get(name, ())]


def _committed_of(document_ids: Iterable[str], scope: Scope, generations: Generations) -> list[Scope]:
    """Name the committed generations of documents, in parts that a search takes."""
    names = sorted(name for name in document_ids if name in generations)
    return [
        replace(scope, generations={name: generations[name] for name in names[start : start + READ_MAX]})
        for start in range(0, len(names), READ_MAX)
    ]
