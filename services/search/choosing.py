"""The second part of a search: of what was found, the page that is asked for, grouped or diversified."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from ingest.filters import matches
from ingest.index.interface import ChunkKey, DocumentRecord, StoredChunk, VectorIndex
from services.search.candidates import Candidates
from services.search.diversity import diversify, pool_size
from services.search.explaining import Diverse, Explainer
from services.search.grouping import by_document
from services.search.looking import Look
from services.search.pages import Page
from services.search.ranking import Ranking
from services.search.reading import read_chunks, read_embeddings, read_hits, read_records_of
from services.search.requests import SearchRequest
from services.search.results import DocumentHits, Hit


@dataclass(frozen=True, slots=True)
class Chosen:
    """A page: hits or groups, and whether there are more."""

    hits: tuple[Hit, ...]
    groups: tuple[DocumentHits, ...]
    shown: Sequence[ChunkKey | str]  # what is not to come on a later page
    more: bool


def wanted_of(request: SearchRequest, page: Page) -> tuple[int, Callable[[Candidates], int]]:
    """Say how many candidates a page needs, and how they are counted."""
    wanted = min(page.shown + request.top_k, page.depth_max)
    if request.group_chunks is not None:
        return wanted, lambda found: len(found.document_ids())
    return (wanted if request.mmr_lambda is None else pool_size(wanted)), lambda found: len(found.chunks())


async def choose(index: VectorIndex, request: SearchRequest, page: Page, look: Look) -> Chosen | None:
    """Choose what stands on a page, and read its chunks and records.

    None where a document on it has changed since it was found: it has to be looked for again. Never so where the look
    has the records of all candidates.
    """
    count = min(request.top_k, page.depth_max - page.shown)
    if request.group_chunks is not None:
        return await _choose_groups(index, request, page, look, count, request.group_chunks)
    ranking = look.ranking
    before, others = page.split(ranking.order)
    chosen: Sequence[ChunkKey] = others[:count]
    diverse: Mapping[ChunkKey, Diverse] = {}
    if request.mmr_lambda is not None:
        pool = ranking.order[: pool_size(page.shown + count)]
        embeddings = await read_embeddings(index, pool, look.times)
        started = time.perf_counter()
        diverse = diversify(pool, ranking.scores, embeddings, before, request.mmr_lambda, count)
        look.fuse_time_s += time.perf_counter() - started
        chosen = list(diverse)
    read = await _read(index, request, chosen, look)
    if read is None:
        return None
    chunks, records = read
    made = _maker(request, ranking, diverse)
    shown = enumerate(chunks.values(), start=page.shown + 1)
    hits = tuple(made(chunk, records[chunk.document_id], rank) for rank, chunk in shown)
    return Chosen(hits, (), chosen, len(others) > count or not look.exhausted)


async def _choose_groups(
    index: VectorIndex, request: SearchRequest, page: Page, look: Look, count: int, chunks_max: int
) -> Chosen | None:
    grouped = by_document(look.ranking, chunks_max)
    _, names = page.split(grouped)
    shown = names[:count]
    read = await _read(index, request, [key for name in shown for key in grouped[name]], look)
    if read is None:
        return None
    chunks, records = read
    made = _maker(request, look.ranking, {})
    groups: list[DocumentHits] = []
    for name in shown:
        found = (chunks[key] for key in grouped[name] if key in chunks)
        hits = tuple(made(chunk, records[name], rank) for rank, chunk in enumerate(found, start=1))
        if hits:
            groups.append(DocumentHits(page.shown + len(groups) + 1, hits[0].score, hits[0].record, hits))
    return Chosen((), tuple(groups), shown, len(names) > count or not look.exhausted)


async def _read(
    index: VectorIndex, request: SearchRequest, keys: Sequence[ChunkKey], look: Look
) -> tuple[dict[ChunkKey, StoredChunk], Mapping[str, DocumentRecord]] | None:
    """Read chunks, in the order of their keys, and records; chunks without texts and places where nobody wants these.

    None where the records of all candidates are not known yet, and one of those read is of another version than a chunk
    is, or none that the filter holds for.
    """
    consistency, times, records = request.consistency, look.times, look.records
    found: Mapping[ChunkKey, StoredChunk] = {}
    if records is None:
        if request.texts:
            found, records = await _read_hits(index, keys, request, look)
        else:
            records = await read_records_of(index, keys, consistency, times)
        if not all(_is_of(key, records.get(key.document_id), request) for key in keys):
            return None
    elif request.texts:
        found = await read_chunks(index, keys, consistency, times)
    if not request.texts:
        found = {key: StoredChunk(*key, 0, 0, 0, 0, (), 0, "") for key in keys}
    return {key: found[key] for key in keys if key in found}, records


async def _read_hits(
    index: VectorIndex, keys: Sequence[ChunkKey], request: SearchRequest, look: Look
) -> tuple[Mapping[ChunkKey, StoredChunk], Mapping[str, DocumentRecord]]:
    """Take what was read along with the candidates, where that is all, or read it."""
    chunks, records = look.read
    if all(key in chunks for key in keys):
        return chunks, {key.document_id: record for key, record in records.items()}
    return await read_hits(index, keys, request.consistency, look.times)


def _is_of(key: ChunkKey, record: DocumentRecord | None, request: SearchRequest) -> bool:
    if record is None or key.generation not in record.generations:
        return False
    return request.filter is None or matches(request.filter, record)


def _maker(
    request: SearchRequest, ranking: Ranking, diverse: Mapping[ChunkKey, Diverse]
) -> Callable[[StoredChunk, DocumentRecord, int], Hit]:
    if not request.explain:
        return ranking.hit
    explainer = Explainer(ranking, diverse)

    def explained(chunk: StoredChunk, record: DocumentRecord, rank: int) -> Hit:
        return replace(ranking.hit(chunk, record, rank), explanation=explainer.explain(chunk.chunk_key))

    return explained
