"""Which parts of an answer are asked for (AIP-157): paths of its fields, through lists as well."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any, TypeAlias

from encoder.errors import InvalidInput

PATHS_MAX = 64
_CACHED = 256  # masks; a client asks with the same ones again and again

# A message's descriptor: protobuf's own types of it differ by what implements it.
Descriptor: TypeAlias = Any
# By a message's fields; None: all that is below.
Mask: TypeAlias = Mapping[str, "Mask"] | None


def mask_of(paths: Sequence[str], answer: Descriptor) -> Mask:
    """Read a mask; :class:`InvalidInput` names ``read_mask`` where a path is none of the answer's."""
    if len(paths) > PATHS_MAX:
        raise InvalidInput("read_mask", f"read_mask has {len(paths)} paths; the limit is {PATHS_MAX}.")
    return _mask_of(tuple(paths), answer)


def wants(mask: Mask, *path: str) -> bool:
    """Say whether a field, or a part of it, is asked for."""
    for name in path:
        if mask is None:
            return True
        if name not in mask:
            return False
        mask = mask[name]
    return True


@lru_cache(maxsize=_CACHED)
def _mask_of(paths: tuple[str, ...], answer: Descriptor) -> Mask:
    if not paths or paths == ("*",):
        return None
    mask: dict[str, Mask] = {}
    for path in paths:
        _add(mask, path, answer)
    return mask


def _add(mask: dict[str, Mask], path: str, answer: Descriptor) -> None:
    names = path.split(".")
    message = answer
    level: dict[str, Mask] | None = mask
    for place, name in enumerate(names, start=1):
        field = message.fields_by_name.get(name) if message else None
        if field is None:
            known = f"{message.name} has {', '.join(message.fields_by_name)}" if message else "it ends before that"
            raise InvalidInput("read_mask", f"read_mask names {path[:100]!r}, which is no field; {known}.")
        message = _below(field)
        if level is None:  # all of it is asked for already
            continue
        if place == len(names):
            level[name] = None
        else:
            below = level.setdefault(name, {})
            assert below is None or isinstance(below, dict)
            level = below


def _below(field: Any) -> Descriptor | None:  # noqa: ANN401 - as Descriptor
    """Give the message that a path may go on into; none into a map."""
    message = field.message_type
    return None if message is None or message.GetOptions().map_entry else message
