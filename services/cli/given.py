"""Options that stand before a command's name, for all commands: whom they trust, and what they show."""

from __future__ import annotations

from collections.abc import Mapping
from contextvars import ContextVar

from services.settings import CommandSettings

_GIVEN: ContextVar[Mapping[str, object]] = ContextVar("given")


def give_to_all(given: Mapping[str, object]) -> None:
    """Say what these options are, for the command that follows."""
    _GIVEN.set(dict(given))


def command_settings(given: Mapping[str, object]) -> CommandSettings:
    """Read a command's settings: from its options, those before its name, and the environment."""
    return CommandSettings.load({**_GIVEN.get({}), **given})
