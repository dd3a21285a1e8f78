"""Which generations of an engine are committed, and which terms their chunks hold, kept up to date with each write.

BM25's statistics are a tenant's own, and of what is visible: neither other tenants' chunks nor those of versions under
way, replaced or deleted count. They are counted where the record is written, in the same turn of the engine's thread,
and anew on opening: so an end in the middle of anything leaves nothing to repair.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import replace

from ingest.index import points
from ingest.index.committed_generations import CommittedGenerations
from ingest.index.engine import Engine
from ingest.index.fields import fields_of
from ingest.index.frequencies import TermFrequencies, Terms
from ingest.index.interface import DocumentKey, IndexedChunk, IndexStats, SparseVector
from ingest.index.records import RecordState, new_generations
from ingest.index.under_way import UnderWay


class CommittedTerms:
    """Counts for one engine, or for what takes its place: each method is given the one that is open."""

    def __init__(self) -> None:
        self.generations = CommittedGenerations()
        self._frequencies = TermFrequencies()
        self._under_way = UnderWay()

    @classmethod
    def read(cls, engine: Engine) -> CommittedTerms:
        """Count what an engine holds."""
        counted = cls()
        for states in engine.read_all_generations():
            for key, generations in states:
                counted.generations.add(key, generations)
        for page in engine.read_all_terms():
            for key, generation, terms in page:
                if generation in counted.generations.of(key):
                    counted._frequencies.add(key.tenant, [terms])
        return counted

    def weigh(self, tenant: str, query: SparseVector) -> SparseVector:
        """Multiply a query's counts by the inverse document frequencies of its terms."""
        return self._frequencies.weigh(tenant, query)

    def upsert(self, engine: Engine, chunks: Sequence[IndexedChunk]) -> None:
        """Write chunks; those of a committed generation count, and carry the record's fields, from now on."""
        unknown = {
            indexed.chunk.key
            for indexed in chunks
            if not self._under_way.knows(indexed.chunk.key, indexed.chunk.generation)
        }
        states = engine.get_states(list(unknown))
        visible: dict[str, IndexedChunk] = {}  # the last of those that name one chunk
        new: list[IndexedChunk] = []
        for indexed in chunks:
            state = states.get(indexed.chunk.key)
            if state and state.record and _is_committed(state, indexed.chunk.generation):
                described = replace(indexed, fields=fields_of(state.record))
                visible[points.chunk_point_id(indexed.chunk.chunk_key)] = described
            else:
                new.append(indexed)
        before = engine.read_terms(list(visible))
        engine.upsert_chunks([*new, *visible.values()])
        for point_id, indexed in visible.items():
            if point_id in before:
                self._frequencies.remove(indexed.chunk.tenant, [before[point_id]])
            self._frequencies.add(indexed.chunk.tenant, [indexed.sparse.indices])
        for indexed in new:
            self._under_way.note(indexed)

    def change(
        self,
        engine: Engine,
        keys: Sequence[DocumentKey],
        found: Sequence[tuple[RecordState | None, RecordState | None]],
    ) -> None:
        """Write planned changes of records: what becomes visible counts from now on, and carries its fields."""
        changed: dict[DocumentKey, RecordState] = {}
        written: list[tuple[DocumentKey, RecordState | None, RecordState]] = []
        counts: list[tuple[Callable[[str, Sequence[Terms]], None], str, Sequence[Terms]]] = []
        for key, (before, after) in zip(keys, found, strict=True):
            if after is None or after == before:
                continue
            changed[key] = after
            written.append((key, before, after))
            counts += [
                (self._frequencies.add, key.tenant, self._described(engine, key, generation, after))
                for generation in sorted(new_generations(before, after))
            ]
            if gone := new_generations(after, before):
                counts.append((self._frequencies.remove, key.tenant, engine.read_terms_of(key, gone)))
        engine.write_states(changed)
        for key, before, after in written:
            self.generations.change(key, before, after)
        for count, tenant, terms in counts:
            count(tenant, terms)

    def drop_tombstone(self, engine: Engine, key: DocumentKey, generation: int) -> None:
        """Delete a tombstone, where it is of just this generation."""
        if engine.drop_tombstone(key, generation):
            self.generations.drop_tombstone()

    def stats(self, engine: Engine) -> IndexStats:
        """Count documents and chunks, of what is counted anyway: exact, and in microseconds."""
        chunk_count = engine.count_points() - self.generations.state_count
        return IndexStats(self.generations.document_count, chunk_count)

    def delete(
        self, engine: Engine, key: DocumentKey, *, generation: int | None, below: int | None, keep: Collection[int]
    ) -> int:
        """Delete chunks as :meth:`Engine.delete_chunks` does; of what is committed they count no longer."""

        def chosen(one: int) -> bool:
            return one == generation if below is None else one < below and one not in keep

        state = engine.get_states([key]).get(key)
        visible = [one for one in state.record.generations if chosen(one)] if state and state.record else []
        terms = engine.read_terms_of(key, visible) if visible else []
        count = engine.delete_chunks(key, generation=generation, below=below, keep=keep)
        self._frequencies.remove(key.tenant, terms)
        self._under_way.forget(key, chosen)
        return count

    def _described(self, engine: Engine, key: DocumentKey, generation: int, state: RecordState) -> Sequence[Terms]:
        """Give the terms of a generation that becomes visible; its chunks carry the record's fields then."""
        written, record = self._under_way.take(key, generation), state.record
        assert record is not None
        own = {segment.generation: segment.chunk_count for segment in record.segments}
        if written is not None and len(written.terms) != own[generation]:
            written = None  # some were written before the index was opened
        fields = fields_of(record)
        if written is None or written.fields != fields:
            engine.set_fields_of(key, generation, fields)
        return list(written.terms.values()) if written is not None else engine.read_terms_of(key, [generation])


def _is_committed(state: RecordState | None, generation: int) -> bool:
    return state is not None and state.record is not None and generation in state.record.generations
