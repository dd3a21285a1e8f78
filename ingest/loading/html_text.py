"""Web pages into text: the main content, with headings as in Markdown. Knows no network."""

from __future__ import annotations

import codecs
import re
from datetime import datetime
from typing import Any, BinaryIO

from lxml import etree

from ingest.loading.parsed import Parsed, Unreadable

# What is never text of the page.
LEFT_OUT = frozenset(
    (
        "audio",
        "base",
        "button",
        "canvas",
        "dialog",
        "embed",
        "form",
        "head",
        "iframe",
        "input",
        "link",
        "math",
        "meta",
        "nav",
        "noscript",
        "object",
        "script",
        "select",
        "style",
        "svg",
        "template",
        "textarea",
        "title",
        "video",
    )
)
# What frames a page that does not say which part of it is the main one.
FRAME = frozenset(("aside", "footer"))
BLOCKS = frozenset(
    (
        "address",
        "article",
        "aside",
        "blockquote",
        "body",
        "caption",
        "dd",
        "details",
        "div",
        "dl",
        "dt",
        "fieldset",
        "figcaption",
        "figure",
        "footer",
        "header",
        "hr",
        "main",
        "ol",
        "p",
        "pre",
        "section",
        "summary",
        "table",
        "ul",
    )
)
HEADINGS = {f"h{level}": "#" * level + " " for level in range(1, 7)}
_CHARSET = re.compile(rb"""<meta[^>]{0,200}?charset\s*=\s*["']?\s*([\w:-]{1,40})""", re.IGNORECASE)
_CHARSET_BYTES = 4096  # it is declared within so much of a page
_BOMS = ((codecs.BOM_UTF8, "utf-8-sig"), (codecs.BOM_UTF16_LE, "utf-16"), (codecs.BOM_UTF16_BE, "utf-16"))
# As browsers do: pages that name the first mean the second.
_MEANT = {"iso8859-1": "cp1252", "ascii": "cp1252"}
_SPACE = re.compile(r"[^\S\xa0]+")
_CELL = " | "
_BLANK_LINES = re.compile(r"\n{3,}")


def parse(stream: BinaryIO) -> Parsed:
    """Read a page; the title is that of the page, or its first heading of the first level."""
    parsed = read_html(decode_html(stream.read()))
    if not parsed.text:
        raise Unreadable("has no text; a page that a script fills must be saved as a browser shows it.")
    return parsed


def decode_html(data: bytes) -> str:
    """Decode by the byte order mark, the encoding that a page names, or UTF-8; :class:`Unreadable` if it is another."""
    named = next((name for mark, name in _BOMS if data.startswith(mark)), "")
    if not named and (found := _CHARSET.search(data, 0, _CHARSET_BYTES)):
        named = found.group(1).decode("ascii", "replace")
    try:
        encoding = codecs.lookup(named or "utf-8").name
        if encoding.startswith("utf-16") and not data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
            encoding = "utf-8"  # the name could be read, so it is wrong
        page = data.decode(_MEANT.get(encoding, encoding))
    except UnicodeDecodeError as error:
        raise Unreadable(f"is not {encoding} (byte {error.start}); convert it, for example with iconv.") from None
    except (LookupError, ValueError):  # the latter from codecs of other things than text
        raise Unreadable(f"names an encoding {named!r} that is not known; convert it to UTF-8.") from None
    if "\0" in page:
        raise Unreadable(
            f"is no web page (character {page.index(chr(0))} is NUL): it is binary, or of another encoding."
        )
    return page


def read_html(page: str) -> Parsed:
    """Read a decoded page or a part of one; the text is empty where there is none."""
    parser = etree.HTMLParser(encoding="utf-8", huge_tree=True, remove_comments=True, remove_pis=True)
    try:
        root = etree.fromstring(page.encode(), parser)
    except etree.XMLSyntaxError:
        root = None
    # A tree that breaks off looks like any other.
    fatal = [entry for entry in parser.error_log if entry.level == etree.ErrorLevels.FATAL]
    if any(entry.type == etree.ErrorTypes.ERR_NO_MEMORY for entry in fatal):
        raise MemoryError
    if fatal:
        reason = fatal[0].message.partition(",")[0]
        raise Unreadable(f"cannot be read to its end ({reason}); simplify the page.")
    if root is None:
        return Parsed("")
    text = ""
    if (main := _main(root)) is not None:
        text = _read(main, LEFT_OUT)
    if not text:
        text = _read(root, LEFT_OUT | FRAME) or _read(root, LEFT_OUT)
    metadata: dict[str, str | int | datetime] = {}
    author = root.find(".//meta[@name='author']")
    if author is not None and (name := _line(author.get("content") or "")):
        metadata["author"] = name
    return Parsed(text, _title(root), metadata)


def _main(root: Any) -> Any:  # noqa: ANN401 - lxml's elements come without types
    """Find the part that the page calls its main one, or its only article."""
    for path in (".//main", ".//*[@role='main']"):
        if (found := root.find(path)) is not None:
            return found
    articles = root.findall(".//article")
    return articles[0] if len(articles) == 1 else None


def _title(root: Any) -> str:  # noqa: ANN401
    # In the head it is the page's own, not that of a drawing in it.
    for path in (".//head/title", ".//h1"):
        found = root.find(path)
        if found is not None and (title := _line("".join(found.itertext()))):
            return title
    return ""


def _line(text: str) -> str:
    return " ".join(text.split())


def _read(root: Any, left_out: frozenset[str]) -> str:  # noqa: ANN401
    """Go through the elements in order, without recursion: pages nest as deep as they like."""
    writer = _Writer()
    walk = etree.iterwalk(root, events=("start", "end"))
    for event, element in walk:
        tag = element.tag if isinstance(element.tag, str) else ""
        if event == "end":
            writer.close(tag)
            if element is not root and element.tail:
                writer.write(element.tail)
        elif not tag or tag in left_out or _is_hidden(element):
            walk.skip_subtree()
        else:
            writer.open(tag)
            if element.text:
                writer.write(element.text)
    return writer.text()


def _is_hidden(element: Any) -> bool:  # noqa: ANN401
    style = (element.get("style") or "").replace(" ", "").lower()
    return element.get("hidden") is not None or element.get("aria-hidden") == "true" or "display:none" in style


class _Writer:
    """Puts words into lines and blocks as a reader of the page sees them.

    Breaks and marks wait for the text that comes after them: of two breaks the larger one counts, and a heading or an
    entry without text leaves nothing.
    """

    def __init__(self) -> None:
        self._parts: list[str] = []
        self._break = ""
        self._mark = ""
        self._cells = 0  # of this row
        self._row_is_empty = False
        self._preformatted = 0

    def open(self, tag: str) -> None:
        """Begin what the element begins."""
        if tag in HEADINGS:
            self._end_block()
            self._mark = HEADINGS[tag]
        elif tag == "li":
            self._end_line()
            self._mark = "- "
        elif tag == "br":
            self._break = "\n\n" if self._break else "\n"
        elif tag == "tr":
            self._end_line()
            self._cells, self._row_is_empty = 0, True
        elif tag in ("td", "th"):
            self._cells += 1
            if self._cells > 1:
                if self._row_is_empty and self._parts:
                    self._parts.append(self._break)
                self._parts.append(_CELL)
                self._break, self._mark, self._row_is_empty = "", "", False
        elif tag in BLOCKS:
            self._end_block()
            self._preformatted += tag == "pre"

    def close(self, tag: str) -> None:
        """End what the element ends."""
        if tag in HEADINGS or tag == "li":
            self._mark = ""
        if tag in HEADINGS or tag in BLOCKS:
            self._end_block()
            self._preformatted -= tag == "pre" and self._preformatted > 0
        elif tag in ("li", "tr"):
            self._end_line()

    def write(self, text: str) -> None:
        """Add text; white space counts only where the page says so."""
        if not self._preformatted:
            text = _SPACE.sub(" ", text)
            if self._break or self._mark or not self._parts or self._parts[-1].endswith((" ", "\n")):
                text = text.removeprefix(" ")
        if not text:
            return
        if self._parts:
            self._parts.append(self._break)
        self._parts.append(self._mark + text)
        self._break, self._mark, self._row_is_empty = "", "", False

    def text(self) -> str:
        """Give all of it."""
        lines = (line.rstrip() for line in "".join(self._parts).split("\n"))
        return _BLANK_LINES.sub("\n\n", "\n".join(lines)).strip("\n")

    def _end_line(self) -> None:
        self._break = self._break or ("" if self._is_at_mark() else "\n")

    def _end_block(self) -> None:
        self._break = self._break if self._is_at_mark() else "\n\n"

    def _is_at_mark(self) -> bool:
        """Say whether a mark waits for its text: that goes on the same line."""
        return bool(self._mark) or self._parts[-1:] == [_CELL]
