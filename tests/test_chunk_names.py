"""Names of points are remembered up to a limit, and asked for beyond it."""

from collections.abc import Sequence
from uuid import UUID, uuid5

from ingest.index.chunk_names import ChunkNames, PointId
from ingest.index.interface import ChunkKey

NAMES: dict[PointId, ChunkKey] = {
    uuid5(UUID(int=1), str(place)): ChunkKey("default", "d", 1, place) for place in range(10)
}
IDS = list(NAMES)


class Reading:
    """Knows all names; remembers which it was asked for."""

    def __init__(self) -> None:
        self.asked: list[list[PointId]] = []

    def __call__(self, point_ids: Sequence[PointId]) -> list[tuple[PointId, ChunkKey]]:
        self.asked.append(list(point_ids))
        return [(point_id, NAMES[point_id]) for point_id in reversed(point_ids)]


def test_what_was_read_once_is_not_asked_for_again() -> None:
    names, read = ChunkNames(), Reading()
    assert names.of(IDS[:3], read) == [NAMES[point_id] for point_id in IDS[:3]]
    assert names.of([IDS[4], IDS[1], IDS[0]], read) == [NAMES[IDS[4]], NAMES[IDS[1]], NAMES[IDS[0]]]
    names.note([(IDS[5], NAMES[IDS[5]])])
    assert names.of([IDS[5], IDS[5]], read) == [NAMES[IDS[5]]] * 2
    assert names.of([], read) == []
    assert read.asked == [IDS[:3], [IDS[4]]]


def test_more_than_may_be_remembered_are_named_all_the_same() -> None:
    names, read = ChunkNames(3), Reading()
    assert names.of(IDS, read) == list(NAMES.values())
    assert names.of([IDS[0], IDS[9]], read) == [NAMES[IDS[0]], NAMES[IDS[9]]]
    assert read.asked == [IDS, [IDS[9]]]  # the first were read last
    assert len(names._names) == 3
