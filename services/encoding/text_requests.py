"""One request for texts' embeddings inside a replica: check, tokenize, have them read. Knows no Ray and no torch."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import TypeVar

import numpy as np
from mambasearch.v1 import encoder_pb2
from numpy.typing import NDArray

from encoder.document_slices import TokenIds, shifted
from encoder.errors import InvalidInput
from encoder.interface import StreamingEncoder, TokenRow
from services.encoding.hooks import Lane
from services.encoding.scheduler import Poisoned, Scheduler

CHARACTERS_PER_TOKEN = 4  # an estimate, before a text is tokenized

_Item = TypeVar("_Item", str, TokenIds)


async def encode_texts(
    encoder: StreamingEncoder,
    scheduler: Scheduler,
    lane: Lane,
    field: str,
    items: Sequence[_Item],
    make_rows: Callable[[Sequence[_Item]], Awaitable[list[TokenRow]]],
    *,
    tokens_per_piece: int,
    deadline: float,
) -> encoder_pb2.EncodeResponse:
    """Answer with the embeddings of ``items``, which the request calls ``field``; errors as encoder.proto says."""
    info = await encoder.info()
    _check_items(field, items, info.batch_size_max)
    estimate = sum(len(item) // CHARACTERS_PER_TOKEN if isinstance(item, str) else len(item) for item in items)
    timings = encoder_pb2.EncodeTimings()
    with scheduler.place(lane, estimate):
        started = time.perf_counter()
        try:
            rows = await make_rows(items)
        except InvalidInput as error:
            raise shifted(error, 0, field) from None
        timings.tokenize_time_ms = (time.perf_counter() - started) * 1000
        lengths = np.array([len(row) for row in rows])
        in_pieces = (lengths > tokens_per_piece) & encoder.reads_in_pieces
        long, short = np.flatnonzero(in_pieces).tolist(), np.flatnonzero(~in_pieces).tolist()
        embeddings = np.empty((len(rows), info.dimension), dtype="<f4")
        if short:
            try:
                embedded = await scheduler.embed(lane, [rows[place] for place in short], deadline)
            except Poisoned as poisoned:
                raise no_embedding(field, short[poisoned.place]) from None
            embeddings[short] = embedded.embeddings
            timings.queue_time_ms += embedded.queue_time_s * 1000
            timings.encode_time_ms += embedded.forward_time_s * 1000
        for place in long:
            embeddings[place] = await _read_long(encoder, scheduler, rows[place], tokens_per_piece, deadline, timings)
            if not np.isfinite(embeddings[place]).all():
                raise no_embedding(field, place)
    return encoder_pb2.EncodeResponse(
        embeddings=embeddings.tobytes(),
        dimension=info.dimension,
        token_counts=lengths.tolist(),
        timings=timings,
        fingerprint=info.fingerprint,
    )


async def _read_long(
    encoder: StreamingEncoder,
    scheduler: Scheduler,
    row: TokenRow,
    tokens_per_piece: int,
    deadline: float,
    timings: encoder_pb2.EncodeTimings,
) -> NDArray[np.float32]:
    """Read a row piece by piece: its embedding ``(d,)``."""
    reading = await encoder.open_row()
    embedding = np.empty((0, 0), dtype=np.float32)
    for start in range(0, len(row), tokens_per_piece):
        piece = row[start : start + tokens_per_piece]
        ends = [len(piece)] if start + len(piece) == len(row) else []
        read = partial(reading.read, piece, ends)
        embedding, queue_time_s, read_time_s = await scheduler.read_piece(len(piece), read, deadline)
        timings.queue_time_ms += queue_time_s * 1000
        timings.encode_time_ms += read_time_s * 1000
    result: NDArray[np.float32] = embedding[0]
    return result


def no_embedding(field: str, place: int) -> InvalidInput:
    """Say that the model has no embedding for a text."""
    name = f"{field}[{place}]"
    return InvalidInput(name, f"{name} has no embedding: the model computes no finite numbers for it. Leave it out.")


def _check_items(field: str, items: Sequence[_Item], batch_size_max: int) -> None:
    if not 1 <= len(items) <= batch_size_max:
        raise InvalidInput(field, f"{field} holds {len(items)} texts; 1 to {batch_size_max} are allowed.")
    for place, item in enumerate(items):
        name = f"{field}[{place}]"
        if isinstance(item, str) and not item.strip():
            raise InvalidInput(name, f"{name} is empty or only white space.")
        if not len(item):
            raise InvalidInput(name, f"{name} is empty; give at least one token.")
