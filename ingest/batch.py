"""A bulk load on Ray Data: parts are read and cut, encoded, and written by pools of actors, on one machine or many.

Bundles of documents go from stage to stage through Ray's object store, which holds back whoever is too fast. The
process that starts a load learns what became of each bundle, and writes down each part that is finished. Reading is
our own (``ingest.bulk.parts``), not Ray Data's: a bad row must be one dead letter, and a part must be known by name.
"""

from __future__ import annotations

import asyncio
import logging
import os
import pickle
import secrets
import socket
import tempfile
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from encoder.errors import MambaSearchError, Unavailable
from encoder.interface import Encoder
from encoder.tokenizer import Tokenizer
from ingest.bulk.checkpoint import Checkpoint, Totals
from ingest.bulk.cutting import BUNDLE_TOKENS, Cutter
from ingest.bulk.documents import Bundle, take_sound
from ingest.bulk.filling import DocumentEncoder, write_documents
from ingest.bulk.parts import Part
from ingest.bulk.seen import SeenKeys
from ingest.bulk.tally import Tally
from ingest.chunk_making import make_chunk_making
from ingest.chunk_rules import ChunkRules
from ingest.index.interface import VectorIndex

if TYPE_CHECKING:
    import ray.data

COLUMN = "bundle"
CONNECT_TIMEOUT_S = 10.0
CAUSES_MAX = 16


class EncoderFactory(Protocol):
    """Makes an encoder, in the process and the event loop that use it. Travels there pickled."""

    def __call__(self) -> Encoder:
        """Load the model, or connect to it."""


IndexFactory = Callable[[], Awaitable[VectorIndex]]  # travels pickled, too


@dataclass(frozen=True, slots=True)
class Pools:
    """How many actors each stage has, and what each reserves."""

    readers: int = 1
    encoders: int = 1
    encoder_cpus: float = 1
    encoder_gpus: float = 0
    writers: int = 1


@dataclass(frozen=True, slots=True)
class Stages:
    """What the stages do."""

    model: Path  # folder or hub id, of which tokenizer and chunks are
    chunk_rules: ChunkRules
    fingerprint: str  # of the index, which the encoders have to match
    dimension: int
    make_encoder: EncoderFactory
    open_index: IndexFactory
    bundle_tokens: int = BUNDLE_TOKENS


@dataclass(frozen=True, slots=True)
class Loaded:
    """What a load came to."""

    totals: Totals
    failures: Mapping[str, str]  # parts that could not be read to their end, and why


@contextmanager
def joined_ray(address: str | None) -> Iterator[None]:
    """Join the Ray cluster at an address ("auto": that of this machine), or start one here that nobody else reaches.

    :class:`Unavailable` where there is none. At the end it is left, or stopped.
    """
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"  # noqa: TID251 - written for Ray, before its import
    if address is None:
        # Whoever reaches Ray's ports can run code: a secret of this run, and this machine's address is loopback.
        token = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32)}
        os.environ.update(token | {"RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0"})  # noqa: TID251
    if address:
        _check_answers(address)
    import ray

    with tempfile.TemporaryDirectory(prefix="mamba-ray-", ignore_cleanup_errors=True) as directory:
        local: dict[str, Any] = {} if address else {"include_dashboard": False, "_temp_dir": directory}
        try:
            ray.init(address=address or "local", logging_level=logging.ERROR, log_to_driver=False, **local)
        except (ConnectionError, RuntimeError, ValueError) as error:
            raise Unavailable(f"Ray at {address or 'this machine'} cannot be reached ({error}); start it.") from error
        try:
            yield
        finally:
            ray.shutdown()


def _check_answers(address: str) -> None:
    """Raise :class:`Unavailable` where nobody listens at HOST:PORT: Ray itself would try for a quarter of an hour."""
    host, _, port = address.rpartition(":")
    if not port.isdecimal() or "//" in host:
        return  # auto, or of Ray's client
    try:
        socket.create_connection((host, int(port)), timeout=CONNECT_TIMEOUT_S).close()
    except OSError as error:
        raise Unavailable(f"Ray at {address} cannot be reached ({error}); start it.") from error


def load(
    parts: Sequence[Part],
    stages: Stages,
    pools: Pools,
    checkpoint: Checkpoint,
    ray_address: str | None,
    report: Callable[[Totals, int], None],
) -> Loaded:
    """Load the parts that are not finished; ``report`` is told totals and finished parts as they grow.

    Where there are any, it is done on the Ray at ``ray_address``, as :func:`joined_ray` joins it. Raises what a stage
    raised, once no other bundle is under way: the load can go on later. What could not be read to its end is not
    finished, either; the rest is loaded, and it is told.
    """
    finished = checkpoint.finished()
    tally = Tally(checkpoint, report)
    pending = [(number, part) for number, part in enumerate(parts) if number not in finished]
    if pending:
        with joined_ray(ray_address):
            _run(pending, stages, pools, tally, checkpoint.hashes())
    return Loaded(tally.totals, tally.failures)


def _run(
    pending: Sequence[tuple[int, Part]], stages: Stages, pools: Pools, tally: Tally, seen_before: Iterator[bytes]
) -> None:
    import ray

    seen: Any = ray.remote(num_cpus=0)(_Seen).remote()
    try:
        for hashes in _grouped(seen_before):
            ray.get(seen.add.remote(hashes))
        for row in _pipeline(pending, stages, pools, seen).iter_rows():
            arrived = pickle.loads(row[COLUMN])  # noqa: S301 - our own, of a moment ago
            if isinstance(arrived, MambaSearchError):
                raise arrived
            tally.add(arrived)
    except ray.exceptions.RayError as error:
        raise _cause(error) from error


def _pipeline(numbered: Sequence[tuple[int, Part]], stages: Stages, pools: Pools, seen: Any) -> ray.data.Dataset:  # noqa: ANN401 - an actor's handle
    import ray.data

    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    context.print_on_execution_start = False
    context.raise_original_map_exception = True
    logging.getLogger("ray.data").setLevel(logging.ERROR)

    def pool(size: int) -> ray.data.ActorPoolStrategy:
        return ray.data.ActorPoolStrategy(size=size)

    # A block per part: what a reader takes next is decided when it is free.
    rows = [{"part": pickle.dumps(one)} for one in numbered]
    dataset: ray.data.Dataset = ray.data.from_items(rows, override_num_blocks=len(rows))
    dataset = dataset.flat_map(_Cut, fn_constructor_args=(stages, seen), compute=pool(pools.readers), num_cpus=1)
    dataset = dataset.map_batches(
        _Encode,
        fn_constructor_args=(stages,),
        batch_size=1,
        compute=pool(pools.encoders),
        num_cpus=pools.encoder_cpus,
        num_gpus=pools.encoder_gpus,
    )
    return dataset.map_batches(
        _Write, fn_constructor_args=(stages,), batch_size=1, compute=pool(pools.writers), num_cpus=1
    )


class _Seen:
    """The actor that knows which row has an id: one for all readers."""

    def __init__(self) -> None:
        self._keys = SeenKeys()

    def add(self, hashes: Sequence[bytes]) -> None:
        self._keys.add(hashes)

    def claim(self, claims: Sequence[tuple[bytes, str]]) -> list[str]:
        return self._keys.claim(claims)


class _Cut:
    """A reader: a row with a part becomes rows with its bundles."""

    def __init__(self, stages: Stages, seen: Any) -> None:  # noqa: ANN401 - an actor's handle
        import ray

        chunker = make_chunk_making(stages.chunk_rules, Tokenizer.load(stages.model)).chunker
        self._cutter = Cutter(chunker, lambda claims: ray.get(seen.claim.remote(claims)), stages.bundle_tokens)

    def __call__(self, row: dict[str, Any]) -> Iterator[dict[str, Any]]:
        number, part = pickle.loads(row["part"])  # noqa: S301 - our own
        try:
            for bundle in self._cutter.cut(number, part):
                yield {COLUMN: pickle.dumps(bundle)}
        except MambaSearchError as error:
            yield {COLUMN: pickle.dumps(_cause(error))}


class _Encode:
    """An encoder. Ray Data runs several calls of it at once in one event loop."""

    def __init__(self, stages: Stages) -> None:
        self._stages = stages
        self._making = asyncio.Lock()
        self._encoder: DocumentEncoder | None = None

    async def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        return await _passing_errors(batch, self._encode)

    async def _encode(self, bundle: Bundle) -> Bundle:
        async with self._making:
            if self._encoder is None:  # made in the loop that uses it
                self._encoder = await self._make()
        await self._encoder.encode(bundle.documents)
        bundle.documents = take_sound(bundle.documents, bundle.dead)
        return bundle

    async def _make(self) -> DocumentEncoder:
        stages = self._stages
        tokenizer = Tokenizer.load(stages.model)
        chunks = make_chunk_making(stages.chunk_rules, tokenizer)
        made = DocumentEncoder(stages.make_encoder(), chunks.encoder)
        await made.check(stages.fingerprint, stages.dimension, chunks.chunker)
        return made


class _Write:
    """A writer; gives back what became of each bundle, without its documents."""

    def __init__(self, stages: Stages) -> None:
        self._open_index = stages.open_index
        self._opening = asyncio.Lock()
        self._index: VectorIndex | None = None

    async def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        return await _passing_errors(batch, self._write)

    async def _write(self, bundle: Bundle) -> tuple[Bundle, Totals]:
        async with self._opening:
            if self._index is None:
                self._index = await self._open_index()
        await write_documents(self._index, bundle.documents)
        totals = Totals(
            documents=len(bundle.documents),
            chunks=sum(document.record.chunk_count for document in bundle.documents),
            tokens=sum(document.record.token_count for document in bundle.documents),
            dead=len(bundle.dead),
        )
        bundle.documents = []
        return bundle, totals


async def _passing_errors(batch: dict[str, Any], work: Callable[[Bundle], Awaitable[object]]) -> dict[str, Any]:
    """Do a stage's work; an error travels on to the end, since Ray would add pages to one that is raised."""
    given: Bundle | MambaSearchError = pickle.loads(batch[COLUMN][0])  # noqa: S301 - our own
    if isinstance(given, MambaSearchError):
        return {COLUMN: [pickle.dumps(given)]}
    try:
        return {COLUMN: [pickle.dumps(await work(given))]}
    except MambaSearchError as error:
        return {COLUMN: [pickle.dumps(error)]}


def _grouped(hashes: Iterator[bytes], size: int = 65_536) -> Iterator[list[bytes]]:
    group: list[bytes] = []
    for one in hashes:
        group.append(one)
        if len(group) == size:
            yield group
            group = []
    if group:
        yield group


def _cause(error: BaseException) -> MambaSearchError:
    """Find what a stage raised in what Ray has wrapped around it: an error that is of our class, too, but not ours."""
    found: BaseException | None = error
    for _ in range(CAUSES_MAX):
        inner = getattr(found, "cause", None) if found is not None else None
        if isinstance(inner, BaseException):
            found = inner
        elif found is None or isinstance(found, MambaSearchError):
            break
        else:
            found = found.__cause__ or found.__context__
    return found if isinstance(found, MambaSearchError) else Unavailable(f"Ray failed ({str(error)[:500]}).")
