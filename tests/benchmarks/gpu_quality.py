"""Fails unless the fused kernels' embeddings are those of plain torch in float32, and find the same documents.

    python -m tests.benchmarks.gpu_quality DATASET...

Each folder is an evaluation set in BEIR layout. Its documents are cut as ingestion does and embedded on the GPU by the
default model, in float32 by plain torch and in bfloat16 by the fused kernels, with products in 16 bits and in 8. For
each are printed the least cosine of a text with its reference, and nDCG@10 of the dense search (a document's score is
its best chunk's). Queries go through the fused kernels one by one, as they come. The last line is the figure.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from encoder.checkpoint import load_model
from encoder.evaluation.datasets import EvaluationSet, load_evaluation_set
from encoder.evaluation.metrics import CUTOFF_MAX, measure
from encoder.evaluation.runs import rank_documents
from encoder.fingerprint import model_fingerprint
from encoder.kernels.choosing import Kernels
from encoder.model_config import DEFAULT_MODEL_FOLDER
from encoder.text_encoder import BATCH_SIZE_MAX, TextEncoder
from encoder.tokenizer import Tokenizer
from ingest.chunking import Chunker
from services.evaluation.bm25 import passages_of

COSINE_MIN = 0.9995
NDCG_DIFFERENCE_MAX = 0.002
NDCG_SHARE_8_BITS_MIN = 0.995


class Embedded(NamedTuple):
    """What one encoder makes of a set."""

    queries: NDArray[np.float32]  # (q, d)
    passages: NDArray[np.float32]  # (n, d)


def load(kernels: Kernels, dtype: torch.dtype, *, eight_bits: bool = False) -> TextEncoder:
    """Load the default model for some kernels, its weights rounded as a service's are."""
    model = load_model(DEFAULT_MODEL_FOLDER, "cuda", dtype)
    tokenizer, fingerprint = Tokenizer.load(DEFAULT_MODEL_FOLDER), model_fingerprint(DEFAULT_MODEL_FOLDER)
    return TextEncoder(model, tokenizer, fingerprint, dtype, kernels=kernels, eight_bits=eight_bits)


def embed(encoder: TextEncoder, queries: Sequence[str], passages: Sequence[str], *, queries_at_once: int) -> Embedded:
    """Embed queries, so many together, and passages by the batch."""
    return Embedded(
        np.concatenate([encoder.encode_queries(batch).embeddings for batch in batched(queries, queries_at_once)]),
        np.concatenate([encoder.encode_passages(batch).embeddings for batch in batched(passages, BATCH_SIZE_MAX)]),
    )


def batched(texts: Sequence[str], size: int) -> list[Sequence[str]]:
    """Cut texts into batches."""
    return [texts[start : start + size] for start in range(0, len(texts), size)]


def ndcg(found: EvaluationSet, document_ids: Sequence[str], embedded: Embedded) -> float:
    """Give nDCG@10 of the set's queries."""
    scores = embedded.queries @ embedded.passages.T  # (q, n)
    run = {}
    for query_id, row in zip(found.queries, scores, strict=True):
        best: dict[str, float] = {}
        for place in np.argsort(-row)[: 20 * CUTOFF_MAX]:
            best.setdefault(document_ids[place], float(row[place]))
        run[query_id] = rank_documents(best.items(), CUTOFF_MAX)
    return measure(found.qrels, run).mean("ndcg@10")


def main(folders: Sequence[Path]) -> int:
    """Compare, set by set."""
    if not torch.cuda.is_available():
        print("FAIL: there is no GPU here; nothing was measured")
        return 1
    reference = load("torch", torch.float32)
    encoders = {
        "16 bits": load("fused", torch.bfloat16),
        "8 bits": load("fused", torch.bfloat16, eight_bits=True),
    }
    least = dict.fromkeys(encoders, 1.0)
    differences, shares = [], []
    for folder in folders:
        found = load_evaluation_set(folder)
        document_ids, passages = zip(*passages_of(found, Chunker(reference.tokenizer)), strict=True)
        expected = embed(reference, list(found.queries.values()), passages, queries_at_once=BATCH_SIZE_MAX)
        expected_ndcg = ndcg(found, document_ids, expected)
        print(f"{found.name}: {len(passages)} passages, float32: nDCG@10 {expected_ndcg:.4f}", flush=True)
        for name, encoder in encoders.items():
            embedded = embed(encoder, list(found.queries.values()), passages, queries_at_once=1)
            cosines = [(ours * theirs).sum(1).min() for ours, theirs in zip(embedded, expected, strict=True)]
            measured = ndcg(found, document_ids, embedded)
            least[name] = min(least[name], *map(float, cosines))
            (differences if name == "16 bits" else shares).append(
                abs(measured - expected_ndcg) if name == "16 bits" else measured / expected_ndcg
            )
            print(f"  {name}: least cosine {min(cosines):.5f}, nDCG@10 {measured:.4f}", flush=True)
    passed = (
        least["16 bits"] >= COSINE_MIN
        and max(differences) <= NDCG_DIFFERENCE_MAX
        and min(shares) >= NDCG_SHARE_8_BITS_MIN
    )
    print(
        f"{'PASS' if passed else 'FAIL'}: 16 bits: least cosine {least['16 bits']:.5f} (at least {COSINE_MIN}), "
        f"nDCG@10 differs by {max(differences):.4f} (at most {NDCG_DIFFERENCE_MAX}); 8 bits: least cosine "
        f"{least['8 bits']:.5f}, nDCG@10 at {min(shares):.4f} of float32's (at least {NDCG_SHARE_8_BITS_MIN})"
    )
    return 0 if passed else 1


if __name__ == "__main__":
    sys.exit(main([Path(argument) for argument in sys.argv[1:]]))
