"""CISI and Cranfield, in the SMART format of the 1970s: fields that begin with ``.T``, items that begin with ``.I``."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from encoder.evaluation.building.layout import BuiltSet, one_line, source_file

CRANFIELD_CODE_MAX = 4  # 1: a complete answer ... 4: of minimum interest; -1 and 5: of none


def build_cisi(source: Path) -> BuiltSet:
    """1,460 abstracts of library science; queries are what ``.W`` says. A query without judgements is left out."""
    folder = source / "data" / "cisi"
    judged = [(str(query), str(document), 1) for query, document in _read_pairs(source_file(folder, "CISI.REL"))]
    asked = {query for query, _, _ in judged}
    return BuiltSet(
        documents={
            str(number): (one_line(item["T"]), one_line(item["W"]))
            for number, item in _read_items(source_file(folder, "CISI.ALL"))
        },
        queries={
            str(number): one_line(item["W"])
            for number, item in _read_items(source_file(folder, "CISI.QRY"))
            if str(number) in asked
        },
        judgements=judged,
    )


def build_cranfield(source: Path) -> BuiltSet:
    """1,398 abstracts of aerodynamics (two of the 1,400 are empty), graded.

    Cranfield's codes fall from 1, a complete answer, to 4: a grade is 5 - code. Code -1 (no interest) is dropped.
    Queries are numbered by their place in the file, as the judgements are, not by their ``.I``.
    """
    folder = source / "data" / "cran"
    documents = {
        str(number): (one_line(item["T"]), one_line(item["W"]))
        for number, item in _read_items(source_file(folder, "CRAN.ALL", "cran.all.1400"))
        if item["W"].strip()
    }
    queries = _read_items(source_file(folder, "CRAN.QRY", "cran.qry"))
    judgements: dict[tuple[str, str], int] = {}
    for line in source_file(folder, "CRAN.REL", "cranqrel").read_text(encoding="utf-8").splitlines():
        query, document, code = (int(word) for word in line.split()[:3])
        if 1 <= code <= CRANFIELD_CODE_MAX and str(document) in documents:
            judgements.setdefault((str(query), str(document)), 5 - code)
    return BuiltSet(
        documents=documents,
        queries={str(place): one_line(item["W"]) for place, (_, item) in enumerate(queries, start=1)},
        judgements=[(query, document, grade) for (query, document), grade in judgements.items()],
    )


def _read_items(path: Path) -> Iterator[tuple[int, dict[str, str]]]:
    """Yield each item's number and its fields; a field that it lacks reads as an empty text."""
    number, item, field = 0, dict.fromkeys("TAWBX", ""), ""
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
        if line.startswith(".I "):
            if number:
                yield number, item
            number, item, field = int(line[3:]), dict.fromkeys("TAWBX", ""), ""
        elif line.rstrip() in {".T", ".A", ".W", ".B", ".X"}:
            field = line[1]
        elif field:
            item[field] += line + "\n"
    if number:
        yield number, item


def _read_pairs(path: Path) -> Iterator[tuple[int, int]]:
    for line in path.read_text(encoding="utf-8").splitlines():
        query, document = line.split()[:2]
        yield int(query), int(document)
