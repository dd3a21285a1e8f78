"""How settings are read: once, from arguments and environment.

Every field can be given as an environment variable, ``MAMBASEARCH_`` and its name in capitals
(``MAMBASEARCH_SEARCH_PORT=50051``); an argument wins over the environment. A value that does not fit, or a variable
that no process knows, is refused.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self

import pydantic
from pydantic import Field, SecretStr
from pydantic_settings import BaseSettings, SettingsConfigDict

from encoder.errors import InvalidInput

PREFIX = "MAMBASEARCH_"
PORT_MAX = 65535
_TARGET = re.compile(r"(?:[A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\]):([0-9]{1,5})")


def check_target(value: str) -> str:
    """Give an address back as it is; ValueError where it is not HOST:PORT (an IPv6 host stands in brackets)."""
    found = _TARGET.fullmatch(value)
    if not found or not 1 <= int(found[1]) <= PORT_MAX:
        raise ValueError("HOST:PORT is expected")
    return value


Target = Annotated[str, pydantic.AfterValidator(check_target)]


class Settings(BaseSettings):
    """What every process may be told."""

    model_config = SettingsConfigDict(env_prefix=PREFIX, extra="forbid", frozen=True)

    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = Field(
        "INFO", description="Least severe messages to log. No level logs a text that a user sent."
    )

    @classmethod
    def load(cls, arguments: Mapping[str, object] | None = None) -> Self:
        """Read arguments (field to value) and environment; :class:`InvalidInput` names the first that does not fit."""
        known = {PREFIX + name.upper() for settings in _all_settings(Settings) for name in settings.model_fields}
        for name in sorted(os.environ):  # noqa: TID251 - the one place where it is read
            if name.upper().startswith(PREFIX) and name.upper() not in known:
                raise InvalidInput(name, f"{name} is not a setting of mamba-search; unset it or correct its name.")
        given: dict[str, Any] = dict(arguments or {})
        try:
            return cls(**given)
        except pydantic.ValidationError as error:
            raise _refusal(error, given, cls._names_of_secrets()) from None

    def child_environment(self, others: Mapping[str, object]) -> dict[str, str]:
        """Give the environment of a child process: ours, these settings, and ``others`` (fields of its own class)."""
        values = {**self.model_dump(mode="json", exclude_none=True), **self._secrets(), **others}
        return {
            **os.environ,  # noqa: TID251 - passed on, not read
            **{PREFIX + name.upper(): str(value) for name, value in values.items()},
        }

    @classmethod
    def _names_of_secrets(cls) -> frozenset[str]:
        return frozenset(
            name for name, field in cls.model_fields.items() if "SecretStr" in str(field.annotation) or not field.repr
        )

    def _secrets(self) -> dict[str, str]:
        found = {name: getattr(self, name) for name in type(self).model_fields}
        return {name: value.get_secret_value() for name, value in found.items() if isinstance(value, SecretStr)}


def _all_settings(base: type[Settings]) -> list[type[Settings]]:
    return [base, *(found for child in base.__subclasses__() for found in _all_settings(child))]


def _refusal(error: pydantic.ValidationError, arguments: Mapping[str, object], secrets: frozenset[str]) -> InvalidInput:
    first = error.errors()[0]
    reason = first["msg"].removeprefix("Value error, ").rstrip(".")
    if not first["loc"]:
        return InvalidInput("settings", f"{reason}.")
    field = str(first["loc"][0])
    name = field if field in arguments else PREFIX + field.upper()
    value = "not acceptable" if field in secrets else repr(str(first["input"]))
    return InvalidInput(field, f"{name} is {value}: {reason}.")
