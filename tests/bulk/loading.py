"""A bulk load in its own process, with an encoder and a Qdrant that the test watches."""

from __future__ import annotations

import asyncio
import json
import sys
import uuid
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from encoder.errors import InvalidInput
from encoder.fingerprint import index_fingerprint, model_fingerprint
from encoder.interface import TokenRow
from encoder.model_config import load_model_config
from encoder.tokenizer import Tokenizer
from ingest.chunking import Chunker
from ingest.index.collections import Collections
from ingest.index.interface import DocumentRecord
from ingest.index.server import ServerIndex
from tests.fakes import FakeEncoder
from tests.indexes import SERVER_URL
from tests.qdrant_over_grpc import qdrant_over_grpc
from tests.replica_serving import serving

ROOT = Path(__file__).parent.parent.parent


class WatchedEncoder(FakeEncoder):
    """Refuses passages that hold "poison"; counts passages, and calls somebody before each batch."""

    def __init__(self, model: Path) -> None:
        dimension = load_model_config(model).embedding_dim
        super().__init__(dimension=dimension, fingerprint=model_fingerprint(model))
        self.passages = 0
        self.before: Callable[[], None] = lambda: None

    async def passage_rows(self, passages: Sequence[str]) -> list[TokenRow]:
        self.before()
        for place, passage in enumerate(passages):
            if "poison" in passage:
                raise InvalidInput(f"passages[{place}]", f"passages[{place}] is poisoned.")
        self.passages += len(passages)
        return await super().passage_rows(passages)


@dataclass
class Loader:
    """Runs ``mamba-search bulk-load``."""

    model: Path
    encoder: WatchedEncoder
    encoder_target: str
    qdrant_url: str
    ray_address: str
    environment: Mapping[str, str]
    name: str = field(default_factory=lambda: f"test-{uuid.uuid4().hex[:8]}")
    process: asyncio.subprocess.Process | None = None

    async def run(self, *arguments: str) -> tuple[int, str, str]:
        """Run to the end; give exit code, output and errors."""
        common = ["--qdrant-url", self.qdrant_url, "--encoder-target", self.encoder_target, "--model", str(self.model)]
        script = "from services.cli import main; main()"
        command = ["-c", script, "bulk-load", *arguments, *common, "--ray-address", self.ray_address]
        self.process = await asyncio.create_subprocess_exec(
            sys.executable,
            *command,
            cwd=ROOT,
            env=self.environment,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        output, errors = await self.process.communicate()
        assert self.process.returncode is not None
        return self.process.returncode, output.decode(), errors.decode()

    def fingerprint(self) -> str:
        chunker = Chunker(Tokenizer.load(self.model))
        return index_fingerprint(model_fingerprint(self.model), chunker.fingerprint)

    async def open(self, collection: str) -> ServerIndex:
        dimension = load_model_config(self.model).embedding_dim
        return await ServerIndex.open(
            self.qdrant_url, collection=collection, dimension=dimension, fingerprint=self.fingerprint()
        )


@asynccontextmanager
async def loader(model: Path, ray_address: str, environment: Mapping[str, str], missed: int) -> AsyncIterator[Loader]:
    """Make a loader; searches that need not be exact miss so many of the best chunks."""
    encoder = WatchedEncoder(model)
    async with serving(encoder, batch_tokens=16_384) as served, qdrant_over_grpc(missed=missed) as stand_in:
        found = Loader(model, encoder, served.target, SERVER_URL or stand_in, ray_address, environment)
        yield found
        collections = await Collections.open(found.qdrant_url)
        aliases = await collections.aliases()
        for alias, collection in aliases.items():
            if alias.startswith(found.name):
                await collections.client.delete_collection(collection)
        await collections.close()


def write_lines(path: Path, rows: Sequence[Mapping[str, Any] | str]) -> Path:
    """Write JSON lines; a string stands as it is."""
    lines = [row if isinstance(row, str) else json.dumps(row) for row in rows]
    path.parent.mkdir(exist_ok=True)
    path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    return path


def make_row(document_id: str, sentences: int = 40) -> dict[str, Any]:
    text = " ".join(f"Sentence {number} of {document_id} says nothing new." for number in range(sentences))
    return {"document_id": document_id, "title": f"About {document_id}", "text": text, "metadata": {"kind": "made"}}


async def all_records(index: ServerIndex) -> list[DocumentRecord]:
    found: list[DocumentRecord] = []
    after = ""
    while True:
        page, after = await index.list_records(None, after, 100)
        found += page
        if not after:
            return found


async def check_whole(index: ServerIndex, document_ids: Sequence[str]) -> None:
    """Every document exactly once, with all of its chunks, and not one chunk more."""
    records = await all_records(index)
    assert sorted(record.document_id for record in records) == sorted(document_ids)
    for record in records:
        assert await index.count_chunks(record.key, record.generation) == record.chunk_count
    stats = await index.stats()
    assert stats.chunk_count == sum(record.chunk_count for record in records)
    assert stats.document_count == len(records)
