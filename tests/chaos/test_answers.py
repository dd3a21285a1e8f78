"""What the chaos test takes for a right answer, and for a recovery."""

import grpc
import pytest
from mambasearch.v1 import search_pb2

from tests.chaos.answers import KNOWN, TOP_K, fault_of, remember
from tests.chaos.asking import Asked, Searches

OK, AWAY = grpc.StatusCode.OK, grpc.StatusCode.UNAVAILABLE


def answer(*scores: tuple[str, float]) -> search_pb2.SearchResponse:
    return search_pb2.SearchResponse(
        hits=[search_pb2.Hit(rank=rank, document_id=name, score=score) for rank, (name, score) in enumerate(scores, 1)]
    )


QUIET = [(f"d{place}", 0.9 - 0.1 * place) for place in range(KNOWN)]
RIGHT = QUIET[:TOP_K]


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (RIGHT, ""),
        ([("d0", 0.9005), *RIGHT[1:]], ""),  # the last bits of an embedding
        (RIGHT[:-1], "4 hits"),
        ([*RIGHT[:-1], ("d9", 0.5)], "d9 has score"),  # a known hit with another one's score
        ([*RIGHT[:-1], ("other", 0.5)], "other has score"),
        ([*RIGHT[:-1], QUIET[TOP_K]], "rank 5 has score"),  # one that is known, where a better one is
    ],
)
def test_an_answer_is_right_where_hits_and_scores_are_those_of_a_quiet_moment(
    given: list[tuple[str, float]], words: str
) -> None:
    fault = fault_of(answer(*given), remember(answer(*QUIET)))
    assert words in fault
    assert bool(words) == bool(fault)


def test_recovery_is_the_first_answer_after_the_last_error() -> None:
    searches = Searches(
        [
            Asked(1.0, 1.1, OK),
            Asked(2.1, 2.2, AWAY),
            Asked(2.3, 2.4, OK),
            Asked(2.5, 2.6, AWAY),
            Asked(3.0, 3.5, OK),
            Asked(4.0, 4.1, OK),
        ]
    )
    assert searches.recovered(since=2.0) == (1.5, 2)
    assert searches.recovered(since=20.0) == (0.0, 0)
    assert searches.ok_in_a_row(since=2.0) == 2
    assert searches.ok_in_a_row(since=3.5) == 1
    assert searches.dishonest() == []
    searches.asked.append(Asked(5.0, 5.1, grpc.StatusCode.INTERNAL, "a traceback"))
    assert searches.dishonest() == ["INTERNAL: a traceback"]
