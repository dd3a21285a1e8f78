"""What is done to the parts, each as one function; it returns when the cause is gone, and gives the moment it began."""

from __future__ import annotations

import asyncio
import signal
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from tests.chaos.node import Node

CUT_S = 2.0
STALL_S = 3.0  # longer than a search may take
WEDGED_NOTICED_S = 60.0  # by when health has to tell
ROTATED_S = 30.0
REPLACED_S = 90.0  # by when another replica has to be there


class Unnoticed(Exception):
    """A fault that somebody had to notice and nobody did."""


@dataclass(frozen=True, slots=True)
class Fault:
    """One kind of trouble."""

    name: str
    act: Callable[[Node], Awaitable[str]]  # gives what was noticed, for the table
    recovery_max_s: float  # from the moment its cause is gone, or of a kill


async def _kill_replica(node: Node) -> str:
    node.signal_replica(signal.SIGKILL)
    return ""


async def _cut(node: Node) -> str:
    node.link.drop()
    await asyncio.sleep(CUT_S)
    node.link.restore()
    return f"cut for {CUT_S:g} s"


async def _stall(node: Node) -> str:
    node.link.stall()
    await asyncio.sleep(STALL_S)
    node.link.restore()
    return f"stalled for {STALL_S:g} s"


async def _kill_index(node: Node) -> str:
    node.kill("index")
    await asyncio.sleep(CUT_S)
    node.start("index")
    return f"started again after {CUT_S:g} s"


async def _wedge_replica(node: Node) -> str:
    """Stop the replica's process for good: somebody has to notice, and put another in its place."""
    began = time.monotonic()
    wedged = node.signal_replica(signal.SIGSTOP)
    while await node.is_healthy("search"):
        await _go_on("health did not tell", began, WEDGED_NOTICED_S)
    noticed = time.monotonic() - began
    while node.replica() in (wedged, None):
        await _go_on(f"health told after {noticed:.1f} s, but there was no other replica", began, REPLACED_S)
    return f"health told after {noticed:.1f} s, another replica after {time.monotonic() - began:.1f} s"


async def _rotate_certificate(node: Node) -> str:
    """Put a new certificate in the place of the doors', and wait until both show it to whoever comes."""
    began = time.monotonic()
    serial = node.rotate_certificate(f"renewed at {began}")
    while await asyncio.to_thread(node.shown_serials) != {serial}:
        await _go_on("not both doors showed the new certificate", began, ROTATED_S)
    return f"shown after {time.monotonic() - began:.1f} s"


async def _go_on(missing: str, began: float, limit_s: float) -> None:
    if time.monotonic() - began > limit_s:
        raise Unnoticed(f"{missing} within {limit_s:.0f} s")
    await asyncio.sleep(0.2)


FAULTS = (
    Fault("encoder replica killed", _kill_replica, 30.0),
    Fault("connection to the index cut", _cut, 5.0),
    Fault("connection to the index stalled", _stall, 5.0),
    Fault("index owner killed", _kill_index, 15.0),
    Fault("certificates rotated", _rotate_certificate, 1.0),
    Fault("encoder replica wedged", _wedge_replica, 30.0),
)
