"""Which chunk a point of the engine is, remembered: a point's id is a hash of its chunk's name and never another's.

Reading the names of a search's two hundred candidates out of their payloads takes the engine as long as finding them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from itertools import islice
from typing import TypeAlias
from uuid import UUID

from ingest.index.interface import ChunkKey

PointId: TypeAlias = UUID | int | str  # as the engine has them; ours are UUIDs
# About 80 MB. Of a larger index those are remembered that were read last.
REMEMBERED_MAX = 262_144


class ChunkNames:
    """Remembers the names of so many points; what it does not know is asked for."""

    def __init__(self, remembered_max: int = REMEMBERED_MAX) -> None:
        self._names: dict[PointId, ChunkKey] = {}
        self._remembered_max = remembered_max

    def note(self, names: Iterable[tuple[PointId, ChunkKey]]) -> None:
        """Remember names, in the place of those that have been remembered longest where there are too many."""
        self._names.update(names)
        for point_id in list(islice(self._names, max(len(self._names) - self._remembered_max, 0))):
            del self._names[point_id]

    def of(
        self, point_ids: Sequence[PointId], read: Callable[[Sequence[PointId]], Sequence[tuple[PointId, ChunkKey]]]
    ) -> list[ChunkKey]:
        """Name points that exist, in order; ``read`` is asked for those not remembered."""
        known = {point_id: self._names[point_id] for point_id in point_ids if point_id in self._names}
        unknown = [point_id for point_id in point_ids if point_id not in known]
        if unknown:
            read_now = dict(read(unknown))
            self.note(read_now.items())
            known |= read_now
        return [known[point_id] for point_id in point_ids]
