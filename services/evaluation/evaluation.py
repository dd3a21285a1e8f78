"""Evaluation through the product: the chunker, encoder, index and searcher that serve, on a set with judgements."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import aclosing
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from encoder.errors import InvalidInput
from encoder.evaluation.datasets import EvaluationSet
from encoder.evaluation.metrics import CUTOFF_MAX, QueryMetrics, measure
from encoder.evaluation.results import Chunks, EvaluationMode
from encoder.evaluation.runs import RankedDocument, Run, cut_run
from encoder.fingerprint import index_fingerprint
from encoder.interface import Encoder
from encoder.progress import Report
from encoder.tokenizer import Tokenizer
from ingest.chunk_encoding import ChunkEncoder
from ingest.chunking import Chunker
from ingest.collecting import Collector
from ingest.documents import Document
from ingest.index.interface import LIMIT_MAX, VectorIndex
from ingest.index.memory import MemoryIndex
from ingest.journal import Journal
from ingest.pipeline import COLLECT_AFTER_S, Ingestor
from ingest.sparse import sparse_query
from services.evaluation.bm25 import passages_of, run_bm25s
from services.evaluation.encoder import EvaluationEncoder
from services.search.fusion import FusionWeights, Half, fuse
from services.search.results import SearchMode
from services.search.searcher import Searcher

SEARCHES_AT_ONCE = 4
# Larger than when serving, where queries wait behind a batch: a GPU reads this much at once.
BATCH_TOKENS_MAX = 65_536


@dataclass(frozen=True, slots=True)
class System:
    """What is measured: a model, and how documents become its embeddings."""

    name: str
    encoder: Encoder
    tokenizer: Tokenizer
    chunker: Chunker
    chunk_encoder: ChunkEncoder
    chunks: Chunks  # how results call the last two
    parameters: int | None = None  # of the model
    fusion: FusionWeights | None = None  # of hybrid searches

    async def index_layout(self) -> tuple[int, str]:
        """Give the dimension and the fingerprint of an index for this system."""
        info = await self.encoder.info()
        chunks = self.chunk_encoder.fingerprint(self.chunker.fingerprint)
        return info.dimension, index_fingerprint(info.fingerprint, chunks)


@dataclass(frozen=True, slots=True)
class Evaluation:
    """How good one mode is on one set."""

    mode: EvaluationMode
    metrics: QueryMetrics
    run: Run
    seconds: float  # of this mode's searches; the first mode's also hold the building of the index
    tokens: int  # that the encoder read to embed the documents
    encode_s: float  # while it did


async def evaluate_set(
    evaluation_set: EvaluationSet,
    modes: Sequence[EvaluationMode],
    system: System,
    index: VectorIndex,
    report: Report,
) -> AsyncIterator[Evaluation]:
    """Ingest a set once, then answer its queries in each mode.

    :class:`InvalidInput` where the index holds documents that are not the set's, or a document cannot be ingested.
    """
    # An index that is kept will be searched by embeddings another time.
    words_only = set(modes) <= {EvaluationMode.SPARSE, EvaluationMode.BM25S} and isinstance(index, MemoryIndex)
    lengthened = evaluation_set.length is not None
    encoder = EvaluationEncoder(system.encoder, needed=not words_only, repeated=lengthened)
    work = _Work(evaluation_set, system, index, report, encoder)
    for mode in dict.fromkeys(modes):
        started = time.perf_counter()
        run = await work.run(mode)
        metrics = await asyncio.to_thread(measure, evaluation_set.qrels, cut_run(run, CUTOFF_MAX))
        yield Evaluation(mode, metrics, run, time.perf_counter() - started, work.encoder.tokens, work.encoder.busy_s)


class _Work:
    """One set on its way: what modes share is done once."""

    def __init__(
        self,
        found: EvaluationSet,
        system: System,
        index: VectorIndex,
        report: Report,
        encoder: EvaluationEncoder,
    ) -> None:
        self._set = found
        self._system = system
        self._index = index
        self._report = report
        self._runs: dict[EvaluationMode, Run] = {}
        self._searcher: Searcher | None = None
        self.encoder = encoder

    async def run(self, mode: EvaluationMode) -> Run:
        if mode not in self._runs:
            match mode:
                case EvaluationMode.BM25S:
                    found = await asyncio.to_thread(self._bm25s)
                case EvaluationMode.RRF:
                    found = _fuse_ranks(await self.run(EvaluationMode.DENSE), await self.run(EvaluationMode.BM25S))
                case _:
                    found = await self._search(SearchMode(mode.value))
            self._runs[mode] = found
        return self._runs[mode]

    def _bm25s(self) -> Run:
        document_ids, texts = zip(*passages_of(self._set, self._system.chunker), strict=True)
        return run_bm25s(self._set.queries, document_ids, texts, LIMIT_MAX)

    async def _search(self, mode: SearchMode) -> Run:
        searcher = self._searcher or await self._prepare()
        queries = self._set.queries
        if mode is not SearchMode.SPARSE:
            await self.encoder.learn(list(queries.values()))
        if mode is not SearchMode.HYBRID and isinstance(self._index, MemoryIndex):
            return await self._score_all(mode, searcher, self._index)
        # A single ranking is as deep as the index gives; what a fused one holds depends on how deep its parts are.
        count = CUTOFF_MAX if mode is SearchMode.HYBRID else LIMIT_MAX
        turns = asyncio.Semaphore(SEARCHES_AT_ONCE)
        run: Run = {query_id: [] for query_id in queries}
        done = 0

        async def search(query_id: str, query: str) -> None:
            nonlocal done
            async with turns:
                ranked = await searcher.rank_documents(query, mode, count)
            run[query_id] = [RankedDocument(document_id, score) for document_id, score in ranked]
            done += 1
            self._report(f"{mode.value} queries", done, len(run))

        searches = [asyncio.ensure_future(search(*item)) for item in queries.items()]
        try:
            await asyncio.gather(*searches)
        finally:
            for task in searches:
                task.cancel()
            await asyncio.gather(*searches, return_exceptions=True)
        return run

    async def _score_all(self, mode: SearchMode, searcher: Searcher, index: MemoryIndex) -> Run:
        """Find what the searcher would, all queries at once: thousands of hits a query cost more than their scores."""
        queries = self._set.queries
        for query in queries.values():
            searcher.check_query(query)
        if mode is SearchMode.DENSE:
            encoded = [(await self.encoder.encode_queries([query])).embeddings for query in queries.values()]
            names, scores = await asyncio.to_thread(index.score_documents, np.concatenate(encoded))
            run = {query_id: _best(names, row) for query_id, row in zip(queries, scores, strict=True)}
        else:
            run = {
                query_id: _best(*index.score_documents_sparse(sparse_query(query)), above=0.0)
                for query_id, query in queries.items()
            }
        self._report(f"{mode.value} queries", len(run), len(run))
        return run

    async def _prepare(self) -> Searcher:
        await ingest_set(self._set, self._system, self.encoder, self._index, self._report)
        self._searcher = Searcher(self.encoder, self._index, self._system.tokenizer, self._system.fusion)
        return self._searcher


async def ingest_set(
    found: EvaluationSet, system: System, encoder: Encoder, index: VectorIndex, report: Report
) -> None:
    """Ingest the documents of a set with ``encoder``, the system's own or one around it.

    :class:`InvalidInput` where a document cannot be ingested, or the index holds others afterwards.
    """
    documents = [Document(row.document_id, row.text, title=row.title) for row in found.documents]
    done = 0
    journal = await Journal.open()
    ingestor = Ingestor(
        encoder, index, system.chunker, journal, chunk_encoder=system.chunk_encoder, batch_tokens_max=BATCH_TOKENS_MAX
    )
    try:
        async with aclosing(ingestor.ingest_all(documents)) as receipts:
            async for receipt in receipts:
                done += 1
                report("documents", done, len(documents))
                if receipt.error:
                    message = f"document {receipt.document_id!r} of {found.name}: {receipt.error}"
                    raise InvalidInput("dataset", message) from receipt.error
        await Collector(index, journal, COLLECT_AFTER_S).collect(within_s=COLLECT_AFTER_S)  # nobody searches yet
    finally:
        await journal.close()
    stats = await index.stats()
    if stats.document_count != len(documents):
        raise InvalidInput(
            "data_dir",
            f"the index holds {stats.document_count} documents, but {found.name} has {len(documents)}; give a "
            "directory of its own.",
        )


def _fuse_ranks(dense: Run, sparse: Run) -> Run:
    """Fuse runs over the same queries, document by document, by plain reciprocal rank."""
    fused: Run = {}
    for query_id in dense:
        one, other = (Half({found.document_id: found.score for found in run[query_id]}) for run in (dense, sparse))
        scores = fuse(one, other, None)
        best = sorted(scores.items(), key=lambda item: (-item[1], item[0]))[:LIMIT_MAX]
        fused[query_id] = [RankedDocument(*item) for item in best]
    return fused


def _best(names: Sequence[str], scores: NDArray[np.float32], above: float = -np.inf) -> list[RankedDocument]:
    places = np.argsort(-scores, kind="stable")[:LIMIT_MAX]
    return [RankedDocument(names[place], float(scores[place])) for place in places if scores[place] > above]
