"""What makes the encoder of a bulk load, in each actor's process: an own model, or a connection to a service."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from encoder.errors import InvalidInput
from encoder.fingerprint import index_fingerprint
from encoder.interface import Encoder
from ingest.chunk_making import ChunkMaking
from ingest.index.server_address import QdrantServer
from services.encoding.factory import LocalEncoderFactory
from services.encoding.model_folder import check_model
from services.settings import BulkSettings

if TYPE_CHECKING:
    from ingest.index.collections import MadeBy

# A bundle is thousands of passages: requests to the service that one actor has under way.
REQUESTS_MAX = 8
TIMEOUT_S = 600.0


@dataclass(frozen=True, slots=True)
class ClientFactory:
    """Connects to the encoder service, inside the event loop that uses it."""

    target: str
    token: str | None

    def __call__(self) -> Encoder:
        """Connect."""
        from encoder.client import EncoderClient

        return EncoderClient(self.target, timeout_s=TIMEOUT_S, concurrency_max=REQUESTS_MAX, token=self.token)


def encoder_factory(
    settings: BulkSettings, target: str | None, per_machine: int = 1
) -> LocalEncoderFactory | ClientFactory:
    """Say how encoders are made; ``per_machine`` of them share a machine's cores."""
    if target:
        return ClientFactory(target, settings.shown_token())
    return LocalEncoderFactory(
        settings.model,
        settings.encoder_device,
        settings.encoder_threads,
        per_machine,
        eight_bits=settings.encoder_eight_bits,
    )


def made_by(settings: BulkSettings, chunks: ChunkMaking) -> MadeBy:
    """Say what an index will be made by, without loading the model: it is where the work is, if at all."""
    from ingest.index.collections import MadeBy

    config, model = check_model(settings.model)
    return MadeBy(index_fingerprint(model, chunks.fingerprint), config.embedding_dim)


def needed_server(settings: BulkSettings) -> QdrantServer:
    """Give the Qdrant server."""
    server = settings.qdrant_server()
    if server is None:
        raise InvalidInput("qdrant_url", "No Qdrant server is named; set MAMBASEARCH_QDRANT_URL, or give --qdrant-url.")
    return server
