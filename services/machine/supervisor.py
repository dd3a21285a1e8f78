"""``mamba-search up``: starts every part on this machine, watches them, and leaves nothing behind."""

from __future__ import annotations

import asyncio
import os
import shutil
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from encoder.errors import TimedOut, Unavailable
from services.grpc_server import SERVING, stop_signal
from services.machine.children import POLL_S, Child
from services.machine.local_machine import ray_directory
from services.machine.preflight import check, page_address, parts_of
from services.machine.process_tree import adopt_orphans, descendants, kill_descendants
from services.settings import UpSettings

LOG_FOLDER = "logs"
_HEALTH_PERIOD_S = 0.2
_HEALTH_TIMEOUT_S = 2.0
_SWEEP_TIMEOUT_S = 5.0

Announce = Callable[[str], None]  # takes a line for the person who watches


async def up(settings: UpSettings, announce: Announce) -> None:
    """Run everything until SIGTERM or SIGINT; a second one ends the parts at once. Returns when nothing is left.

    Raises what :func:`services.machine.preflight.check` finds before anything is started. Raises after everything has
    been stopped again: :class:`Unavailable` where a part ended by itself, :class:`TimedOut` where one did not become
    ready.
    """

    def tell(line: str) -> None:
        # Whoever read our lines may be gone (`up | head`); that is no reason to leave processes behind.
        with suppress(BrokenPipeError):
            announce(line)

    await asyncio.to_thread(check, settings)
    logs = settings.data_dir / LOG_FOLDER
    logs.mkdir(parents=True, exist_ok=True)
    stop = stop_signal()
    adopt_orphans()
    strangers = descendants(os.getpid())
    ray_dir = settings.ray_dir or ray_directory()
    parts, environment = parts_of(settings, ray_dir)
    children: list[Child] = []
    started = time.monotonic()
    try:
        children.extend(Child.start(part, environment, logs / f"{part.name}.log") for part in parts)
        tell(f"starting {', '.join(part.name for part in parts)}; logs are in {logs}")
        await _until_all_ready(children, stop, settings.up_timeout_s, tell)
        if not stop.is_set():
            if page := page_address(settings):
                tell(f"the search page is {page}")
            tell(f"ready after {time.monotonic() - started:.1f} s; Ctrl-C stops everything")
            await _watch(children, stop, tell)
    finally:
        stop.clear()
        await _stop(children, stop, settings.stop_timeout_s, tell)
        left = await asyncio.to_thread(kill_descendants, but=strangers, within_s=_SWEEP_TIMEOUT_S)
        shutil.rmtree(ray_dir, ignore_errors=True)
        tell(f"processes {sorted(left)} would not end" if left else "stopped")


async def _until_all_ready(
    children: Sequence[Child], stop: asyncio.Event, timeout_s: float, announce: Announce
) -> None:
    """Wait until every part says that it serves, or until ``stop``."""
    started = time.monotonic()
    waiting = [child.part.name for child in children]

    async def wait_for(child: Child) -> None:
        await _serves(child)
        waiting.remove(child.part.name)
        announce(f"{child.part.name} is ready on {child.part.target} ({time.monotonic() - started:.1f} s)")

    ready: asyncio.Future[Any] = asyncio.gather(*(wait_for(child) for child in children))
    watching: asyncio.Future[Any] = asyncio.ensure_future(_watch(children, stop, announce))
    try:
        await asyncio.wait({ready, watching}, timeout=timeout_s, return_when=asyncio.FIRST_COMPLETED)
        for task in (ready, watching):
            if task.done():
                task.result()
                return
        names = ", ".join(waiting)
        raise TimedOut(f"Not ready within {timeout_s:.0f} s: {names}; the logs say why, or allow more (up_timeout_s).")
    finally:
        ready.cancel()
        watching.cancel()
        await asyncio.gather(ready, watching, return_exceptions=True)


async def _serves(child: Child) -> None:
    """Ask for the part's health until it is well."""
    # A failed connection is tried again when we ask again, not after gRPC's growing pauses.
    options = [("grpc.min_reconnect_backoff_ms", 100), ("grpc.max_reconnect_backoff_ms", 100)]
    async with grpc.aio.insecure_channel(child.part.health_target or child.part.target, options=options) as channel:
        stub: Any = health_pb2_grpc.HealthStub(channel)
        for application in child.part.applications:
            metadata = (("application", application),) if application else ()
            while not await _is_well(stub, metadata):  # noqa: ASYNC110 - another process's state
                await asyncio.sleep(_HEALTH_PERIOD_S)


async def _is_well(stub: Any, metadata: tuple[tuple[str, str], ...]) -> bool:  # noqa: ANN401 - generated code
    try:
        answer = await stub.Check(health_pb2.HealthCheckRequest(), metadata=metadata, timeout=_HEALTH_TIMEOUT_S)
    except grpc.aio.AioRpcError:
        return False
    return bool(answer.status == SERVING)


async def _watch(children: Sequence[Child], stop: asyncio.Event, announce: Announce) -> None:
    """Wait for ``stop``; :class:`Unavailable` as soon as a part ends by itself."""
    while not stop.is_set():
        for child in children:
            code = child.exit_code
            if code is not None:
                tail = child.tail()
                name, log = child.part.name, child.log
                if code > 1 and tail:
                    # A process that refuses to go on says why in its last line.
                    raise Unavailable(f"The {name} process ended (exit code {code}, log {log}): {tail[-1]}")
                for line in tail:
                    announce(f"{name} | {line}")
                how = f"signal {-code}" if code < 0 else f"exit code {code}"
                raise Unavailable(f"The {name} process ended by itself ({how}); its log is {log}.")
        await asyncio.sleep(POLL_S)


async def _stop(children: Sequence[Child], hurry: asyncio.Event, timeout_s: float, announce: Announce) -> None:
    """Stop the parts, those that others lean on last; all at once where ``hurry`` is set."""
    hurrying = asyncio.ensure_future(hurry.wait())
    for child in reversed(children):
        stopping = asyncio.ensure_future(child.stop(timeout_s))
        await asyncio.wait({stopping, hurrying}, return_when=asyncio.FIRST_COMPLETED)
        if not stopping.done():
            stopping.cancel()
            child.kill()
        elif not stopping.result():
            announce(f"{child.part.name} did not stop within {timeout_s:.0f} s and was killed")
    hurrying.cancel()
