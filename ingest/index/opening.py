"""Choosing the index: a Qdrant server, the index owner, or the embedded engine in this process."""

from __future__ import annotations

from pathlib import Path

from encoder.errors import InvalidInput
from ingest.index.embedded import EmbeddedIndex
from ingest.index.interface import VectorIndex
from ingest.index.remote import RemoteIndex
from ingest.index.server_address import QdrantServer


async def open_index(
    *,
    dimension: int,
    fingerprint: str,
    qdrant: QdrantServer | None = None,
    qdrant_collection: str = "mamba-search",
    target: str | None = None,
    token: str | None = None,
    directory: Path | None = None,
) -> VectorIndex:
    """Open the first that is given: the server at ``qdrant``, the owner at ``target``, the ``directory``.

    ``token`` is what the owner asks for. Raises what each implementation's own opening raises.
    """
    if qdrant:
        # Its packages take the better part of a second to import: not in a process that needs them not.
        from ingest.index.server import ServerIndex

        return await ServerIndex.open(
            qdrant, collection=qdrant_collection, dimension=dimension, fingerprint=fingerprint
        )
    if target:
        return await RemoteIndex.connect(target, dimension=dimension, fingerprint=fingerprint, token=token)
    if directory:
        return await EmbeddedIndex.open(directory, dimension=dimension, fingerprint=fingerprint)
    raise InvalidInput("index", "No index is named; give a Qdrant address, the index owner's, or a data directory.")
