"""A bulk load from its beginning to the switch: a fresh collection, filled, checked, and only then what is searched."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from encoder.errors import IndexUnavailable, InvalidInput, Unavailable
from encoder.tokenizer import Tokenizer
from ingest.batch import Loaded, Pools, Stages, load
from ingest.bulk.checkpoint import Checkpoint, Totals, make_plan
from ingest.bulk.cutting import BUNDLE_TOKENS
from ingest.bulk.parts import PART_BYTES, plan_parts
from ingest.chunk_making import make_chunk_making
from ingest.index.collections import LOOK_PERIOD_S, Collections, Layout, MadeBy
from ingest.index.interface import VectorIndex
from ingest.index.opening import open_index
from ingest.index.recall import measure_recall
from ingest.index.server_address import QdrantServer
from services.moving.bulk_encoder import encoder_factory, made_by, needed_server
from services.settings import BulkSettings

# Services follow an alias within seconds; searches that began before may take half a minute.
DROP_AFTER_S = 60.0


@dataclass(frozen=True, slots=True)
class Checks:
    """What a collection has to be before it is switched to."""

    recall_min: float = 0.95
    recall_queries: int = 200
    build_timeout_s: float = 6 * 3600.0
    look_period_s: float = LOOK_PERIOD_S


@dataclass(frozen=True, slots=True)
class BulkLoad:
    """What is loaded into what."""

    sources: Sequence[str]
    collection: str
    alias: str | None  # None: nothing is switched
    checkpoint: Path
    layout: Layout
    pools: Pools
    checks: Checks
    encoder_target: str | None = None
    ray_address: str | None = None
    drop_old: bool = False
    drop_after_s: float = DROP_AFTER_S
    part_bytes: int = PART_BYTES
    bundle_tokens: int = BUNDLE_TOKENS


@dataclass(frozen=True, slots=True)
class Finished:
    """What a bulk load came to."""

    totals: Totals
    recall: float
    replaced: str | None  # the collection that the alias led to before
    dead_letters: Path


def run_bulk_load(
    settings: BulkSettings, wanted: BulkLoad, report: Callable[[Totals, int, int], None], tell: Callable[[str], None]
) -> Finished:
    """Load, or go on with a load that was interrupted; check the collection, then switch to it.

    ``report`` is told totals, finished parts and all parts, ``tell`` what is done after
    that. Whatever is raised, the same call goes on later.
    """
    server = needed_server(settings)
    parts = plan_parts(wanted.sources, wanted.part_bytes)
    tokenizer = Tokenizer.load(settings.model)
    made = made_by(settings, make_chunk_making(settings.chunk_rules(), tokenizer))
    plan = make_plan(wanted.collection, made.fingerprint, made.dimension, parts)
    checkpoint, is_new = Checkpoint.open(wanted.checkpoint, plan)
    try:
        asyncio.run(_begin(server, wanted, checkpoint, made, is_new=is_new))
        stages = Stages(
            settings.model,
            settings.chunk_rules(),
            made.fingerprint,
            made.dimension,
            encoder_factory(settings, wanted.encoder_target, wanted.pools.encoders),
            partial(_open_index, server, wanted.collection, made),
            wanted.bundle_tokens,
        )
        try:
            loaded = load(
                parts,
                stages,
                wanted.pools,
                checkpoint,
                wanted.ray_address,
                lambda totals, done: report(totals, done, len(parts)),
            )
        finally:
            dead_letters = checkpoint.gather_dead_letters()
        _check_whole(loaded)
        recall, replaced = asyncio.run(_finish(server, wanted, made, loaded.totals, tell))
    finally:
        checkpoint.close()
    return Finished(loaded.totals, recall, replaced, dead_letters)


async def _begin(server: QdrantServer, wanted: BulkLoad, checkpoint: Checkpoint, made: MadeBy, *, is_new: bool) -> None:
    """Make the collection; the plan is there before it, so that it is known whose it is."""
    collections = await Collections.open(server)
    try:
        if wanted.alias:
            await collections.check_alias(wanted.alias)
        exists = await collections.resolve(wanted.collection) is not None
        if is_new:
            if exists:
                await collections.create(wanted.collection, made, wanted.layout)  # raises that it is in use
            checkpoint.begin()
        if not exists:
            await collections.create(wanted.collection, made, wanted.layout)
    finally:
        await collections.close()


async def _open_index(server: QdrantServer, collection: str, made: MadeBy) -> VectorIndex:
    return await open_index(
        dimension=made.dimension, fingerprint=made.fingerprint, qdrant=server, qdrant_collection=collection
    )


def _check_whole(loaded: Loaded) -> None:
    if loaded.failures:
        part, why = next(iter(loaded.failures.items()))
        raise Unavailable(
            f"{len(loaded.failures)} parts could not be read to their end, the first {part}: {why} Nothing was "
            "switched; run it again, or begin anew with other files."
        )


async def _finish(
    server: QdrantServer, wanted: BulkLoad, made: MadeBy, totals: Totals, tell: Callable[[str], None]
) -> tuple[float, str | None]:
    """Count, build, measure, switch."""
    collections = await Collections.open(server)
    try:
        old = (await collections.aliases()).get(wanted.alias) if wanted.alias else None
        checks = wanted.checks
        if old != wanted.collection:  # where it was switched to already, others may have written since
            await _check_counts(partial(_open_index, server, wanted.collection, made), wanted.collection, totals)
        tell("building the graph")
        await collections.build(
            wanted.collection, wanted.layout, timeout_s=checks.build_timeout_s, look_period_s=checks.look_period_s
        )
        tell("comparing with exact search")
        recall = await measure_recall(collections, wanted.collection, queries=checks.recall_queries)
        if recall < checks.recall_min:
            raise InvalidInput(
                "recall_min",
                f"recall@10 of collection {wanted.collection} is {recall:.3f}, below recall_min, "
                f"{checks.recall_min:g}; nothing was switched. Load again with more edges (hnsw_m) or without "
                "quantization.",
            )
        if not wanted.alias or old == wanted.collection:
            return recall, None
        await collections.switch(wanted.alias, wanted.collection)
        if old and wanted.drop_old:
            tell(f"waiting {wanted.drop_after_s:g} s before {old} is deleted")
            await asyncio.sleep(wanted.drop_after_s)
            await collections.drop(old)
        return recall, old
    finally:
        await collections.close()


async def _check_counts(open_it: Callable[[], Awaitable[VectorIndex]], collection: str, totals: Totals) -> None:
    index = await open_it()
    try:
        found = await index.stats()
    finally:
        await index.close()
    if (found.document_count, found.chunk_count) != (totals.documents, totals.chunks):
        raise IndexUnavailable(
            f"Collection {collection} holds {found.document_count} documents and {found.chunk_count} chunks, but "
            f"{totals.documents} and {totals.chunks} were written; nothing was switched. Delete both the collection "
            "and the checkpoint, and load again."
        )
