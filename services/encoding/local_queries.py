"""A query encoder in the search service's own process, beside the encoder service that embeds everything else.

On a machine without a GPU a query's way to a replica and back takes as long as its forward pass. Here it waits in the
same queue as in a replica (:mod:`services.encoding.scheduler`), so that queries that come together are read together,
and a canary tells whether the model still embeds. Knows no Ray; torch is imported where the model is loaded.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from importlib.util import find_spec

from encoder.client import query_model_in
from encoder.document_slices import TokenIds
from encoder.errors import EncoderUnavailable, FingerprintMismatch, MambaSearchError, TimedOut
from encoder.hub import local_folder
from encoder.interface import Encoded, EncodedDocument, Encoder, EncoderInfo, StreamingEncoder
from services.door.listening import is_loopback
from services.encoding.factory import LocalEncoderFactory
from services.encoding.hooks import Hooks, Lane, QueueState
from services.encoding.scheduled import schedule
from services.encoding.scheduler import Limits, Poisoned
from services.encoding.text_requests import CHARACTERS_PER_TOKEN, no_embedding
from services.settings import SearchSettings


class LocalQueries:
    """An :class:`encoder.interface.Encoder`: embeds queries here, and has the service embed passages and documents.

    The service is needed once, to learn what the passages of the index are embedded by; after that searching goes on
    while it is away.
    """

    def __init__(
        self,
        queries: StreamingEncoder,
        service: Encoder,
        limits: Limits,
        *,
        timeout_s: float,
        hooks: Hooks | None = None,
    ) -> None:
        """Take over both; a query waits ``timeout_s`` at most."""
        self._queries = queries
        self._service = service
        self._timeout_s = timeout_s
        self._scheduler, self._canary = schedule(queries, limits, hooks or Hooks())
        self._info: EncoderInfo | None = None

    async def info(self) -> EncoderInfo:
        """Say which models encode, and their limits; also whether queries are still embedded.

        :class:`FingerprintMismatch` where the service encodes queries with another model than this process.
        """
        await self._canary.check()
        try:
            told = await self._service.info()
        except (EncoderUnavailable, TimedOut):
            if self._info is None:
                raise
            return self._info
        ours = (await self._queries.info()).fingerprint
        theirs = query_model_in(told.fingerprint)
        if theirs != ours:
            raise FingerprintMismatch(
                f"query_model has the fingerprint {ours}, and the encoder service encodes queries with {theirs}; give "
                "both the same model, or set query_encoder to service."
            )
        self._info = told
        return told

    async def encode_queries(self, queries: Sequence[str]) -> Encoded:
        """Encode search queries, in a batch with others that wait."""
        loop = asyncio.get_running_loop()
        with self._scheduler.place(Lane.QUERIES, sum(map(len, queries)) // CHARACTERS_PER_TOKEN):
            started = loop.time()
            rows = await self._queries.query_rows(queries)
            tokenized = loop.time()
            try:
                embedded = await self._scheduler.embed(Lane.QUERIES, rows, started + self._timeout_s)
            except Poisoned as poisoned:
                raise no_embedding("queries", poisoned.place) from None
        return Encoded(embedded.embeddings, tuple(map(len, rows)), tokenized - started, embedded.queue_time_s)

    async def encode_passages(self, passages: Sequence[str]) -> Encoded:
        """Have the service encode passages."""
        return await self._service.encode_passages(passages)

    async def encode_tokenized_passages(self, passages: Sequence[TokenIds]) -> Encoded:
        """Have the service encode passages given as token ids."""
        return await self._service.encode_tokenized_passages(passages)

    async def encode_document(
        self, token_ids: TokenIds, chunk_ends: TokenIds, *, state: bytes | None = None, keep_state: bool = False
    ) -> EncodedDocument:
        """Have the service encode a document."""
        return await self._service.encode_document(token_ids, chunk_ends, state=state, keep_state=keep_state)

    async def close(self) -> None:
        """Let go of the connection and the model's threads."""
        await self._service.close()
        await self._queries.close()

    def queue_state(self, lane: Lane) -> QueueState:
        """Say what waits in a lane, for whoever measures."""
        return self._scheduler.queue_state(lane)


def encodes_here(settings: SearchSettings) -> bool:
    """Say whether queries are to be embedded in this process; imports torch where that depends on this machine's GPU.

    :class:`MambaSearchError` where they are, by the settings, and torch is missing.
    """
    if settings.query_encoder == "auto":
        host = settings.encoder_target.rpartition(":")[0]
        if settings.encoder_device.startswith("cuda") or not is_loopback(host) or not find_spec("torch"):
            return False
        return settings.encoder_device == "cpu" or not _sees_gpu()
    if settings.query_encoder == "local" and not find_spec("torch"):
        raise MambaSearchError(
            "query_encoder is local, and the package torch is missing; install mamba-search[encoder], or set it to "
            "service."
        )
    return settings.query_encoder == "local"


async def load_local_encoder(settings: SearchSettings) -> StreamingEncoder:
    """Load ``query_model`` in a thread, and read a little with it: the first query is as fast as those after it."""
    factory = LocalEncoderFactory(
        folder=local_folder(settings.query_model),
        device=settings.encoder_device,
        threads=settings.encoder_threads,
        replicas=1,
        eight_bits=settings.encoder_eight_bits,
    )
    encoder = await asyncio.to_thread(factory)
    await encoder.warm_up()
    return encoder


def _sees_gpu() -> bool:
    import torch  # seconds, and memory: only where a model may be loaded here

    return torch.cuda.is_available()
