"""Choosing the index: a Qdrant server, the index owner, or the embedded engine in this process."""

from __future__ import annotations

from pathlib import Path

from encoder.errors import InvalidInput
from ingest.index.embedded import EmbeddedIndex
from ingest.index.interface import VectorIndex
from ingest.index.remote import RemoteIndex


async def open_index(
    *,
    dimension: int,
    fingerprint: str,
    qdrant_url: str | None = None,
    qdrant_collection: str = "mamba-search",
    target: str | None = None,
    directory: Path | None = None,
) -> VectorIndex:
    """Open the first that is given: the server at ``qdrant_url``, the owner at ``target``, the ``directory``.

    Raises what each implementation's own opening raises.
    """
    if qdrant_url:
        # Its packages take the better part of a second to import: not in a process that needs them not.
        from ingest.index.server import ServerIndex

        return await ServerIndex.open(
            qdrant_url, collection=qdrant_collection, dimension=dimension, fingerprint=fingerprint
        )
    if target:
        return await RemoteIndex.connect(target, dimension=dimension, fingerprint=fingerprint)
    if directory:
        return await EmbeddedIndex.open(directory, dimension=dimension, fingerprint=fingerprint)
    raise InvalidInput("index", "No index is named; give a Qdrant address, the index owner's, or a data directory.")
