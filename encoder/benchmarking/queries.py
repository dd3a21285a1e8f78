"""How long queries take through the encoder's own entry: from token ids in Python to embeddings in Python."""

from __future__ import annotations

import time
from collections.abc import Iterator

import numpy as np

from encoder.benchmarking.contenders import Contender
from encoder.benchmarking.results import Latency
from encoder.text_encoder import TextEncoder

TOKENS = 16
AT_ONCE = (1, 8)
_WARM_UP_CALLS = 10


def measure_queries(contender: Contender, calls: int) -> Iterator[Latency]:
    """Time calls of one query, then of eight at once, each with other tokens; after some that do not count."""
    encoder = contender.encoder
    assert encoder is not None  # of ours
    for queries in AT_ONCE:
        times = [call_seconds(encoder, queries, number) for number in range(-_WARM_UP_CALLS, calls)][_WARM_UP_CALLS:]
        middle, late = np.percentile(times, [50, 99])
        yield Latency(
            system=contender.system,
            queries=queries,
            tokens=TOKENS,
            calls=calls,
            median_ms=1000 * float(middle),
            p99_ms=1000 * float(late),
        )


def call_seconds(encoder: TextEncoder, queries: int, number: int) -> float:
    """Embed random queries of 16 tokens, special tokens among them; give the seconds."""
    size = encoder.tokenizer.vocabulary_size
    special = len(encoder.token_rows([[0]])[0]) - 1
    shape = (queries, TOKENS - special)
    ids = np.random.default_rng(number + _WARM_UP_CALLS).integers(size // 2, size, shape)
    rows = encoder.token_rows(ids.tolist())
    started = time.perf_counter()
    encoder.embed_queries(rows)
    return time.perf_counter() - started
