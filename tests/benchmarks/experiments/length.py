"""What length does to quality: documents lengthened with text of others, found by chunks and by one vector.

    python -m tests.benchmarks.experiments.length --model runs/paper-mamba --dataset datasets/squad_xquad_en \\
        --results build/paper-length.jsonl

nDCG@10 at each length, by best chunk (read alone, and in one pass) and by one vector for a document. What a model
cannot read (a bidirectional one: documents in one pass) is left out. A line per measurement goes to the end of
``--results``.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from encoder.evaluation.datasets import EvaluationSet, load_evaluation_set
from encoder.evaluation.lengthening import lengthen
from encoder.evaluation.results import Chunks
from encoder.text_encoder import TextEncoder
from tests.benchmarks.experiments.quality import (
    ChunkedDocument,
    add_row,
    chunk_documents,
    embed_passages,
    embed_queries,
    ndcg,
)
from tests.benchmarks.experiments.reading import can_read, read_whole

LENGTHS = (2048, 8192, 16_384, 32_768, 65_536)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, required=True, action="append", help="model folder; may be repeated")
    parser.add_argument("--dataset", type=Path, required=True, action="append", help="evaluation set; may be repeated")
    parser.add_argument("--results", type=Path, required=True, help="JSON lines, added at the end")
    parser.add_argument("--lengths", type=int, nargs="+", default=LENGTHS, help="tokens")
    parser.add_argument("--ways", type=Chunks, nargs="+", default=list(Chunks), choices=list(Chunks))
    parser.add_argument("--device", default="auto")
    given = parser.parse_args(arguments)
    encoders = [TextEncoder.load(folder, device=given.device) for folder in given.model]
    for found in map(load_evaluation_set, given.dataset):
        for tokens in given.lengths:
            lengthened = lengthen(found, tokens, encoders[0].tokenizer)
            documents = chunk_documents(lengthened, encoders[0].tokenizer)
            for encoder in encoders:
                for way in given.ways:
                    if not can_read(encoder, way, max(len(document.stream(way)[0]) for document in documents)):
                        continue
                    row = measure(encoder, lengthened, documents, way)
                    add_row(given.results, row)
    return 0


def measure(
    encoder: TextEncoder, found: EvaluationSet, documents: Sequence[ChunkedDocument], way: Chunks
) -> dict[str, object]:
    """Measure one way of reading a lengthened set."""
    started = time.perf_counter()
    if way is Chunks.ALONE:
        vectors = embed_passages(encoder, [passage for document in documents for passage in document.alone()])
        counts = [len(document.chunks) for document in documents]
    else:
        read = read_whole(encoder, [document.stream(way) for document in documents], way)
        vectors, counts = np.concatenate(read), [len(each) for each in read]
    quality = ndcg(found, embed_queries(encoder, list(found.queries.values())), vectors, counts)
    return {
        "experiment": "length",
        "model": encoder.info.model,
        "dataset": found.name,
        "length": found.length,
        "way": way.value,
        "documents": len(documents),
        "queries": len(found.queries),
        **quality,
        "seconds": round(time.perf_counter() - started, 1),
    }


if __name__ == "__main__":
    sys.exit(main())
