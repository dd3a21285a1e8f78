"""What fusion is fitted on: of each set, all embeddings, and the BM25 hits and judgements of its queries.

Made by the product's own chunker, encoder and index; kept in files, since encoding takes minutes and fitting seconds.
"""

from __future__ import annotations

import hashlib
import json
import zipfile
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Self

import numpy as np
from numpy.typing import NDArray

from encoder.errors import InvalidInput
from encoder.evaluation.datasets import EvaluationSet
from encoder.progress import Report
from ingest.index.interface import Scope
from ingest.index.memory import MemoryIndex
from ingest.sparse import sparse_query
from services.evaluation.encoder import QUERY_BATCH, EvaluationEncoder
from services.evaluation.evaluation import System, ingest_set
from services.search.fusion import DEPTH

CANDIDATES = DEPTH  # of each half


@dataclass(frozen=True, slots=True)
class Material:
    """One set: ``n`` chunks of documents, ``q`` queries, ``j`` judgements."""

    documents: NDArray[np.int32]  # (n,): each chunk's
    embeddings: NDArray[np.float16]  # (n, d), each row of length 1
    queries: NDArray[np.float32]  # (q, d), each row of length 1
    sparse_chunks: NDArray[np.int32]  # (q, CANDIDATES), best first; -1 where there are no more
    sparse_scores: NDArray[np.float32]  # (q, CANDIDATES): BM25
    judged: NDArray[np.int32]  # (j, 3): query, document, grade above 0

    def save(self, path: Path, about: str) -> None:
        """Write a file; :class:`InvalidInput` where it cannot be written."""
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            np.savez_compressed(path, about=np.array(about), **asdict(self))
        except OSError as error:
            raise InvalidInput("material", f"{path} cannot be written ({error.strerror}).") from error

    @classmethod
    def load(cls, path: Path, about: str) -> Self | None:
        """Read what :meth:`save` wrote; None where there is none, or it is about something else.

        :class:`InvalidInput` for a file that is no material.
        """
        if not path.is_file():
            return None
        try:
            with np.load(path) as found:
                if str(found["about"]) != about:
                    return None
                return cls(**{field.name: found[field.name] for field in fields(cls)})
        except (KeyError, ValueError, OSError, EOFError, zipfile.BadZipFile) as error:
            raise InvalidInput("material", f"{path} is broken ({error}); remove it.") from error


def describe(found: EvaluationSet, fingerprint: str) -> str:
    """Name what material depends on: the set's content, and the model and chunker (an index's fingerprint)."""
    content = [[(row.document_id, row.title, row.text) for row in found.documents], found.queries, found.qrels]
    digest = hashlib.sha256(json.dumps(content, sort_keys=True).encode("utf-8", "surrogatepass")).hexdigest()[:16]
    return f"set={digest} candidates={CANDIDATES} {fingerprint}"


async def gather(found: EvaluationSet, system: System, report: Report) -> Material:
    """Encode a set's documents and queries, and search for the queries' words.

    Errors are those of :func:`services.evaluation.evaluation.ingest_set` and of the encoder.
    """
    dimension, fingerprint = await system.index_layout()
    index = MemoryIndex(dimension=dimension, fingerprint=fingerprint)
    await ingest_set(found, system, EvaluationEncoder(system.encoder), index, report)
    chunks, embeddings = index.embeddings()
    document_ids = {name: place for place, name in enumerate(dict.fromkeys(chunk.document_id for chunk in chunks))}
    places = {(chunk.document_id, chunk.chunk_index): place for place, chunk in enumerate(chunks)}
    texts = list(found.queries.values())
    size = min(QUERY_BATCH, (await system.encoder.info()).batch_size_max)
    encoded = [
        (await system.encoder.encode_queries(texts[at : at + size])).embeddings for at in range(0, len(texts), size)
    ]
    sparse_chunks = np.full((len(texts), CANDIDATES), -1, np.int32)
    sparse_scores = np.zeros((len(texts), CANDIDATES), np.float32)
    for row, text in enumerate(texts):
        hits = (await index.search(None, sparse_query(text), CANDIDATES, Scope())).sparse
        sparse_chunks[row, : len(hits)] = [places[hit.chunk.document_id, hit.chunk.chunk_index] for hit in hits]
        sparse_scores[row, : len(hits)] = [hit.score for hit in hits]
    judged = [
        (row, document_ids[name], grade)
        for row, query_id in enumerate(found.queries)
        for name, grade in found.qrels[query_id].items()
        if grade > 0 and name in document_ids
    ]
    return Material(
        np.array([document_ids[chunk.document_id] for chunk in chunks], np.int32),
        embeddings.astype(np.float16),
        np.concatenate(encoded),
        sparse_chunks,
        sparse_scores,
        np.array(judged, np.int32).reshape(-1, 3),
    )
