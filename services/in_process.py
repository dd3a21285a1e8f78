"""The parts of the product put together in one process: model, chunker and index, without a service.

Used by commands on a data directory, and by the evaluation. The services are put together in their own modules.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from encoder.errors import MambaSearchError
from encoder.fingerprint import index_fingerprint
from encoder.tokenizer import Tokenizer
from ingest.chunk_encoding import ChunkEncoder
from ingest.chunk_making import make_chunk_making
from ingest.chunk_rules import ChunkRules
from ingest.chunking import Chunker
from ingest.collecting import Collector, on_duty
from ingest.index.embedded import EmbeddedIndex
from ingest.journal import Journal, journal_url
from ingest.pipeline import COLLECT_AFTER_S
from services.settings import CommandSettings

if TYPE_CHECKING:
    from encoder.interface import Encoder
    from ingest.index.interface import VectorIndex


@dataclass(frozen=True, slots=True)
class Parts:
    """What ingestion and search are made of."""

    encoder: Encoder
    tokenizer: Tokenizer
    chunker: Chunker
    chunk_encoder: ChunkEncoder
    index: VectorIndex


async def load_encoder(settings: CommandSettings) -> Encoder:
    """Load the model into this process, in a thread: it takes seconds.

    :class:`MambaSearchError` where torch is not installed.
    """
    try:
        from encoder.local import LocalEncoder
    except ModuleNotFoundError as error:
        raise MambaSearchError(
            f"The package {error.name} is missing, which a model in this process needs; install "
            "mamba-search[encoder], or ask a running service."
        ) from error
    return await asyncio.to_thread(
        LocalEncoder.load,
        settings.model,
        device=settings.encoder_device,
        threads=settings.encoder_threads,
        eight_bits=settings.encoder_eight_bits,
    )


@asynccontextmanager
async def open_parts(data_dir: Path, encoder: Encoder, tokenizer: Tokenizer, rules: ChunkRules) -> AsyncIterator[Parts]:
    """Open the index in a data directory (or make it) for an encoder that stays the caller's."""
    chunks = make_chunk_making(rules, tokenizer)
    info = await encoder.info()
    fingerprint = index_fingerprint(info.fingerprint, chunks.fingerprint)
    index = await EmbeddedIndex.open(data_dir, dimension=info.dimension, fingerprint=fingerprint)
    try:
        yield Parts(encoder, tokenizer, chunks.chunker, chunks.encoder, index)
    finally:
        await index.close()


@asynccontextmanager
async def open_journal(data_dir: Path, index: VectorIndex) -> AsyncIterator[Journal]:
    """Open the journal in a data directory (or make it), and clear away what an earlier process left unfinished.

    At the end what was replaced goes, too: the engine has one process at a time, so that nobody reads it any more.
    """
    journal = await Journal.open(journal_url(data_dir))
    try:
        await journal.abandon_others()
        async with on_duty(journal, lambda: index, COLLECT_AFTER_S):
            yield journal
            await Collector(index, journal, COLLECT_AFTER_S).collect(within_s=COLLECT_AFTER_S)
    finally:
        await journal.close()
