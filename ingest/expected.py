"""How much there is to read, as far as names and sizes of files tell. Reads no file."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ingest.loading.kinds import Kind
from ingest.receipts import LoadError
from ingest.sources.finding import STDIN, find_sources, is_local
from ingest.sources.policy import EVERYTHING, SourcePolicy

# Kinds whose size says how much text there is to come.
MOSTLY_TEXT = frozenset((Kind.TEXT, Kind.MARKDOWN, Kind.JSON_LINES, Kind.CSV, Kind.TSV))
# Kinds of which a file is one document.
ONE_DOCUMENT = frozenset((Kind.TEXT, Kind.MARKDOWN, Kind.HTML, Kind.PDF, Kind.DOCX, Kind.MAIL))


@dataclass(frozen=True, slots=True)
class Expected:
    """What sources will give; None where that is not known."""

    documents: int | None = None  # those that will be refused included
    text_bytes: int | None = None  # as UTF-8


def expect(paths: Sequence[Path | str], policy: SourcePolicy = EVERYTHING) -> Expected:
    """Add up the files that :func:`ingest.loaders.load_documents` will read.

    Of standard input and of URLs nothing is known; of PDF and the like how many there are, but not how much text.
    """
    documents: int | None = 0
    text_bytes: int | None = 0
    for path in map(str, paths):
        if path == STDIN or not is_local(path):
            return Expected()
        for found in find_sources(path, policy, Counter()):
            if isinstance(found, LoadError):
                documents = None if documents is None else documents + 1
                continue
            documents = documents + 1 if documents is not None and found.kind in ONE_DOCUMENT else None
            text_bytes = text_bytes + found.size if text_bytes is not None and found.kind in MOSTLY_TEXT else None
            if documents is None and text_bytes is None:
                return Expected()
    return Expected(documents, text_bytes)
