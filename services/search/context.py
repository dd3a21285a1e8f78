"""Passages as one text for a prompt, each under its citation. Knows no index."""

from __future__ import annotations

from collections.abc import Sequence

from services.search.results import Passage


def citation(passage: Passage) -> str:
    """Write a passage's citation: ``[1] Title › Heading (document_id, lines 3-9)``, on one line."""
    record = passage.record
    # A document often begins with a heading that is its title.
    names = [record.title, *passage.headings[record.title in passage.headings[:1] :]]
    path = " › ".join(name for name in names if name.strip())
    lines = f"line {passage.line_start}"
    if passage.line_end > passage.line_start:
        lines = f"lines {passage.line_start}-{passage.line_end}"
    # A line break in a title would make a citation look like text, and text like another citation.
    return " ".join(f"[{passage.number}] {path} ({record.document_id}, {lines})".split())


def entry(passage: Passage) -> str:
    """Write a passage under its citation."""
    return f"{citation(passage)}\n{passage.text}"


def text_block(passages: Sequence[Passage]) -> str:
    """Write all passages, with an empty line between two."""
    return "\n\n".join(map(entry, passages))
