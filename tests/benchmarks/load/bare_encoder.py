"""The encoder alone, in one process: passages a second without a service around it. The start of a process.

    python -m tests.benchmarks.load.bare_encoder SECONDS

The last line is JSON: tokens a second of passages given as token ids, and of passages given as texts.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Sequence
from itertools import islice

from encoder.interface import Encoded
from encoder.model_config import DEFAULT_MODEL_FOLDER
from encoder.text_encoder import TextEncoder
from encoder.tokenizer import Tokenizer
from ingest.chunking import Chunker
from tests.benchmarks.load.texts import read_documents

PASSAGES = 4096
PER_CALL = 512  # 131,072 tokens at most


def read_passages(tokenizer: Tokenizer) -> list[str]:
    """Cut public texts into the chunks that ingestion would make of them."""
    chunker = Chunker(tokenizer)
    texts = (chunk.text for document in read_documents() for chunk in chunker.chunk(document))
    return list(islice(texts, PASSAGES))


def calls_of(items: Sequence[object]) -> list[Sequence[object]]:
    """Cut passages into calls."""
    return [items[start : start + PER_CALL] for start in range(0, len(items), PER_CALL)]


def speed(encode: Callable[[Sequence[object]], Encoded], items: Sequence[object], seconds: float) -> float:
    """Encode again and again for some seconds; give tokens a second."""
    calls = calls_of(items)
    encode(calls[0])
    tokens, number, started = 0, 0, time.perf_counter()
    while time.perf_counter() < started + seconds:
        tokens += sum(encode(calls[number % len(calls)]).token_counts)
        number += 1
    return tokens / (time.perf_counter() - started)


def main(seconds: float) -> None:
    encoder = TextEncoder.load(DEFAULT_MODEL_FOLDER)
    texts = read_passages(encoder.tokenizer)
    rows = encoder.tokenizer.encode_batch(texts)
    found = {
        "ids": speed(encoder.encode_tokenized_passages, rows, seconds),  # type: ignore[arg-type]
        "texts": speed(encoder.encode_passages, texts, seconds),  # type: ignore[arg-type]
    }
    print(json.dumps(found))


if __name__ == "__main__":
    main(float(sys.argv[1]))
