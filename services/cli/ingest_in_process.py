"""Documents into an index of this process, without a service."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Iterator
from contextlib import aclosing, asynccontextmanager
from pathlib import Path

from encoder.tokenizer import Tokenizer
from ingest.documents import Document
from ingest.index.interface import DocumentKey
from ingest.pipeline import Ingestor
from ingest.receipts import LoadError, Receipt
from ingest.states import open_states
from services.cli.tally import Tally
from services.in_process import load_encoder, open_journal, open_parts
from services.settings import CommandSettings


class InProcess:
    """The pipeline in this process, as a target of documents."""

    def __init__(self, ingestor: Ingestor) -> None:
        self._ingestor = ingestor

    async def ingest(self, items: Iterator[Document | LoadError]) -> AsyncGenerator[Receipt, None]:
        """Ingest documents; give a receipt for each."""
        async with aclosing(self._ingestor.ingest_all(items)) as receipts:
            async for receipt in receipts:
                yield receipt

    async def delete(self, key: DocumentKey) -> None:
        """Take a document out; :class:`encoder.errors.NotFound` where there is none."""
        await self._ingestor.delete(key.document_id, key.tenant)


@asynccontextmanager
async def in_process(settings: CommandSettings, data_dir: Path, tally: Tally) -> AsyncIterator[InProcess]:
    """Open the index in a data directory with the model that settings name; the tally is told how far it is."""
    encoder = await load_encoder(settings)
    try:
        async with (
            open_parts(data_dir, encoder, Tokenizer.load(settings.model), settings.chunk_rules()) as parts,
            open_journal(data_dir, parts.index) as journal,
        ):
            yield InProcess(
                Ingestor(
                    parts.encoder,
                    parts.index,
                    parts.chunker,
                    journal,
                    chunk_encoder=parts.chunk_encoder,
                    states=open_states(data_dir, bytes_max=settings.states_bytes_max, keep_s=settings.states_keep_s),
                    on_progress=tally.follow,
                )
            )
    finally:
        await encoder.close()
