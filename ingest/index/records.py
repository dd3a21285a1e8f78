"""What may happen to a document's record: commits, fences and deletions, as pure rules. Knows no engine.

Every implementation reads what it knows of the document, applies a :data:`Change`, and writes the outcome, all at once.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

from ingest.filters import matches
from ingest.index.fields import fields_of
from ingest.index.interface import DocumentKey, DocumentRecord, Scope


@dataclass(frozen=True, slots=True)
class RecordState:
    """What an index knows of a document. Without a record it is a tombstone: deleted, or fenced before it came."""

    fence: int  # the highest generation that it had or that was fenced
    record: DocumentRecord | None
    describing: bool = False  # whether chunks that it keeps may not carry its fields yet


# From what is known (None: nothing) to what is known afterwards; None where there is nothing to write.
Change = Callable[[RecordState | None], RecordState | None]


def committing(record: DocumentRecord, *, in_place_of: int | None = None) -> Change:
    """Make a record the committed one; None where its generation is fenced and is not the committed one.

    With ``in_place_of`` also None where neither that generation is committed nor the record's own.
    """

    def commit(state: RecordState | None) -> RecordState | None:
        visible = state.record.generation if state and state.record else 0
        if state is not None and visible == record.generation:
            return replace(state, record=record, describing=state.describing or not _alike(state.record, record))
        if in_place_of is not None and visible != in_place_of:
            return None
        if state is None or state.fence < record.generation:
            grown = state is not None and record.earlier and (state.describing or not _alike(state.record, record))
            return RecordState(record.generation, record, describing=bool(grown))
        return None

    return commit


def describing_done(record: DocumentRecord) -> Change:
    """Note that all chunks carry the fields of a record; where it has been replaced meanwhile, they may not."""

    def done(state: RecordState | None) -> RecordState | None:
        return replace(state, describing=False) if state is not None and state.record == record else state

    return done


def new_generations(before: RecordState | None, after: RecordState | None) -> set[int]:
    """Name the generations whose chunks a change made visible; the other way round those that it left behind."""
    return _generations(after) - _generations(before)


def fencing(generation: int) -> Change:
    """Raise the fence; None where the document is unknown and nothing is to be fenced."""

    def fence(state: RecordState | None) -> RecordState | None:
        if state is None:
            return RecordState(generation, None) if generation else None
        return replace(state, fence=max(state.fence, generation))

    return fence


def deleting(generation: int) -> Change:
    """Leave a tombstone; None where a newer generation is committed."""

    def delete(state: RecordState | None) -> RecordState | None:
        if state is None:
            return RecordState(generation, None)
        if state.record is not None and state.record.generation > generation:
            return None
        return RecordState(max(state.fence, generation), None)

    return delete


def deleted_by(before: RecordState | None, after: RecordState | None) -> bool:
    """Say whether a change took a committed record away."""
    return before is not None and before.record is not None and after is not None and after.record is None


def is_tombstone(state: RecordState | None, generation: int) -> bool:
    """Say whether this is a tombstone of just this generation."""
    return state is not None and state.record is None and state.fence == generation


def committed(states: Mapping[DocumentKey, RecordState]) -> dict[DocumentKey, DocumentRecord]:
    """Keep the committed records."""
    return {key: state.record for key, state in states.items() if state.record is not None}


def generations_in(scope: Scope, found: Mapping[DocumentKey, DocumentRecord]) -> dict[str, tuple[int, ...]]:
    """Name, by document_id, the generations that records list; those alone that a scope's filter holds for."""
    return {
        key.document_id: record.generations
        for key, record in found.items()
        if scope.filter is None or matches(scope.filter, record)
    }


def fences(states: Mapping[DocumentKey, RecordState]) -> dict[DocumentKey, int]:
    """Keep the fences."""
    return {key: state.fence for key, state in states.items()}


def _alike(one: DocumentRecord | None, other: DocumentRecord) -> bool:
    return one is not None and fields_of(one) == fields_of(other)


def _generations(state: RecordState | None) -> set[int]:
    return set(state.record.generations) if state and state.record else set()
