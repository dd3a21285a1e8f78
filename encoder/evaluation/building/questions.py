"""Sets that come as JSON: XQuAD, COVID-QA, PubMedQA and CoSQA."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import TypeVar

import pydantic

from encoder.errors import InvalidInput
from encoder.evaluation.building.layout import BuiltSet, source_file, source_json

Checked = TypeVar("Checked")


class _Question(pydantic.BaseModel):
    id: str | int
    question: str


class _Paragraph(pydantic.BaseModel):
    context: str
    qas: list[_Question]


class _Article(pydantic.BaseModel):
    paragraphs: list[_Paragraph]
    title: str = ""


class _Squad(pydantic.BaseModel):
    data: list[_Article]


class _CodeQuery(pydantic.BaseModel):
    idx: str
    doc: str  # the query, as people typed it
    retrieval_idx: int


class _Abstract(pydantic.BaseModel):
    QUESTION: str
    CONTEXTS: list[str]
    LONG_ANSWER: str


def build_squad_xquad_en(source: Path) -> BuiltSet:
    """XQuAD's English half, a subset of SQuAD 1.1's development set: question -> paragraph, numbered in order."""
    built = BuiltSet()
    for article in _read_squad(source, "xquad.en.json"):
        for paragraph in article.paragraphs:
            document_id = str(len(built.documents))
            built.documents[document_id] = (article.title.replace("_", " "), paragraph.context)
            for question in paragraph.qas:
                built.ask(str(question.id), question.question, document_id)
    return built


def build_covidqa(source: Path) -> BuiltSet:
    """Questions by medical experts -> whole articles. A document's id is a digest of its text."""
    built = BuiltSet()
    for article in _read_squad(source, "data/question-answering/200423_covidQA.json"):
        for paragraph in article.paragraphs:
            text = paragraph.context.strip()
            document_id = hashlib.sha256(text.encode()).hexdigest()[:16]
            built.documents[document_id] = ("", text)
            for question in paragraph.qas:
                built.ask(str(question.id), question.question.strip(), document_id)
    return built


def build_pubmedqa(source: Path) -> BuiltSet:
    """Titles that are questions -> the abstract with its conclusion, a paragraph a line (expert-labelled part)."""
    built = BuiltSet()
    rows = _check(dict[str, _Abstract], source_json(source, "data/ori_pqal.json"), source / "data/ori_pqal.json")
    for number, row in rows.items():
        built.documents[number] = ("", "\n".join([*row.CONTEXTS, row.LONG_ANSWER]))
        built.ask(f"q{number}", row.QUESTION, number)
    return built


def build_cosqa(source: Path) -> BuiltSet:
    """500 web queries (CoSQA's test part) -> Python functions with their docstrings, among 6,267."""
    path = source_file(source, "data/search/code_idx_map.txt")
    codes = _check(dict[str, int], source_json(source, "data/search/code_idx_map.txt"), path)
    path = source_file(source, "data/search/cosqa-retrieval-test-500.json")
    queries = _check(list[_CodeQuery], source_json(source, "data/search/cosqa-retrieval-test-500.json"), path)
    built = BuiltSet()
    for code, number in sorted(codes.items(), key=lambda pair: pair[1]):
        built.documents[str(number)] = ("", code)
    for query in queries:
        built.ask(query.idx, query.doc, str(query.retrieval_idx))
    return built


def _read_squad(source: Path, name: str) -> list[_Article]:
    return _check(_Squad, source_json(source, name), source / name).data


def _check(kind: type[Checked], found: object, path: Path) -> Checked:
    try:
        return pydantic.TypeAdapter(kind).validate_python(found)
    except pydantic.ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"])
        raise InvalidInput("sources", f"{path}: {place}: {first['msg']}.") from error
