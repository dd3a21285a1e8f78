"""What a builder makes, and how it is written: a folder in BEIR layout, the same bytes for the same source."""

from __future__ import annotations

import json
import lzma
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from encoder.errors import InvalidInput


@dataclass(slots=True)
class BuiltSet:
    """An evaluation set in the making."""

    documents: dict[str, tuple[str, str]] = field(default_factory=dict)  # id -> title, text
    queries: dict[str, str] = field(default_factory=dict)  # id -> text
    judgements: list[tuple[str, str, int]] = field(default_factory=list)  # query id, document id, grade

    def ask(self, query_id: str, text: str, document_id: str) -> None:
        """Add a query that one document answers."""
        self.queries[query_id] = text
        self.judgements.append((query_id, document_id, 1))


def write_set(built: BuiltSet, folder: Path) -> None:
    """Write ``corpus.jsonl.xz``, ``queries.jsonl.xz`` and ``qrels.tsv`` into a folder, made where it is missing."""
    folder.mkdir(parents=True, exist_ok=True)
    corpus = ({"_id": name, "title": title, "text": text} for name, (title, text) in built.documents.items())
    _write_rows(folder / "corpus.jsonl.xz", corpus)
    _write_rows(folder / "queries.jsonl.xz", ({"_id": name, "text": text} for name, text in built.queries.items()))
    lines = [
        "query-id\tcorpus-id\tscore",
        *(f"{query}\t{document}\t{grade}" for query, document, grade in built.judgements),
    ]
    (folder / "qrels.tsv").write_text("\n".join(lines) + "\n", encoding="utf-8")


def _write_rows(path: Path, rows: Iterable[dict[str, str]]) -> None:
    with lzma.open(path, "wt", encoding="utf-8", preset=9) as file:
        for row in rows:
            file.write(json.dumps(row, ensure_ascii=False) + "\n")


def source_file(source: Path, *names: str) -> Path:
    """Find the first of these paths in a source checkout; :class:`InvalidInput` names what is missing."""
    for name in names:
        if (source / name).is_file():
            return source / name
    raise InvalidInput("sources", f"{source} has no {' or '.join(names)}; check out the commit that is named for it.")


def source_json(source: Path, name: str) -> object:
    """Read a JSON file of a source checkout; :class:`InvalidInput` where it is missing or broken."""
    path = source_file(source, name)
    try:
        found: object = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise InvalidInput("sources", f"{path} is not JSON: {error}.") from error
    return found


def one_line(text: str) -> str:
    """Join a text that is broken into lines at any width."""
    return " ".join(text.split())
