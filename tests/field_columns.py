"""Filters of qdrant-client's local mode, answered by columns of the payload's fields, as a server does by its indexes.

Local mode walks through the payloads of all points there ever were, for each filter. What the columns do not know
(another condition, a field of several values) is left to it.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray
from qdrant_client.local.local_collection import LocalCollection
from qdrant_client.models import FieldCondition, Filter, HasIdCondition, MatchAny, MatchValue, Range, SparseVector

Mask = NDArray[np.bool_]
_ABSENT = object()
_EMPTY = SparseVector(indices=[], values=[])


class FieldColumns:
    """The columns of one collection; it has to be told what is written and deleted."""

    def __init__(self, collection: LocalCollection) -> None:
        self._collection = collection
        self._columns: dict[str, NDArray[np.object_]] = {}
        self._unknown: set[str] = set()  # fields that hold more than one value
        self._plain = collection._payload_and_non_deleted_mask
        collection._payload_and_non_deleted_mask = self._mask  # type: ignore[method-assign]
        # What local mode copies is made a message at once.
        collection._get_payload = partial(collection._get_payload, return_copy=False)  # type: ignore[method-assign]

    def written(self, point_ids: Iterable[Any]) -> None:
        """Take over the payloads of points."""
        collection = self._collection
        places = [collection.ids[point_id] for point_id in point_ids if point_id in collection.ids]
        for field, column in self._columns.items():
            self._columns[field] = column = _grown(column, len(collection.payload))
            for place in places:
                column[place] = self._value(place, field)

    def deleted(self) -> None:
        """Let go of the vectors of deleted points, which a search would still compare with."""
        collection = self._collection
        for vectors in collection.sparse_vectors.values():
            for place in np.flatnonzero(collection.deleted[: len(vectors)]):
                vectors[place] = _EMPTY

    def _mask(self, payload_filter: Filter | None, vector_name: str | None = None) -> Mask:
        found = self._filter(payload_filter)
        if found is None:
            return self._plain(payload_filter, vector_name)
        found = found & ~self._collection.deleted[: len(found)].astype(bool)
        if vector_name is not None:
            found &= ~self._collection.deleted_per_vector[vector_name][: len(found)].astype(bool)
        return found

    def _filter(self, given: Filter | None) -> Mask | None:
        """Say which points a filter chooses; None where a condition of it is not known here."""
        found = np.ones(len(self._collection.payload), dtype=bool)
        if given is None:
            return found
        if given.min_should is not None:
            return None
        must, should, must_not = (
            [self._condition(each) for each in _list(part)] for part in (given.must, given.should, given.must_not)
        )
        if any(each is None for each in (*must, *should, *must_not)):
            return None
        for each in must:
            found &= each
        for each in must_not:
            found &= ~each
        return found & np.logical_or.reduce(should) if should else found

    def _condition(self, condition: Any) -> Mask | None:
        if isinstance(condition, Filter):
            return self._filter(condition)
        if isinstance(condition, HasIdCondition):
            found = np.zeros(len(self._collection.payload), dtype=bool)
            found[[self._collection.ids[each] for each in condition.has_id if each in self._collection.ids]] = True
            return found
        if not isinstance(condition, FieldCondition):
            return None
        column = self._column(condition.key)
        if condition.key in self._unknown:
            return None
        if isinstance(condition.match, MatchValue):
            return np.asarray(column == condition.match.value, dtype=bool)
        if isinstance(condition.match, MatchAny):
            return np.logical_or.reduce([column == each for each in condition.match.any]).astype(bool)
        if isinstance(condition.range, Range) and condition.range.lt is not None:
            bound = condition.range.lt
            only_lt = condition.range.model_dump(exclude_none=True).keys() == {"lt"}
            return np.array([type(each) is int and each < bound for each in column], dtype=bool) if only_lt else None
        return None

    def _value(self, place: int, field: str) -> Any:
        value = self._collection.payload[place].get(field, _ABSENT)
        if isinstance(value, list | dict) or set(field) & set('.["'):
            self._unknown.add(field)
            return _ABSENT
        return value

    def _column(self, field: str) -> NDArray[np.object_]:
        if field not in self._columns:
            size = len(self._collection.payload)
            self._columns[field] = np.full(size, _ABSENT, dtype=object)
            for place in range(size):
                self._columns[field][place] = self._value(place, field)
        return self._columns[field][: len(self._collection.payload)]


def _grown(column: NDArray[np.object_], size: int) -> NDArray[np.object_]:
    if size <= len(column):
        return column
    larger = np.full(max(size, 2 * len(column)), _ABSENT, dtype=object)
    larger[: len(column)] = column
    return larger


def _list(conditions: Any) -> list[Any]:
    return [] if conditions is None else conditions if isinstance(conditions, list) else [conditions]
