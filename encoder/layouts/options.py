"""The JSON files of model folders: every complaint about one names the file, the key, the value and what may stand."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path

from encoder.errors import CheckpointError


def read_json(path: Path) -> dict[str, object]:
    """Read a file that holds one JSON object; :class:`CheckpointError` where it does not."""
    found = _parse(path)
    if not isinstance(found, dict):
        raise CheckpointError(f"{path} holds {type(found).__name__} where an object was expected.")
    return found


def read_json_list(path: Path) -> list[object]:
    """Read a file that holds one JSON list; :class:`CheckpointError` where it does not."""
    found = _parse(path)
    if not isinstance(found, list):
        raise CheckpointError(f"{path} holds {type(found).__name__} where a list was expected.")
    return found


def _parse(path: Path) -> object:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read ({error.strerror}); give a whole model folder.") from error
    except ValueError as error:
        raise CheckpointError(f"{path} is not JSON: {error}.") from error
    except RecursionError as error:
        raise CheckpointError(f"{path} is nested too deep to be read; give a whole model folder.") from error


class Options:
    """One object of such a file, with upstream's defaults for what is left out."""

    def __init__(self, path: Path, values: Mapping[str, object], inside: str = "") -> None:
        self.path = path
        self.values = values
        self._inside = inside

    @classmethod
    def read(cls, path: Path) -> Options:
        """Read a file that holds one object."""
        return cls(path, read_json(path))

    def __contains__(self, key: str) -> bool:
        return key in self.values

    def get(self, key: str, default: object = None) -> object:
        """Give a value as it stands."""
        return self.values.get(key, default)

    def error(self, key: str, says: str) -> CheckpointError:
        """Make the error for a value that cannot be taken."""
        return CheckpointError(f"{self.path}: {self._inside}{key} is {self.get(key)!r}; {says}.")

    def integer(self, key: str, default: int | None = None) -> int:
        """Give a whole number from 1; ``2.0`` is one."""
        value = self.get(key, default)
        if value is None and key not in self:
            raise CheckpointError(f"{self.path}: {self._inside}{key} is missing; give a whole model folder.")
        whole = isinstance(value, int) or (isinstance(value, float) and value.is_integer())
        if isinstance(value, bool) or not isinstance(value, int | float) or not whole or value < 1:
            raise self.error(key, "a whole number from 1 is needed")
        return int(value)

    def number(self, key: str, default: float) -> float:
        """Give a number above 0."""
        value = self.get(key, default)
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < math.inf:
            raise self.error(key, "a finite number above 0 is needed")
        try:
            return float(value)
        except OverflowError:
            raise self.error(key, "a finite number above 0 is needed") from None

    def inner(self, key: str) -> Options:
        """Give the object under ``key``; none is an empty one."""
        value = self.get(key)
        if value is None:
            value = {}
        if not isinstance(value, dict):
            raise self.error(key, "an object is needed")
        return Options(self.path, value, f"{self._inside}{key}.")

    def demand(self, key: str, *supported: object, default: object) -> None:
        """Refuse an option at a value that this project's model does not compute."""
        if self.get(key, default) not in supported:
            shown = " or ".join(repr(value) for value in supported)
            raise self.error(key, f"only {shown} can be loaded")

    def switch(self, key: str, *, must_be: bool) -> None:
        """Refuse a switch that stands otherwise; left out, it stands as it must."""
        self.demand(key, must_be, default=must_be)

    def refuse_unknown(self, known: frozenset[str]) -> None:
        """Refuse options that nobody here has heard of: they may change what the model computes."""
        for key in self.values:
            if key not in known:
                raise self.error(key, "this option is not known, so the model cannot be loaded faithfully")
