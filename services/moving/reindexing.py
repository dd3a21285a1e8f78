"""Moving an index to another model: beside the old one, which serves on, and then into its place.

On a Qdrant server the place is an alias, in a data directory the manifest; both are exchanged from one moment to the
next, after a pass that found nothing to copy.
"""

from __future__ import annotations

import asyncio
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from encoder.errors import IndexUnavailable, InUse, InvalidInput, MambaSearchError, NotFound, Overloaded, Unavailable
from encoder.interface import Encoder
from encoder.tokenizer import Tokenizer
from ingest.bulk.filling import DocumentEncoder
from ingest.chunk_making import make_chunk_making
from ingest.chunking import Chunker
from ingest.index.collections import LOOK_PERIOD_S, Collections, Layout, MadeBy
from ingest.index.data_directory import read_manifest
from ingest.index.embedded import EmbeddedIndex
from ingest.index.interface import VectorIndex
from ingest.index.recall import measure_recall
from ingest.index.remote import RemoteIndex
from ingest.index.server import ServerIndex
from ingest.index.server_address import QdrantServer
from ingest.reindexing import Pass, Reindexer
from services.door.owner_token import read_owner_token
from services.settings import BulkSettings

PASSES_MAX = 50
RECALL_MIN, RECALL_QUERIES = 0.95, 200
BUILD_TIMEOUT_S = 6 * 3600.0
# A write that began before the switch has ended by then: it had so long, and a search, too.
SETTLE_S = 60.0
SETTLE_PERIOD_S = 5.0
DRAFT_FOLDER = "reindex"
# How often it is tried whether the service has let go of the directory, and how long it may take that it stops.
WAIT_PERIOD_S = 1.0
STOP_TIMEOUT_S = 60.0


@dataclass(frozen=True, slots=True)
class Mover:
    """What all moves need: the new model, and whom to tell."""

    encoder: DocumentEncoder
    chunker: Chunker
    made_by: MadeBy
    on_progress: Callable[[Pass], None]
    tell: Callable[[str], None]

    async def catch_up(self, source: VectorIndex, target: VectorIndex) -> None:
        """Copy until a pass finds nothing that differs, while nobody else writes to the target.

        :class:`InvalidInput` names a document that the new model cannot read; :class:`Overloaded` where documents
        change faster than they are copied.
        """
        reindexer = self.reindexer(source, target)
        for _ in range(PASSES_MAX):
            found = await reindexer.catch_up(alone=True)
            if not found.changes:
                break
        else:
            raise Overloaded(
                f"After {PASSES_MAX} passes documents still change, the last was {found.changing}; write less, and try "
                "again. Ingest that one again where nobody writes it.",
                60.0,
            )
        if found.failed:
            first = found.failed[0]
            raise InvalidInput(
                "text",
                f"{len(found.failed)} documents cannot be moved, the first is {first.document_id} ({first.reason}) "
                "Delete them, or use another model; nothing was exchanged.",
            )

    def reindexer(self, source: VectorIndex, target: VectorIndex) -> Reindexer:
        """Make what copies from one to the other."""
        return Reindexer(source, target, self.encoder, self.chunker, self.on_progress)


async def make_mover(
    settings: BulkSettings, encoder: Encoder, on_progress: Callable[[Pass], None], tell: Callable[[str], None]
) -> Mover:
    """Put together what moves an index; :class:`FingerprintMismatch` where the encoder runs another model."""
    from services.moving.bulk_encoder import made_by

    tokenizer = await asyncio.to_thread(Tokenizer.load, settings.model)
    chunks = make_chunk_making(settings.chunk_rules(), tokenizer)
    documents = DocumentEncoder(encoder, chunks.encoder)
    made = await asyncio.to_thread(made_by, settings, chunks)
    await documents.check(made.fingerprint, made.dimension, chunks.chunker)
    return Mover(documents, chunks.chunker, made, on_progress, tell)


async def reindex_directory(mover: Mover, directory: Path, owner_target: str) -> None:
    """Move the index in a data directory; while a service holds it, read through its owner, and wait until it lets go.

    What is copied stays in the folder ``reindex`` of the directory until the exchange: the same call goes on later.
    :class:`NotFound` where there is no index; :class:`InvalidInput` where it is the model's own already.
    """
    draft = directory / DRAFT_FOLDER
    manifest = await asyncio.to_thread(read_manifest, directory)
    if manifest is None:
        raise NotFound(f"{directory} holds no index; there is nothing to move.")
    old = MadeBy(manifest.fingerprint, manifest.dimension)
    if old == mover.made_by:
        await asyncio.to_thread(shutil.rmtree, draft, ignore_errors=True)  # of a move that ended a moment too soon
        raise InvalidInput("model", f"{directory} was made with {old.fingerprint} already; there is nothing to move.")
    target = await _open_directory(draft, mover.made_by)
    told = False
    stop_s = 0.0  # that an owner which does not answer has a right to; none before it has answered once
    try:
        while True:
            source = await _open_source(directory, old, owner_target, stop_s)
            stop_s = STOP_TIMEOUT_S
            try:
                await mover.catch_up(source, target)
            except IndexUnavailable:
                if isinstance(source, EmbeddedIndex):
                    raise
                continue  # the owner was stopped: what it held is read directly from now on
            else:
                if isinstance(source, EmbeddedIndex):
                    await target.close()
                    await source.give_way(draft)
                    break
            finally:
                await source.close()
            if not told:
                mover.tell("everything is copied; stop the service to exchange the indexes (Ctrl-C: later)")
                told = True
            await asyncio.sleep(WAIT_PERIOD_S)
    finally:
        await target.close()
    await asyncio.to_thread(shutil.rmtree, draft)


async def _open_directory(directory: Path, made_by: MadeBy) -> EmbeddedIndex:
    return await EmbeddedIndex.open(directory, dimension=made_by.dimension, fingerprint=made_by.fingerprint)


async def _open_source(directory: Path, made_by: MadeBy, owner_target: str, stop_s: float) -> VectorIndex:
    """Open a directory, through its owner where there is one; wait for ``stop_s`` where that is about to stop."""
    give_up = time.monotonic() + stop_s
    while True:
        try:
            return await _open_directory(directory, made_by)
        except InUse as error:
            in_use = error
        try:
            return await RemoteIndex.connect(
                owner_target,
                dimension=made_by.dimension,
                fingerprint=made_by.fingerprint,
                token=read_owner_token(directory),
            )
        except Unavailable as error:
            if time.monotonic() >= give_up:
                raise InUse(f"{in_use} (No index owner is at {owner_target}; name it by --index-target.)") from error
        await asyncio.sleep(WAIT_PERIOD_S)


@dataclass(frozen=True, slots=True)
class Moved:
    """From which collection to which an alias was led."""

    old: str
    new: str
    recall: float


async def reindex_collection(
    mover: Mover,
    server: str | QdrantServer,
    alias: str,
    collection: str | None,
    layout: Layout,
    *,
    recall_min: float = RECALL_MIN,
    settle_s: float = SETTLE_S,
    look_period_s: float = LOOK_PERIOD_S,
) -> Moved:
    """Move the index that an alias of a Qdrant server leads to into another collection, and let it lead there.

    Writers notice the switch before their next commit, and write no more to the old collection; what was on its way
    then is copied during ``settle_s``. The old collection is kept. The same call goes on with what was interrupted.
    :class:`NotFound` where there is no such alias; :class:`InvalidInput` where the collection is the model's own
    already, or its recall is too low.
    """
    collections = await Collections.open(server)
    try:
        current = await _alias_target(collections, alias)
        unsettled = await collections.moving_from(current)
        if unsettled and await collections.resolve(unsettled):
            old, new, recall = unsettled, current, 1.0  # the switch was the last that was done
        else:
            old, new = current, collection or _next_name(current, alias)
            recall = await _copy(mover, collections, server, old, new, layout, recall_min, look_period_s)
            await collections.note_moving(new, old)
            await collections.switch(alias, new)
            mover.tell(f"{alias} leads to {new}; taking in what was under way for {settle_s:g} s")
        source, target = await _open_both(collections, server, old, new)
        try:
            await _settle(mover.reindexer(source, target), settle_s)
        finally:
            await source.close()
            await target.close()
        await collections.note_moving(new, "")
        return Moved(old, new, recall)
    finally:
        await collections.close()


async def _alias_target(collections: Collections, alias: str) -> str:
    found = (await collections.aliases()).get(alias)
    if found is None:
        await collections.check_alias(alias)  # a collection of this name cannot be exchanged
        raise NotFound(f"There is no alias {alias} on {collections.service}.")
    return found


def _next_name(current: str, alias: str) -> str:
    """Name the next collection of an alias: NAME-2 after NAME-1."""
    number = current.removeprefix(f"{alias}-")
    return f"{alias}-{int(number) + 1 if number.isdecimal() else 1}"


async def _copy(
    mover: Mover,
    collections: Collections,
    server: str | QdrantServer,
    old: str,
    new: str,
    layout: Layout,
    recall_min: float,
    look_period_s: float,
) -> float:
    """Fill the new collection, build its graph, take in what changed meanwhile; give its recall@10."""
    if await collections.made_by(old) == mover.made_by:
        raise InvalidInput("model", f"{old} was made with {mover.made_by.fingerprint} already; nothing is to move.")
    if await collections.resolve(new) is None:
        await collections.create(new, mover.made_by, layout)
    elif new in (await collections.aliases()).values() or await collections.made_by(new) != mover.made_by:
        raise InUse(f"Collection {new} on {collections.service} is another index; name another one by --collection.")
    source, target = await _open_both(collections, server, old, new)
    try:
        await mover.catch_up(source, target)
        mover.tell("building the graph")
        await collections.build(new, layout, timeout_s=BUILD_TIMEOUT_S, look_period_s=look_period_s)
        recall = await measure_recall(collections, new, queries=RECALL_QUERIES)
        if recall < recall_min:
            raise InvalidInput(
                "recall_min",
                f"recall@10 of collection {new} is {recall:.3f}, below recall_min, {recall_min:g}; nothing was "
                "switched.",
            )
        await mover.catch_up(source, target)
    finally:
        await source.close()
        await target.close()
    return recall


async def _open_both(
    collections: Collections, server: str | QdrantServer, old: str, new: str
) -> tuple[ServerIndex, ServerIndex]:
    opened: list[ServerIndex] = []
    for name in (old, new):
        made_by = await collections.made_by(name)
        opened.append(
            await ServerIndex.open(
                server, collection=name, dimension=made_by.dimension, fingerprint=made_by.fingerprint
            )
        )
    return opened[0], opened[1]


async def _settle(reindexer: Reindexer, settle_s: float) -> None:
    """Copy what writers had under way at the switch, beside those that write to the new collection by now."""
    loop = asyncio.get_running_loop()
    end = loop.time() + settle_s
    while True:
        left_s = end - loop.time()
        found = await reindexer.catch_up(alone=False)
        if found.failed:
            raise MambaSearchError(
                f"{found.failed[0].document_id}, which changed at the switch, cannot be moved "
                f"({found.failed[0].reason}) Ingest it again."
            )
        if left_s <= 0:
            break
        await asyncio.sleep(min(SETTLE_PERIOD_S, max(left_s, 0)))
    if reindexer.superseded:
        await asyncio.sleep(settle_s)  # searches that began before the last of it
        await reindexer.clear_superseded()
