"""Fails unless one process builds batches of every kind at 2 million tokens a second or more.

The set is made up and mapped from disk: 20,000 queries, documents of 20 to 8,000 tokens. The last line is the figure.
"""

import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from encoder.training.examples import Groups, TrainingSet
from encoder.training.sampling import (
    DocumentShape,
    PairShape,
    TextShape,
    document_batch,
    pair_batch,
    text_batch,
)
from encoder.training.token_store import RaggedArray, RaggedWriter, TokenStore

TOKENS_PER_S_MIN = 2e6
TEXTS = 20_000
SECONDS = 2.0
CHUNK = 200


def made_set(folder: Path) -> TrainingSet:
    """Random ids, mapped from disk as those of a real set are."""
    rng = np.random.default_rng(0)
    stores = {}
    for name, longest in (("queries", 60), ("passages", 8000)):
        lengths = np.exp(rng.uniform(np.log(5 if name == "queries" else 20), np.log(longest), TEXTS)).astype(np.int64)
        with RaggedWriter(folder / name, np.uint16) as writer:
            writer.extend(rng.integers(1000, 30000, int(lengths.sum())), lengths)
        stores[name] = TokenStore.open(folder / name)
    ends = [np.unique([*range(CHUNK, length, CHUNK), length]) for length in stores["passages"].lengths]
    positives = RaggedArray(np.arange(TEXTS, dtype=np.uint32), np.arange(TEXTS + 1))
    negatives = RaggedArray(rng.integers(0, TEXTS, TEXTS * 30).astype(np.uint32), np.arange(TEXTS + 1) * 30)
    return TrainingSet(
        name="made up",
        folder=folder,
        queries=stores["queries"],
        passages=stores["passages"],
        groups=Groups(positives, negatives),
        chunk_ends=RaggedArray.of(ends, np.uint32),
        passage_groups=np.full(TEXTS, -1, dtype=np.int32),
        sentence_ends=np.arange(1000, 2000),
    )


def speed(build: Callable[[int], int]) -> float:
    """Tokens a second over batches from the second on: the first sorts the set into widths."""
    build(0)
    tokens, step, started = 0, 0, time.perf_counter()
    while time.perf_counter() - started < SECONDS:
        step += 1
        tokens += build(step)
    return tokens / (time.perf_counter() - started)


def main() -> int:
    with tempfile.TemporaryDirectory() as folder:
        found = made_set(Path(folder))
        pairs = PairShape(512, (32, 64), (64, 128, 256), negatives=3)
        texts = TextShape("windows", (64, 128, 256), 512)
        documents = DocumentShape(16, (512, 2048, 8192), end_id=102)

        def build_pairs(step: int) -> int:
            batch = pair_batch(found, pairs, 0, step, 0)
            return int(batch.query_lengths.sum() + batch.passage_lengths.sum())

        kinds: dict[str, Callable[[int], int]] = {
            "pairs with 3 negatives": build_pairs,
            "windows of texts": lambda step: int(text_batch(found, texts, 0, step, 0).lengths.sum()),
            "documents": lambda step: int(document_batch(found, documents, 0, step, 0).lengths.sum()),
        }
        speeds = {kind: speed(build) for kind, build in kinds.items()}
    for kind, found_speed in speeds.items():
        print(f"{kind}: {found_speed / 1e6:.1f}M tokens/s")
    slowest = min(speeds.values())
    print(f"slowest kind of batch: {slowest / 1e6:.1f}M tokens/s (at least {TOKENS_PER_S_MIN / 1e6:.0f}M)")
    return 0 if slowest >= TOKENS_PER_S_MIN else 1


if __name__ == "__main__":
    sys.exit(main())
