"""Looks whether all that was acknowledged is in an index once, and nothing else."""

from __future__ import annotations

import asyncio
import time

from encoder.fingerprint import index_fingerprint
from encoder.model_config import DEFAULT_MODEL_FOLDER
from encoder.tokenizer import Tokenizer
from ingest.chunking import Chunker
from ingest.documents import DEFAULT_TENANT
from ingest.index.interface import VectorIndex
from ingest.index.remote import RemoteIndex
from services.search.requests import SearchRequest
from services.search.results import SearchMode
from services.search.searcher import Searcher
from tests.benchmarks.crashes.source import Source, word
from tests.fakes import FakeEncoder

SETTLE_TIMEOUT_S = 120.0


async def check(source: Source, target: str) -> list[str]:
    """Look at the index through the search that users have; say what is wrong."""
    tokenizer = Tokenizer.load(DEFAULT_MODEL_FOLDER)
    fingerprint = index_fingerprint("fake", Chunker(tokenizer).fingerprint)
    index = await RemoteIndex.connect(target, dimension=384, fingerprint=fingerprint)
    try:
        searcher = Searcher(FakeEncoder(), index, tokenizer)
        problems = []
        for name, version in source.wanted.items():
            hits = (await searcher.search(SearchRequest(word(name), SearchMode.SPARSE, 50))).hits
            found = {(hit.chunk.document_id, hit.chunk.generation, hit.chunk.chunk_index) for hit in hits}
            texts = " ".join(hit.chunk.text for hit in sorted(hits, key=lambda hit: hit.chunk.chunk_index))
            if version < 0:
                if hits:
                    problems.append(f"{name} was deleted, and is there")
                continue
            whole = source.text(name, version).split()
            if texts.split() != whole or len(found) != len(hits) or {hit.chunk.document_id for hit in hits} != {name}:
                problems.append(f"{name} is not there once in version {version}: {len(hits)} chunks, {texts[:80]!r}")
        if len(source.acknowledged) != len(source.wanted):
            problems.append(f"{len(source.acknowledged)} documents have receipts, {len(source.wanted)} were sent")
        return problems + await _leftovers(index)
    finally:
        await index.close()


async def _leftovers(index: VectorIndex) -> list[str]:
    """Wait until everything is cleared away, and say what is not."""
    ends = time.monotonic() + SETTLE_TIMEOUT_S
    while True:
        chunks, token = 0, ""
        while True:
            records, token = await index.list_records(DEFAULT_TENANT, token, 200)
            chunks += sum(record.chunk_count for record in records)
            if not token:
                break
        there = (await index.stats()).chunk_count
        if there == chunks:
            return []
        if time.monotonic() > ends:
            return [f"the index holds {there} chunks, its documents have {chunks}"]
        await asyncio.sleep(0.5)
