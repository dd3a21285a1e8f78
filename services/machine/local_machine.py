"""Cores, ports and temporary directories of this machine."""

from __future__ import annotations

import os
import socket
import sys
import tempfile
from pathlib import Path

from encoder.errors import InUse
from services.settings import RAY_DIR_CHARS_MAX

_EVERYWHERE = {"0.0.0.0": "127.0.0.1", "::": "::1", "[::]": "::1"}  # noqa: S104 - compared, not listened on


def usable_cores() -> int:
    """Count the cores that this process may use."""
    return len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1


def check_port(setting: str, host: str, port: int) -> None:
    """Raise :class:`InUse`, naming the setting, where ``host`` and ``port`` cannot be listened on."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host.strip("[]"), port))
        except OSError as error:
            message = (
                f"{setting} {port} on {host} cannot be had ({error.strerror}); stop what uses it or choose another."
            )
            raise InUse(message) from None


def free_port() -> int:
    """Find a port of 127.0.0.1 that is free now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def target_of(host: str, port: int) -> str:
    """Say how this machine reaches what listens on an address."""
    reachable = _EVERYWHERE.get(host, host).strip("[]")
    return f"[{reachable}]:{port}" if ":" in reachable else f"{reachable}:{port}"


def ray_directory() -> Path:
    """Make a temporary directory whose path is short enough for Ray's sockets."""
    parent = Path(tempfile.gettempdir())
    if len(f"{parent}/mamba-12345678") > RAY_DIR_CHARS_MAX:
        parent = Path("/tmp")  # noqa: S108 - mkdtemp makes the directory below private
    return Path(tempfile.mkdtemp(prefix="mamba-", dir=parent))
