"""How a process logs: one line per message on standard error, in UTC; text for people, JSON for machines.

Called once, from the process's main function. No line holds a text, a query or a key: those who log see to that.
"""

from __future__ import annotations

import json
import logging
import sys
import time
from typing import Literal

from encoder.call_context import current_call, current_trace_id
from services.setting_groups import LogFormat

# Libraries that report every connection.
_CHATTY = ("asyncio", "grpc", "httpcore", "httpx", "opentelemetry", "urllib3", "uvicorn")
# What a message may bring besides itself, as `extra={FIELDS: {...}}`.
FIELDS = "fields"


def configure_logging(process: str, level: str, log_format: LogFormat = "auto") -> None:
    """Send messages of ``level`` and above to standard error, each with time, severity and the process's name.

    ``auto`` is text on a terminal, JSON elsewhere.
    """
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_JsonLines(process) if resolved(log_format) == "json" else _text_lines(process))
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level)
    for name in _CHATTY:
        logging.getLogger(name).setLevel(logging.WARNING)


def resolved(log_format: LogFormat) -> Literal["text", "json"]:
    """Say what ``auto`` means for this process's standard error."""
    if log_format == "auto":
        return "text" if sys.stderr.isatty() else "json"
    return log_format


def _text_lines(process: str) -> logging.Formatter:
    formatter = logging.Formatter(f"%(asctime)s.%(msecs)03dZ %(levelname)s {process} %(name)s: %(message)s")
    formatter.converter = time.gmtime
    formatter.datefmt = "%Y-%m-%dT%H:%M:%S"
    return formatter


class _JsonLines(logging.Formatter):
    """One JSON object a line: time, level, logger, process, message; request_id and trace_id within a call."""

    def __init__(self, process: str) -> None:
        super().__init__()
        self._process = process

    def format(self, record: logging.LogRecord) -> str:
        """Write a record in one line; a traceback goes into it, too."""
        seconds = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
        line: dict[str, object] = {
            "time": f"{seconds}.{int(record.msecs):03d}Z",
            "level": record.levelname,
            "logger": record.name,
            "process": self._process,
            "message": record.getMessage(),
        }
        if call := current_call():
            line["request_id"] = call.request_id
        if trace_id := current_trace_id():
            line["trace_id"] = trace_id
        line |= getattr(record, FIELDS, {})
        if record.exc_info:
            line["traceback"] = self.formatException(record.exc_info)
        return json.dumps(line, ensure_ascii=False, default=str)
