"""A tracer that remembers, for tests that need no library."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from encoder.call_context import Headers, Kind, Span, Value


class Recorder:
    """Begins spans at :attr:`origin`, and remembers those that have ended."""

    def __init__(self) -> None:
        self.ended: list[RecordedSpan] = []
        self.origin = RecordedSpan(self, "", None)

    def told(self) -> list[str]:
        """Say of each span that ended: its name, what it is in, what it is linked to, how it failed."""
        return [one.told() for one in self.ended]


class RecordedSpan:
    """A span that its recorder remembers."""

    def __init__(self, recorder: Recorder, name: str, parent: RecordedSpan | None, links: Sequence[Span] = ()) -> None:
        self.recorder = recorder
        self.name = name
        self.parent = parent
        self.links = [link for link in links if isinstance(link, RecordedSpan)]
        self.attributes: dict[str, Value] = {}
        self.accepted: Headers = ()
        self.failure = ""

    def child(
        self,
        name: str,
        kind: Kind = Kind.INTERNAL,
        attributes: Mapping[str, Value] | None = None,
        links: Sequence[Span] = (),
    ) -> Span:
        made = RecordedSpan(self.recorder, name, self if self.name else None, links)
        made.attributes |= attributes or {}
        return made

    def root(self, name: str, attributes: Mapping[str, Value] | None = None, links: Sequence[Span] = ()) -> Span:
        return self.recorder.origin.child(name, Kind.INTERNAL, attributes, links)

    def accept(self, name: str, headers: Headers) -> Span:
        made = RecordedSpan(self.recorder, name, None)
        made.accepted = headers
        return made

    def set(self, name: str, value: Value) -> None:
        self.attributes[name] = value

    def headers(self) -> Headers:
        return (("traceparent", f"00-{id(self.recorder):032x}-{id(self):016x}-01"),) if self.name else ()

    def end(self, failure: str = "") -> None:
        self.failure = failure
        self.recorder.ended.append(self)

    def told(self) -> str:
        within = f" < {self.parent.name}" if self.parent else ""
        of = f", of {' and '.join(link.name for link in self.links)}" if self.links else ""
        return f"{self.name}{within}{of}{f' ({self.failure})' if self.failure else ''}"
