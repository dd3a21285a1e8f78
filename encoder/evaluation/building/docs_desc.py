"""Microsoft's documentation of Office add-ins and PowerShell: the author's own description -> the whole article.

The description is what the front matter (or a cmdlet's SYNOPSIS) says, and is taken out of the text. The set whose
numbers the README shows was built by an earlier script of the same rule: a few articles near the limits of length may
be in one and not the other, and white space and markup may differ in places.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from encoder.errors import InvalidInput
from encoder.evaluation.building.layout import BuiltSet, one_line

# Name in the ids, repository, folders whose articles are taken. PowerShell: one version of the reference only.
FOLDERS = (
    ("officejs", "office-js-docs-pr", ("docs",)),
    ("powershell", "PowerShell-Docs", ("reference/7.4", "reference/docs-conceptual")),
)
TEXT_CHARS_MIN = 1000
QUERY_CHARS_MIN = 20
QUERY_WORDS_MIN = 5

FRONT_MATTER = re.compile(r"\A---\n(.*?)\n---\n", re.DOTALL)
SYNOPSIS = re.compile(r"^## SYNOPSIS[ \t]*\n+(.*?)(?=^## |\Z)", re.DOTALL | re.MULTILINE | re.IGNORECASE)
SYNTAX = re.compile(r"^## SYNTAX[ \t]*\n.*?(?=^## |\Z)", re.DOTALL | re.MULTILINE)
# What is markup rather than text, and what is left of it; in this order.
MARKUP = (
    (re.compile(r"<!--.*?-->", re.DOTALL), ""),
    (re.compile(r"^\[[^\]\n]+\]: \S+.*$", re.MULTILINE), ""),  # targets of links
    (re.compile(r"!\[[^\]]*\]\([^)]*\)"), ""),  # images
    (re.compile(r"\[([^\]]+)\](?:\([^)]*\)|\[[^\]\n]*\])"), r"\1"),  # links
    (re.compile(r"^> ?", re.MULTILINE), ""),
    (re.compile(r"^\[!([A-Z]+)\]", re.MULTILINE), r"\1:"),
    (re.compile(r"(?<![\w*])\*\*([^*\n]+)\*\*(?![\w*])"), r"\1"),
    (re.compile(r"(?<![\w_])_([^_\n]+)_(?![\w_])"), r"\1"),
    (re.compile(r"^[ \t|:-]+$", re.MULTILINE), ""),  # rules of tables
    (re.compile(r"[ \t]{3,}"), "  "),
    (re.compile(r"\n{3,}"), "\n\n"),
)


def build_docs_desc(source: Path) -> BuiltSet:
    """About 1,130 articles, from both checkouts in ``source``; of equal descriptions the first is kept."""
    built = BuiltSet()
    asked: set[str] = set()
    for document_id, path in _article_paths(source):
        found = _read_article(path.read_text(encoding="utf-8-sig"))
        if found and found[1] not in asked:
            title, query, text = found
            asked.add(query)
            built.documents[document_id] = (title, text)
            built.ask(f"q{len(built.queries)}", query, document_id)
    return built


def _article_paths(source: Path) -> Iterator[tuple[str, Path]]:
    for name, repository, folders in FOLDERS:
        for folder in folders:
            root = source / repository
            if not (root / folder).is_dir():
                raise InvalidInput("sources", f"{root} has no folder {folder}; check out the commit named for it.")
            for path in sorted((root / folder).rglob("*.md")):
                yield f"{name}/{path.relative_to(root).as_posix()}", path


def _read_article(raw: str) -> tuple[str, str, str] | None:
    """Give title, description and text; None where the article is too short or says nothing about itself."""
    raw = raw.replace("\r\n", "\n")
    matter = FRONT_MATTER.match(raw)
    if not matter:
        return None
    fields = dict(re.findall(r"^([\w.]+):[ \t]*(\S.*)$", matter[1], re.MULTILINE))
    body = raw[matter.end() :]
    synopsis = SYNOPSIS.search(body)
    query = _unmark(synopsis[1]) if synopsis else fields.get("description", "").strip("'\" ")
    body = SYNTAX.sub("", SYNOPSIS.sub("", body))
    paragraphs = body.split("\n\n")
    text = _unmark("\n\n".join(part for part in paragraphs if one_line(part) != one_line(query)))
    query = one_line(query)
    if len(text) < TEXT_CHARS_MIN or len(query) < QUERY_CHARS_MIN or len(query.split()) < QUERY_WORDS_MIN:
        return None
    return fields.get("title", "").strip("'\" "), query, text


def _unmark(text: str) -> str:
    for pattern, replacement in MARKUP:
        text = pattern.sub(replacement, text)
    return text.strip()
