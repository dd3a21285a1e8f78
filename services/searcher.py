"""One search: check the query, encode it, ask the index, fuse, drop what is no longer committed.

The gRPC service, the command line and the evaluation share it. Knows no gRPC and no model.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from encoder.errors import InvalidInput
from encoder.interface import Encoder
from encoder.tokenizer import Tokenizer, check_characters
from ingest.documents import DEFAULT_TENANT
from ingest.index.interface import (
    LIMIT_MAX,
    READ_MAX,
    DocumentKey,
    DocumentRecord,
    IndexHit,
    Scope,
    SparseVector,
    StoredChunk,
    VectorIndex,
)
from ingest.sparse import sparse_query
from services import passages
from services.fusion import DEPTH, FusionWeights, Half, fuse
from services.results import Hit, RetrieveResult, SearchMode, SearchResult, SearchTimings

__all__ = [
    "TOKEN_BUDGET_MAX",
    "TOP_K_MAX",
    "Hit",
    "RetrieveResult",
    "SearchMode",
    "SearchResult",
    "SearchTimings",
    "Searcher",
]

QUERY_TOKENS_MAX = 512
# No 512 tokens of any language need more; longer queries are refused before they are tokenized.
QUERY_CHARS_MAX = 16 * QUERY_TOKENS_MAX
TOP_K_MAX = 200
TOKEN_BUDGET_MAX = 131_072
# How many candidates each half of a search contributes: fusion and dropped generations need more than top_k.
CANDIDATES_PER_HIT = 4
CANDIDATES_MIN = DEPTH
# How often a search is repeated, with twice the candidates each time and without what was found and is not committed,
# where too few are.
ROUNDS_MAX = 3

_Key = tuple[str, int, int]  # document_id, generation, chunk_index


@dataclass(frozen=True, slots=True)
class _Candidates:
    """What both halves of a search found, best first."""

    dense: Sequence[IndexHit]
    sparse: Sequence[IndexHit]
    sparse_complete: bool  # whether the index has no more chunks with a word of the query

    def committed(self, records: Mapping[str, DocumentRecord]) -> _Candidates:
        """Keep the chunks whose generation their document's record lists."""
        return _Candidates(_committed(self.dense, records), _committed(self.sparse, records), self.sparse_complete)

    def joined(self, other: _Candidates) -> _Candidates:
        """Add what another search found; a chunk that both found stands once."""
        return _Candidates(
            _joined(self.dense, other.dense),
            _joined(self.sparse, other.sparse),
            self.sparse_complete and other.sparse_complete,
        )

    def chunks(self) -> dict[_Key, StoredChunk]:
        """Collect the chunks, each once."""
        return {_key(hit.chunk): hit.chunk for hit in (*self.dense, *self.sparse)}

    def document_ids(self) -> set[str]:
        """Name the documents."""
        return {hit.chunk.document_id for hit in (*self.dense, *self.sparse)}


class Searcher:
    """Searches one index with one encoder. Safe for many searches at once.

    ``fusion`` says how a hybrid search adds up both halves' scores; without, it adds up their ranks.
    """

    def __init__(
        self,
        encoder: Encoder,
        index: VectorIndex,
        tokenizer: Tokenizer,
        fusion: FusionWeights | None = None,
    ) -> None:
        self._encoder = encoder
        self._index = index
        self._tokenizer = tokenizer
        self._fusion = fusion

    async def search(self, query: str, mode: SearchMode, top_k: int, *, tenant: str = DEFAULT_TENANT) -> SearchResult:
        """Find a tenant's ``top_k`` best chunks, fewer only where the index has no more.

        :class:`InvalidInput` names ``query`` or ``top_k``; otherwise what the encoder and the index raise.
        """
        started = time.perf_counter()
        self._check_top_k(top_k)
        found, records, encoded, index_time_s = await self._look(
            query, mode, tenant, top_k, lambda found: len(found.chunks())
        )
        return SearchResult(
            hits=tuple(self._rank(found, records, mode, encoded)[:top_k]),
            query_tokens=encoded.tokens,
            timings=SearchTimings(
                encode_time_ms=encoded.time_s * 1000,
                index_time_ms=index_time_s * 1000,
                total_time_ms=(time.perf_counter() - started) * 1000,
            ),
        )

    async def rank_documents(
        self, query: str, mode: SearchMode, count: int, *, tenant: str = DEFAULT_TENANT
    ) -> list[tuple[str, float]]:
        """Find a tenant's ``count`` best documents, each with the score of its best chunk; best first.

        Fewer come where the index has no more, or where its ``LIMIT_MAX`` best chunks are all of fewer documents.
        Raises what :meth:`search` does.
        """
        found, records, encoded, _ = await self._look(
            query, mode, tenant, count, lambda found: len(found.document_ids())
        )
        best: dict[str, float] = {}
        for hit in self._rank(found, records, mode, encoded):
            best.setdefault(hit.record.document_id, hit.score)
        return list(best.items())[:count]

    async def _look(
        self, query: str, mode: SearchMode, tenant: str, wanted: int, count: Callable[[_Candidates], int]
    ) -> tuple[_Candidates, dict[str, DocumentRecord], _EncodedQuery, float]:
        """Check and encode the query, and ask the index for candidates until ``count`` says that enough are there."""
        self.check_query(query)
        sparse = sparse_query(query) if mode is not SearchMode.DENSE else None
        encoding = asyncio.ensure_future(self._encode(query)) if mode is not SearchMode.SPARSE else None

        async def ask(limit: int, scope: Scope) -> tuple[_Candidates, float]:
            return await self._candidates(encoding, sparse, limit, scope)

        try:
            found, records, index_time_s = await self._find(ask, tenant, wanted, count)
            encoded = await encoding if encoding else _NOT_ENCODED
        finally:
            if encoding:
                encoding.cancel()
                await asyncio.gather(encoding, return_exceptions=True)
        return found, records, encoded, index_time_s

    async def retrieve(
        self, query: str, mode: SearchMode, token_budget: int, top_k: int, *, tenant: str = DEFAULT_TENANT
    ) -> RetrieveResult:
        """Find passages of at most ``token_budget`` tokens together, from the ``top_k`` best chunks.

        Neighbouring chunks are joined; one that is missing between two is read too, where the budget allows. Raises
        what :meth:`search` raises, and :class:`InvalidInput` for ``token_budget``.
        """
        started = time.perf_counter()
        if not 1 <= token_budget <= TOKEN_BUDGET_MAX:
            message = f"token_budget is {token_budget}; 1 to {TOKEN_BUDGET_MAX} are allowed."
            raise InvalidInput("token_budget", message)
        found = await self.search(query, mode, top_k, tenant=tenant)
        hits = passages.select(found.hits, token_budget)
        read_started = time.perf_counter()
        fillers = await self._read_gaps(hits, token_budget - sum(hit.chunk.token_count for hit in hits))
        read_time_ms = (time.perf_counter() - read_started) * 1000
        return RetrieveResult(
            passages=tuple(passages.join(hits, fillers, token_budget, self._tokenizer.count)),
            timings=SearchTimings(
                encode_time_ms=found.timings.encode_time_ms,
                index_time_ms=found.timings.index_time_ms + read_time_ms,
                total_time_ms=(time.perf_counter() - started) * 1000,
            ),
        )

    async def _read_gaps(self, hits: Sequence[Hit], tokens_left: int) -> list[StoredChunk]:
        if tokens_left <= 0:
            return []
        gaps = [
            self._index.get_chunks(hit.chunk.key, hit.record.generation_of(place), place, place)
            for hit, place in passages.single_gaps(hits)
        ]
        chunks = []
        for chunk in (chunk for found in await asyncio.gather(*gaps) for chunk in found):
            if chunk.token_count <= tokens_left:
                chunks.append(chunk)
                tokens_left -= chunk.token_count
        return chunks

    def _check_top_k(self, top_k: int) -> None:
        if not 1 <= top_k <= TOP_K_MAX:
            raise InvalidInput("top_k", f"top_k is {top_k}; 1 to {TOP_K_MAX} are allowed.")

    def check_query(self, query: str) -> None:
        """Refuse a query that is empty or too long: :class:`InvalidInput` names ``query``."""
        check_characters("query", query)
        if not query.strip():
            raise InvalidInput("query", "query is empty or only white space; say what to look for.")
        if len(query) > QUERY_CHARS_MAX:
            raise InvalidInput(
                "query", f"query has {len(query)} characters; the limit is {QUERY_CHARS_MAX}. Shorten it."
            )
        tokens = self._tokenizer.count(query) + 1  # the end-of-sequence token
        if tokens > QUERY_TOKENS_MAX:
            raise InvalidInput("query", f"query has {tokens} tokens; the limit is {QUERY_TOKENS_MAX}. Shorten it.")

    async def _encode(self, query: str) -> _EncodedQuery:
        started = time.perf_counter()
        try:
            encoded = await self._encoder.encode_queries([query])
        except InvalidInput as error:
            raise InvalidInput("query", str(error).replace("queries[0]", "query")) from None
        return _EncodedQuery(encoded.embeddings[0], encoded.token_counts[0], time.perf_counter() - started)

    async def _find(
        self,
        ask: Callable[[int, Scope], Awaitable[tuple[_Candidates, float]]],
        tenant: str,
        wanted: int,
        count: Callable[[_Candidates], int],
    ) -> tuple[_Candidates, dict[str, DocumentRecord], float]:
        """Ask the index until enough committed candidates are there, or no more to be had.

        A document of which other generations than the committed ones were found may have been replaced during the
        search: it is asked for again, its committed generations alone. Those stay whole for longer than a search
        takes, so once is enough, however often it is replaced meanwhile. What was not committed in one round and is no
        longer looked at may be so in the next: such a document is asked for again in each.
        """
        limit = min(max(CANDIDATES_PER_HIT * wanted, CANDIDATES_MIN), LIMIT_MAX)
        without: dict[str, set[int]] = {}  # however many chunks a version under way has, they crowd out no others
        index_time_s = 0.0
        for round_number in range(1, ROUNDS_MAX + 1):
            found, search_time_s = await ask(limit, Scope(tenant, without=without))
            started = time.perf_counter()
            records = await self._records(tenant, found.document_ids() | without.keys())
            index_time_s += search_time_s + time.perf_counter() - started
            committed = found.committed(records)
            stale = _not_committed(found, records)
            for scope in _committed_of({*without, *(name for name, _ in stale)}, tenant, records):
                again, search_time_s = await ask(limit, scope)
                committed = committed.joined(again)
                index_time_s += search_time_s
            more = max(len(found.dense), len(found.sparse)) >= limit and (limit < LIMIT_MAX or stale)
            if round_number == ROUNDS_MAX or not more or count(committed) >= wanted:
                break
            for document_id, generation in stale:
                if document_id in without or len(without) < READ_MAX:
                    without.setdefault(document_id, set()).add(generation)
            limit = min(2 * limit, LIMIT_MAX)
        return committed, records, index_time_s

    async def _candidates(
        self, encoding: asyncio.Future[_EncodedQuery] | None, sparse: SparseVector | None, limit: int, scope: Scope
    ) -> tuple[_Candidates, float]:
        """Ask both halves at once; the time is the longer one's in the index."""

        async def by_embedding() -> tuple[list[IndexHit], float]:
            if encoding is None:
                return [], 0.0
            embedding = (await encoding).embedding
            started = time.perf_counter()
            return await self._index.search_dense(embedding, limit, scope), time.perf_counter() - started

        async def by_words() -> tuple[list[IndexHit], float]:
            if sparse is None or not len(sparse.indices):
                return [], 0.0
            started = time.perf_counter()
            return await self._index.search_sparse(sparse, limit, scope), time.perf_counter() - started

        words = asyncio.ensure_future(by_words())
        try:
            dense, dense_time_s = await by_embedding()
            found, sparse_time_s = await words
        finally:
            words.cancel()
            await asyncio.gather(words, return_exceptions=True)
        return _Candidates(dense, found, len(found) < limit), max(dense_time_s, sparse_time_s)

    async def _records(self, tenant: str, document_ids: Iterable[str]) -> dict[str, DocumentRecord]:
        keys = [DocumentKey(tenant, document_id) for document_id in document_ids]
        records: dict[DocumentKey, DocumentRecord] = {}
        for start in range(0, len(keys), READ_MAX):
            records |= await self._index.get_records(keys[start : start + READ_MAX])
        return {key.document_id: record for key, record in records.items()}

    def _rank(
        self, found: _Candidates, records: Mapping[str, DocumentRecord], mode: SearchMode, encoded: _EncodedQuery
    ) -> list[Hit]:
        dense = {_key(hit.chunk): hit.score for hit in found.dense}
        sparse = {_key(hit.chunk): hit.score for hit in found.sparse}
        scores: Mapping[_Key, float] = dense or sparse
        if mode is SearchMode.HYBRID:
            halves = Half(dense), Half(sparse, complete=found.sparse_complete)
            scores = fuse(*halves, self._fusion, encoded.embedding)
        chunks = found.chunks()
        # Equal scores have an order too, or the same search would answer differently each time. Far down a hybrid
        # ranking many are equal: there the cosines decide, then the words.
        order = sorted(scores, key=lambda key: (-scores[key], -dense.get(key, -1.0), -sparse.get(key, 0.0), key))
        return [
            Hit(rank, scores[key], chunks[key], records[key[0]], dense.get(key), sparse.get(key))
            for rank, key in enumerate(order, start=1)
        ]


@dataclass(frozen=True, slots=True)
class _EncodedQuery:
    embedding: NDArray[np.float32]  # (d,)
    tokens: int
    time_s: float


_NOT_ENCODED = _EncodedQuery(np.empty(0, dtype=np.float32), tokens=0, time_s=0.0)


def _key(chunk: StoredChunk) -> _Key:
    return chunk.document_id, chunk.generation, chunk.chunk_index


def _committed(hits: Sequence[IndexHit], records: Mapping[str, DocumentRecord]) -> list[IndexHit]:
    return [hit for hit in hits if _is_committed(hit.chunk, records)]


def _is_committed(chunk: StoredChunk, records: Mapping[str, DocumentRecord]) -> bool:
    record = records.get(chunk.document_id)
    return record is not None and chunk.generation in record.generations


def _joined(first: Sequence[IndexHit], second: Sequence[IndexHit]) -> list[IndexHit]:
    hits = {_key(hit.chunk): hit for hit in (*second, *first)}
    return sorted(hits.values(), key=lambda hit: -hit.score)


def _not_committed(found: _Candidates, records: Mapping[str, DocumentRecord]) -> list[tuple[str, int]]:
    """Name the documents, with the generations, that were found and are not committed; each once."""
    chunks = found.chunks().values()
    stale = [(chunk.document_id, chunk.generation) for chunk in chunks if not _is_committed(chunk, records)]
    return list(dict.fromkeys(stale))


def _committed_of(document_ids: Iterable[str], tenant: str, records: Mapping[str, DocumentRecord]) -> list[Scope]:
    """Name the committed generations of documents, in parts that a search takes."""
    names = sorted(name for name in document_ids if name in records)
    return [
        Scope(tenant, {name: records[name].generations for name in names[start : start + READ_MAX]})
        for start in range(0, len(names), READ_MAX)
    ]
