"""An independent BM25 (bm25s) over the passages that search reads: a baseline, and a check on ours."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from encoder.errors import MambaSearchError
from encoder.evaluation.datasets import EvaluationSet
from encoder.evaluation.runs import Run, rank_documents
from encoder.passage_text import join_passage
from ingest.chunking import Chunker
from ingest.documents import Document
from ingest.sparse import K1, B

CHUNKS_MAX = 1000  # looked at for each query


def passages_of(evaluation_set: EvaluationSet, chunker: Chunker) -> Iterable[tuple[str, str]]:
    """Cut a set's documents as ingestion does; give the document id and the passage of each chunk."""
    for row in evaluation_set.documents:
        title = chunker.passage_title(row.title)
        for chunk in chunker.chunk(Document(row.document_id, row.text, title=row.title)):
            yield row.document_id, join_passage(title, chunk.text)


def run_bm25s(queries: Mapping[str, str], document_ids: Sequence[str], texts: Sequence[str], limit: int) -> Run:
    """Answer queries (k1 0.9, b 0.4, English stems); a document's score is its best text's.

    :class:`MambaSearchError` where bm25s is not installed.
    """
    try:
        import bm25s
        import Stemmer
    except ModuleNotFoundError as error:
        message = f"The package {error.name} is missing; install mamba-search[evaluate]."
        raise MambaSearchError(message) from error
    options = {"stopwords": "en", "stemmer": Stemmer.Stemmer("english"), "show_progress": False}
    retriever = bm25s.BM25(k1=K1, b=B, method="lucene")
    retriever.index(bm25s.tokenize(list(texts), **options), show_progress=False)
    words = bm25s.tokenize(list(queries.values()), return_ids=False, **options)
    run = {}
    for query_id, found in zip(queries, words, strict=True):
        scores = retriever.get_scores(found)
        best = np.argsort(-scores, kind="stable")[:CHUNKS_MAX]
        pairs = ((document_ids[place], float(scores[place])) for place in best if scores[place] > 0)
        run[query_id] = rank_documents(pairs, limit)
    return run
