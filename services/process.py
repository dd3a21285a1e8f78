"""How a process of ours begins and ends: settings, logging, an event loop, one sentence and an exit code on failure."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Awaitable, Callable
from typing import TypeVar

from encoder.errors import MambaSearchError
from services.observing.logs import configure_logging
from services.setting_groups import ObservingSettings
from services.status import exit_code

_Settings = TypeVar("_Settings", bound=ObservingSettings)


def run(name: str, settings_class: type[_Settings], serve: Callable[[_Settings], Awaitable[None]]) -> int:
    """Read settings, configure logging, run ``serve`` until it ends; give the exit code."""

    async def serve_with(settings: _Settings) -> None:
        await serve(settings)

    try:
        settings = settings_class.load()
        configure_logging(name, settings.log_level, settings.log_format)
        asyncio.run(serve_with(settings))
    except MambaSearchError as error:
        sys.stderr.write(f"{error}\n")
        return exit_code(error)
    return 0
