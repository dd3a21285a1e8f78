"""What a job was asked to do, and the same as JSON, in which it waits in the database."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from enum import Enum
from typing import Any

from encoder.errors import InvalidInput
from encoder.tokenizer import check_characters
from ingest.documents import (
    DEFAULT_TENANT,
    SOURCE_CHARS_MAX,
    MetadataValue,
    check_metadata,
    check_tenant,
    value_from_json,
    value_to_json,
)
from ingest.filters import AllOf, AnyOf, Equals, Exists, Filter, IdPrefix, IsIn, Not, Range, check_filter

SOURCES_MAX = 1000
LETTERS_MAX = 1000
_STDIN = "-"
_SIMPLE: Mapping[str, Callable[..., Filter]] = {kind.__name__: kind for kind in (Equals, Range, Exists, IdPrefix)}


class JobKind(Enum):
    """What a job does."""

    INGEST = "ingest"
    REPLAY = "replay"
    DELETE = "delete"


@dataclass(frozen=True, slots=True)
class JobRequest:
    """What a job is to do; which fields count depends on its kind."""

    kind: JobKind
    tenant: str = ""  # whose documents; empty where each may name its own
    sources: tuple[str, ...] = ()
    metadata: Mapping[str, MetadataValue] = field(default_factory=dict, hash=False)
    where: Filter | None = None  # which documents to delete; None: all of the tenant's
    replays: str = ""  # the job whose dead letters are read again
    letters: tuple[str, ...] = ()  # which of them; none: all

    @property
    def job_tenant(self) -> str:
        """Say whose the job itself is."""
        return self.tenant or DEFAULT_TENANT

    def to_json(self) -> str:
        """Write it; equal requests give equal texts."""
        values = {
            "kind": self.kind.value,
            "tenant": self.tenant,
            "sources": list(self.sources),
            "metadata": {name: value_to_json(value) for name, value in self.metadata.items()},
            "where": None if self.where is None else _filter_to_json(self.where),
            "replays": self.replays,
            "letters": sorted(self.letters),
        }
        return json.dumps(values, sort_keys=True)

    @classmethod
    def from_json(cls, text: str) -> JobRequest:
        """Read what :meth:`to_json` wrote."""
        values = json.loads(text)
        return cls(
            JobKind(values["kind"]),
            values["tenant"],
            tuple(values["sources"]),
            {name: value_from_json(value) for name, value in values["metadata"].items()},
            None if values["where"] is None else _filter_from_json(values["where"]),
            values["replays"],
            tuple(values["letters"]),
        )


def check_request(request: JobRequest) -> None:
    """Raise :class:`InvalidInput` naming the first field that breaks its limit."""
    check_tenant(request.job_tenant)
    check_metadata(request.metadata)
    if request.where is not None:
        check_filter(request.where)
    if len(request.letters) > LETTERS_MAX:
        message = f"dead_letter_ids has {len(request.letters)} entries; the limit is {LETTERS_MAX}."
        raise InvalidInput("dead_letter_ids", message)
    if request.kind is JobKind.INGEST:
        _check_sources(request.sources)


def _check_sources(sources: tuple[str, ...]) -> None:
    if not 1 <= len(sources) <= SOURCES_MAX:
        raise InvalidInput("sources", f"sources has {len(sources)} entries; 1 to {SOURCES_MAX} are allowed.")
    known: set[str] = set()
    for number, source in enumerate(sources):
        place = f"sources[{number}]"
        check_characters(place, source)
        if not 1 <= len(source) <= SOURCE_CHARS_MAX:
            message = f"{place} has {len(source)} characters; 1 to {SOURCE_CHARS_MAX} are allowed."
            raise InvalidInput(place, message)
        if source == _STDIN:
            raise InvalidInput(place, f"{place} is -, but a worker has no standard input; send a stream of documents.")
        if source in known:
            raise InvalidInput(place, f"{place} is {source[:200]!r}, which is given before; give it once.")
        known.add(source)


def _filter_to_json(part: Filter) -> list[object]:
    """Write a part as its name and its fields."""
    match part:
        case AllOf(parts) | AnyOf(parts):
            return [type(part).__name__, [_filter_to_json(one) for one in parts]]
        case Not(one):
            return [type(part).__name__, _filter_to_json(one)]
        case IsIn(name, values):
            return [type(part).__name__, name, [value_to_json(value) for value in values]]
        case _:
            return [type(part).__name__, *(value_to_json(getattr(part, one.name)) for one in fields(part))]


def _filter_from_json(values: list[Any]) -> Filter:
    kind, *parts = values
    match kind:
        case "AllOf":
            return AllOf(tuple(_filter_from_json(one) for one in parts[0]))
        case "AnyOf":
            return AnyOf(tuple(_filter_from_json(one) for one in parts[0]))
        case "Not":
            return Not(_filter_from_json(parts[0]))
        case "IsIn":
            return IsIn(parts[0], tuple(value_from_json(value) for value in parts[1]))
        case _:
            return _SIMPLE[kind](*(value_from_json(value) for value in parts))
