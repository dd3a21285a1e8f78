"""A Qdrant server's collections and the aliases that lead to them: made, filled up, exchanged. Knows no document.

The name that services are told is an alias. It leads to one collection at a time, and to another from one moment to
the next: that is how an index is exchanged while it is searched. A collection's own name serves, too, but for good.
"""

from __future__ import annotations

import asyncio
import time
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Literal, Self

import grpc
from qdrant_client import AsyncQdrantClient, models
from qdrant_client.http.exceptions import ApiException

from encoder.errors import FingerprintMismatch, IndexUnavailable, InUse, InvalidInput, NotFound, TimedOut
from ingest.index import points
from ingest.index.fields import INGESTED_AT
from ingest.index.server_address import QdrantServer
from ingest.index.server_connection import check_version, connect, translated
from ingest.index.server_models import COMMITTED, REVISION

HNSW_M = 16
MOVING_FROM = "moving_from"  # in a collection's metadata
# Optimizing begins a moment after it is asked for: a collection is done when it has been so for several looks.
LOOKS_SETTLED = 3
LOOK_PERIOD_S = 0.5
_INDEXED_FIELDS: dict[str, models.PayloadSchemaType | models.KeywordIndexParams | models.IntegerIndexParams] = {
    points.KIND: models.PayloadSchemaType.KEYWORD,
    points.TENANT: models.KeywordIndexParams(type=models.KeywordIndexType.KEYWORD, is_tenant=True),
    points.DOCUMENT_ID: models.KeywordIndexParams(type=models.KeywordIndexType.KEYWORD, prefix=True),
    points.GENERATION: models.PayloadSchemaType.INTEGER,
    points.DESCRIBING: models.PayloadSchemaType.KEYWORD,
    points.TOKENS: models.IntegerIndexParams(type=models.IntegerIndexType.INTEGER, lookup=True, range=False),
    points.range_path(INGESTED_AT): models.PayloadSchemaType.FLOAT,
    COMMITTED: models.PayloadSchemaType.KEYWORD,
    REVISION: models.PayloadSchemaType.UUID,
}

Quantization = Literal["none", "scalar", "binary"]


@dataclass(frozen=True, slots=True)
class MadeBy:
    """What made an index."""

    fingerprint: str
    dimension: int


@dataclass(frozen=True, slots=True)
class Layout:
    """How a collection is laid out; None leaves it to the server."""

    shards: int | None = None
    replicas: int | None = None
    vectors_on_disk: bool | None = None
    quantization: Quantization = "none"
    hnsw_m: int = HNSW_M  # edges of a vector in the graph
    hnsw_deferred: bool = False  # until :meth:`Collections.build`: a graph that grows along costs several times as much


class Collections:
    """What a server has. Every method may raise :class:`IndexUnavailable`, :class:`TimedOut` or :class:`Overloaded`."""

    def __init__(self, client: AsyncQdrantClient, service: str) -> None:
        """``service`` names the server in messages."""
        self.client = client
        self.service = service

    @classmethod
    async def open(cls, server: str | QdrantServer | AsyncQdrantClient) -> Self:
        """Connect to an address, or take a client, which is closed at the end; refuse a server that is too old."""
        if isinstance(server, str):
            server = QdrantServer(server)
        client, service = (connect(server), str(server)) if isinstance(server, QdrantServer) else (server, "local mode")
        try:
            async with translated(service):
                check_version((await client.info()).version, service)
        except BaseException:
            await client.close()
            raise
        return cls(client, service)

    async def close(self) -> None:
        """Close the connection."""
        await self.client.close()

    async def aliases(self) -> dict[str, str]:
        """List all aliases, each with its collection."""
        async with self.translated():
            found = (await self.client.get_aliases()).aliases
        return {alias.alias_name: alias.collection_name for alias in found}

    async def resolve(self, name: str) -> str | None:
        """Give the collection that an alias leads to, or that has this name; None where there is neither."""
        leads_to = (await self.aliases()).get(name)
        return leads_to or (name if await self._exists(name) else None)

    async def made_by(self, collection: str) -> MadeBy:
        """Say what made a collection; :class:`IndexUnavailable` for one of other software, or of another format."""
        async with self.translated():
            metadata = (await self.client.get_collection(collection)).config.metadata or {}
        fingerprint, dimension = metadata.get("fingerprint"), metadata.get("dimension")
        if not isinstance(fingerprint, str) or not isinstance(dimension, int):
            raise FingerprintMismatch(
                f"Collection {collection} on {self.service} was not made by mamba-search; name another one."
            )
        format_version = metadata.get("format_version", 1)
        if format_version != points.FORMAT_VERSION:
            raise IndexUnavailable(
                f"Collection {collection} on {self.service} has format {format_version}; this version reads "
                f"{points.FORMAT_VERSION}. Use the version of mamba-search that made it, or name another collection "
                "and ingest again."
            )
        return MadeBy(fingerprint, dimension)

    async def bind(self, name: str, made_by: MadeBy) -> str:
        """Give the collection of a name, made where there is none: then it is ``NAME-1``, and the name its alias.

        :class:`FingerprintMismatch` where another model or chunker made it.
        """
        collection = await self.resolve(name)
        if collection is None:
            # Whoever else makes it at this moment chooses the same name; whose it is, is checked below.
            collection = f"{name}-1"
            await self.create(collection, made_by, Layout(), exist_ok=True)
            await self.switch(name, collection)
        found = await self.made_by(collection)
        if found != made_by:
            raise FingerprintMismatch(
                f"Collection {name} on {self.service} was made with {found.fingerprint} (dimension {found.dimension}), "
                f"but {made_by.fingerprint} (dimension {made_by.dimension}) is in use; use that model, `mamba-search "
                "reindex` to move to this one, or name another collection and ingest again."
            )
        await self._index_fields(collection)
        return collection

    async def create(self, collection: str, made_by: MadeBy, layout: Layout, *, exist_ok: bool = False) -> None:
        """Make a collection; :class:`InUse` where there is one of this name, unless that may be."""
        if not exist_ok and await self.resolve(collection) is not None:
            raise InUse(f"Collection {collection} exists on {self.service}; name another one, or delete it.")
        metadata = {
            "format_version": points.FORMAT_VERSION,
            "fingerprint": made_by.fingerprint,
            "dimension": made_by.dimension,
        }
        dense = models.VectorParams(
            size=made_by.dimension, distance=models.Distance.COSINE, on_disk=layout.vectors_on_disk
        )
        async with self.translated():
            try:
                await self.client.create_collection(
                    collection,
                    vectors_config={points.DENSE: dense},
                    sparse_vectors_config={points.SPARSE: models.SparseVectorParams(modifier=models.Modifier.IDF)},
                    shard_number=layout.shards,
                    replication_factor=layout.replicas,
                    hnsw_config=models.HnswConfigDiff(m=0 if layout.hnsw_deferred else layout.hnsw_m),
                    quantization_config=_quantization(layout.quantization),
                    metadata=metadata,
                )
            except (grpc.RpcError, ApiException, ValueError):  # the last is local mode's
                if not exist_ok or not await self.client.collection_exists(collection):
                    raise
        await self._index_fields(collection)

    async def check_alias(self, alias: str) -> None:
        """Raise :class:`InvalidInput` where a collection has this name, so that no alias can."""
        # Aliases are asked for last: one that somebody makes meanwhile is no collection.
        if await self._exists(alias) and alias not in await self.aliases():
            raise InvalidInput(
                "alias",
                f"{alias} is a collection on {self.service}, so that no alias can have this name; give another alias, "
                "and tell the services its name (qdrant_collection).",
            )

    async def switch(self, alias: str, collection: str) -> None:
        """Let an alias lead to a collection, from one moment to the next; it need not exist before.

        :class:`InvalidInput` where a collection has the alias's name.
        """
        await self.check_alias(alias)
        actions: list[models.CreateAliasOperation | models.DeleteAliasOperation] = [
            models.CreateAliasOperation(create_alias=models.CreateAlias(collection_name=collection, alias_name=alias)),
        ]
        if alias in await self.aliases():
            actions.insert(0, models.DeleteAliasOperation(delete_alias=models.DeleteAlias(alias_name=alias)))
        async with self.translated():
            await self.client.update_collection_aliases(actions)

    async def moving_from(self, collection: str) -> str:
        """Say from which collection a move to this one has not ended; empty where there is none."""
        async with self.translated():
            metadata = (await self.client.get_collection(collection)).config.metadata or {}
        return str(metadata.get(MOVING_FROM, ""))

    async def note_moving(self, collection: str, source: str) -> None:
        """Note from which collection a move goes to this one; empty where it has ended."""
        async with self.translated():
            await self.client.update_collection(collection, metadata={MOVING_FROM: source})

    async def build(
        self, collection: str, layout: Layout, *, timeout_s: float, look_period_s: float = LOOK_PERIOD_S
    ) -> None:
        """Have the graph built that was deferred, and wait until the server has nothing left to optimize.

        :class:`TimedOut` where that takes longer; it goes on, and can be waited for again.
        """
        if layout.hnsw_deferred:
            async with self.translated():
                await self.client.update_collection(collection, hnsw_config=models.HnswConfigDiff(m=layout.hnsw_m))
        give_up = time.monotonic() + timeout_s
        settled = 0
        while settled < LOOKS_SETTLED:
            settled = settled + 1 if await self._is_optimized(collection) else 0
            if time.monotonic() > give_up:
                raise TimedOut(f"Collection {collection} was not optimized in {timeout_s:g} s; wait, and try again.")
            await asyncio.sleep(look_period_s)

    async def drop(self, collection: str) -> None:
        """Delete a collection. :class:`InvalidInput` where an alias leads to it."""
        leading = sorted(alias for alias, leads_to in (await self.aliases()).items() if leads_to == collection)
        if leading:
            raise InvalidInput("collection", f"{collection} is what alias {leading[0]} leads to; it is not deleted.")
        if not await self._exists(collection):
            raise NotFound(f"There is no collection {collection} on {self.service}.")
        async with self.translated():
            await self.client.delete_collection(collection)

    def translated(self) -> AbstractAsyncContextManager[None]:
        """Raise what the client raises as errors of ours."""
        return translated(self.service)

    async def _exists(self, name: str) -> bool:
        async with self.translated():
            return await self.client.collection_exists(name)

    async def _index_fields(self, collection: str) -> None:
        async with self.translated():
            for field, schema in _INDEXED_FIELDS.items():
                await self.client.create_payload_index(collection, field, schema, wait=True)

    async def _is_optimized(self, collection: str) -> bool:
        async with self.translated():
            info = await self.client.get_collection(collection)
        if info.status is models.CollectionStatus.RED or isinstance(
            info.optimizer_status, models.OptimizersStatusOneOf1
        ):
            raise IndexUnavailable(
                f"Qdrant on {self.service} cannot optimize collection {collection} ({info.optimizer_status}); its log "
                "says why."
            )
        return info.status is models.CollectionStatus.GREEN


def _quantization(kind: Quantization) -> models.QuantizationConfig | None:
    if kind == "scalar":
        scalar = models.ScalarQuantizationConfig(type=models.ScalarType.INT8, quantile=0.99, always_ram=True)
        return models.ScalarQuantization(scalar=scalar)
    if kind == "binary":
        return models.BinaryQuantization(binary=models.BinaryQuantizationConfig(always_ram=True))
    return None
