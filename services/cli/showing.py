"""Hits and documents on a terminal: title, place, score, and the best part of the passage with its words marked."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console
    from rich.text import Text

    from services.cli.hits import FoundDocument, FoundPassage

EXCERPT_CHARS = 480
NAME_CHARS = 160
INDENT = "    "


def show_hit(hit: FoundPassage, query: str, excerpt_chars: int | None, console: Console) -> None:
    """Show one hit under its title."""
    from rich.text import Text

    from services.cli.marking import one_line

    text = Text(f"{hit.rank:>2}. ", style="bold")
    text.append(one_line(hit.title or hit.document_id, NAME_CHARS), style="bold cyan")
    text.append(f"  score {hit.score:.4g}", style="dim")
    name = one_line(hit.source or hit.document_id, NAME_CHARS)
    where = _place(hit) if hit.is_code else f"{name}, {_place(hit)}"
    text.append(f"\n{INDENT}{where}", style="dim")
    console.print(text)
    _show_passage(hit, query, excerpt_chars, console)


def show_document(document: FoundDocument, query: str, excerpt_chars: int | None, console: Console) -> None:
    """Show a document and its best hits."""
    from rich.text import Text

    from services.cli.marking import one_line

    text = Text(f"{document.rank:>2}. ", style="bold")
    text.append(one_line(document.title or document.document_id, NAME_CHARS), style="bold cyan")
    text.append(f"  score {document.score:.4g}", style="dim")
    chunks = "chunk" if document.chunk_count == 1 else "chunks"
    name = one_line(document.source or document.document_id, NAME_CHARS)
    text.append(f"\n{INDENT}{name}, {document.chunk_count:,} {chunks}", style="dim")
    console.print(text)
    for hit in document.hits:
        console.print(Text(f"{INDENT}score {hit.score:.4g}, {_place(hit)}", style="dim"))
        _show_passage(hit, query, excerpt_chars, console)


def _place(hit: FoundPassage) -> str:
    """Say where in its document a hit is; of code, as editors open it, with the definitions that it is in."""
    from services.asking.passages import place_of
    from services.cli.marking import one_line

    if hit.is_code:
        file = one_line(hit.document_id, NAME_CHARS)
        return "  ".join(filter(None, (place_of(file, hit.line_start, hit.line_end), _headings(hit))))
    percent = 100 * hit.char_start / hit.document_chars if hit.document_chars else 0.0
    place = f"lines {hit.line_start:,}-{hit.line_end:,}, characters {hit.char_start:,}-{hit.char_end:,} of "
    return place + f"{hit.document_chars:,} ({percent:.0f}%)"


def _headings(hit: FoundPassage) -> str:
    from services.cli.marking import one_line

    return one_line(" › ".join(hit.headings), NAME_CHARS)


def _show_passage(hit: FoundPassage, query: str, excerpt_chars: int | None, console: Console) -> None:
    from rich.text import Text

    if hit.headings and not hit.is_code:
        console.print(Text(f"{INDENT}{_headings(hit)}", style="dim"))
    if hit.explanation:
        console.print(Text(f"{INDENT}{hit.explanation}", style="dim"))
    console.print(_excerpt(hit, query, excerpt_chars, console))
    console.print()


def _excerpt(hit: FoundPassage, query: str, excerpt_chars: int | None, console: Console) -> Text:
    from rich.text import Text

    from services.cli.marking import take_excerpt

    excerpt = take_excerpt(hit.text, query, excerpt_chars)
    text = Text(excerpt.text)
    for mark in excerpt.marks:
        text.stylize("bold yellow", mark.start, mark.end)
    whole = Text("… " if excerpt.cut_before else "") + text + Text(" …" if excerpt.cut_after else "")
    lines = whole.wrap(console, max(console.width - len(INDENT), 1))
    for line in lines:
        line.rstrip()
    return Text("\n").join(Text(INDENT) + line for line in lines)
