"""How many replicas the policy asks for."""

from dataclasses import dataclass, field

import pytest

from services.encoding.autoscaling import BUSY, TOKENS, QueuedTokensPolicy


@dataclass(frozen=True)
class Context:
    current_num_replicas: int
    aggregated_metrics: dict[str, dict[object, float]] = field(default_factory=dict)


@pytest.mark.parametrize(
    ("replicas", "tokens", "busy", "wanted"),
    [
        (1, [0.0], [0.0], 0.0),  # Serve keeps the fewest
        (1, [3000.0], [1.0], 3.0),
        (2, [500.0, 1500.0], [0.4, 0.4], 2.0),
        (3, [0.0, 0.0, 0.0], [0.8, 0.8, 0.8], 3.0),  # nothing waits, but all are needed
        (3, [0.0, 0.0, 0.0], [0.2, 0.2, 0.2], 0.75),
        (4, [1000.0, 1000.0], [0.1, 0.1], 4.0),  # two have not reported yet
    ],
)
def test_as_many_as_the_waiting_tokens_and_the_time_ask_for(
    replicas: int, tokens: list[float], busy: list[float], wanted: float
) -> None:
    metrics: dict[str, dict[object, float]] = {TOKENS: dict(enumerate(tokens)), BUSY: dict(enumerate(busy))}
    assert QueuedTokensPolicy(1000)(Context(replicas, metrics))[0] == pytest.approx(wanted)


def test_without_reports_nothing_changes() -> None:
    assert QueuedTokensPolicy(1000)(Context(5)) == (5, {})
