"""What a chat API sends while it answers: events, each a part of the answer as JSON. Knows no connection."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, AsyncIterator
from dataclasses import dataclass

LINE_CHARS_MAX = 1 << 20
ANSWER_CHARS_MAX = 1 << 20


class BrokenStream(Exception):
    """The stream is no answer, or ended before its end; the text says why."""


@dataclass(frozen=True, slots=True)
class Part:
    """A piece of an answer, or why it ends: ``stop``, ``length``, or what else the API says."""

    text: str = ""
    end: str = ""


async def read_lines(chunks: AsyncIterator[str]) -> AsyncIterator[str]:
    """Cut text that comes in pieces into lines; :class:`BrokenStream` for one without end."""
    rest = ""
    async for chunk in chunks:
        rest += chunk
        *lines, rest = rest.split("\n")
        for line in lines:
            yield line.removesuffix("\r")
        if len(rest) > LINE_CHARS_MAX:
            raise BrokenStream(f"a line has over {LINE_CHARS_MAX:,} characters")
    if rest:
        yield rest


async def read_parts(lines: AsyncIterator[str]) -> AsyncGenerator[Part, None]:
    """Read the events up to ``[DONE]``; :class:`BrokenStream` where they end before, or are none."""
    total = 0
    ended = False
    async for line in lines:
        if not line.startswith("data:"):
            continue  # blank lines, comments that keep the connection alive, names of events
        data = line.removeprefix("data:").strip()
        if data == "[DONE]":
            return
        part = _part(data)
        total += len(part.text)
        if total > ANSWER_CHARS_MAX:
            raise BrokenStream(f"the answer has over {ANSWER_CHARS_MAX:,} characters")
        ended = ended or bool(part.end)
        yield part
    if not ended:
        raise BrokenStream("it ended in the midst of the answer")


def _part(data: str) -> Part:
    try:
        event = json.loads(data)
    except ValueError:
        raise BrokenStream("an event is no JSON") from None
    if not isinstance(event, dict):
        raise BrokenStream("an event is no object")
    if event.get("error"):
        raise BrokenStream(f"the model server says: {error_text(event)}")
    choices = event.get("choices") or []
    if not choices:
        return Part()  # usage, for one
    choice = choices[0] if isinstance(choices, list) else None
    delta = (choice.get("delta") or {}) if isinstance(choice, dict) else None
    if not isinstance(delta, dict):
        raise BrokenStream("an event is not of a chat")
    text, end = delta.get("content") or "", choice.get("finish_reason") or "" if isinstance(choice, dict) else ""
    return Part(text if isinstance(text, str) else "", str(end))


def error_text(answer: object) -> str:
    """Read the message of an error as these APIs write it: ``{"error": {"message": …}}``, or ``{"error": …}``."""
    error = answer.get("error", answer) if isinstance(answer, dict) else answer
    message = error.get("message", error) if isinstance(error, dict) else error
    return " ".join(str(message).split())[:300]
