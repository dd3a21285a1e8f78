"""How a process logs: one line per message on standard error, in UTC. Called once, from the process's main function."""

from __future__ import annotations

import logging
import sys
import time

# Libraries that report every connection.
_CHATTY = ("asyncio", "grpc", "httpcore", "httpx", "urllib3")


def configure_logging(process: str, level: str) -> None:
    """Send messages of ``level`` and above to standard error, each with time, severity and the process's name."""
    formatter = logging.Formatter(f"%(asctime)s.%(msecs)03dZ %(levelname)s {process} %(name)s: %(message)s")
    formatter.converter = time.gmtime
    formatter.datefmt = "%Y-%m-%dT%H:%M:%S"
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(formatter)
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level)
    for name in _CHATTY:
        logging.getLogger(name).setLevel(logging.WARNING)
