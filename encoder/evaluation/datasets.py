"""Reads evaluation sets in BEIR layout: a corpus, queries, and which document answers which query. Knows no model.

A folder holds ``corpus.jsonl``, ``queries.jsonl`` (either may be ``.jsonl.xz``) and ``qrels.tsv`` or
``qrels/test.tsv``. Everything is checked while it is read: a set that disagrees with itself measures nothing.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from encoder.errors import InvalidInput
from encoder.jsonl import read_lines, read_rows, string_of

# Relevance judgements: query id -> document id -> grade (0: judged and not relevant).
Qrels = dict[str, dict[str, int]]


@dataclass(frozen=True, slots=True)
class EvaluationDocument:
    """One document of a corpus."""

    document_id: str
    title: str
    text: str


@dataclass(frozen=True, slots=True)
class EvaluationSet:
    """A corpus with queries and judgements that agree with each other."""

    name: str
    documents: tuple[EvaluationDocument, ...]  # those with a text
    queries: dict[str, str]  # those with at least one relevant document: query id -> text
    qrels: Qrels  # of these queries
    queries_unjudged: int  # queries left out, as nothing is known to answer them
    documents_blank: int  # documents left out, as they have neither text nor title: nothing can find them
    length: int | None = None  # tokens that its documents were lengthened to

    @property
    def stem(self) -> str:
        """Name of its files and folders."""
        return f"{self.name}-{self.length}" if self.length else self.name


def load_evaluation_set(folder: Path) -> EvaluationSet:
    """Read a folder in BEIR layout; a document without a text is read as its title.

    :class:`InvalidInput` names the file, the line and the field at fault: a missing file, a malformed line, an id
    that occurs twice, judgements of unknown ids, or a set without documents or judged queries.
    """
    if not folder.is_dir():
        raise InvalidInput("dataset", f"dataset {folder} is not a folder; give one in BEIR layout.")
    corpus = _read_corpus(_find(folder, "corpus.jsonl", "corpus.jsonl.xz"))
    queries = _read_queries(_find(folder, "queries.jsonl", "queries.jsonl.xz"))
    qrels = _read_qrels(_find(folder, "qrels.tsv", "qrels/test.tsv"), queries, corpus)
    judged = {query_id for query_id, grades in qrels.items() if any(grade > 0 for grade in grades.values())}
    documents = tuple(document for document in corpus.values() if document.text)
    if not documents:
        raise InvalidInput("dataset", f"dataset {folder} has no document with a text; there is nothing to find.")
    if not judged:
        raise InvalidInput("dataset", f"dataset {folder} has no query with a relevant document; see its qrels.")
    return EvaluationSet(
        name=folder.resolve().name,
        documents=documents,
        queries={query_id: text for query_id, text in queries.items() if query_id in judged},
        qrels={query_id: grades for query_id, grades in qrels.items() if query_id in judged},
        queries_unjudged=len(queries) - len(judged),
        documents_blank=len(corpus) - len(documents),
    )


def load_evaluation_sets(folders: Sequence[Path]) -> list[EvaluationSet]:
    """Read several folders, errors as for one; :class:`InvalidInput` also where two have the same name."""
    names = [folder.resolve().name for folder in folders]
    for name in names:
        if names.count(name) > 1:
            raise InvalidInput("dataset", f"two datasets are called {name}; results could not be told apart.")
    return [load_evaluation_set(folder) for folder in folders]


def _find(folder: Path, *names: str) -> Path:
    for name in names:
        if (folder / name).is_file():
            return folder / name
    raise InvalidInput("dataset", f"dataset {folder} has no {' or '.join(names)}; give a folder in BEIR layout.")


def _read_corpus(path: Path) -> dict[str, EvaluationDocument]:
    corpus: dict[str, EvaluationDocument] = {}
    for place, row in read_rows(path, "dataset"):
        document_id = string_of(row, "_id", place)
        title, text = string_of(row, "title", place, ""), string_of(row, "text", place)
        if document_id in corpus:
            raise InvalidInput("_id", f"{place}: _id {document_id!r} occurs twice in the corpus.")
        corpus[document_id] = EvaluationDocument(document_id, title, text if text.strip() else title.strip())
    return corpus


def _read_queries(path: Path) -> dict[str, str]:
    queries: dict[str, str] = {}
    for place, row in read_rows(path, "dataset"):
        query_id, text = string_of(row, "_id", place), string_of(row, "text", place)
        if query_id in queries:
            raise InvalidInput("_id", f"{place}: _id {query_id!r} occurs twice among the queries.")
        if not text.strip():
            raise InvalidInput("text", f"{place}: text is empty; a query needs words.")
        queries[query_id] = text
    return queries


def qrels_rows(path: Path) -> Iterator[tuple[str, str, str, int]]:
    """Yield place, query id, document id and grade of each judgement; a header is skipped.

    :class:`InvalidInput` names the line that has other than three fields, or a grade that is no whole number.
    """
    for place, line in read_lines(path, "dataset"):
        fields = line.rstrip("\r\n").split("\t")
        if fields == ["query-id", "corpus-id", "score"]:
            continue
        if len(fields) != 3:
            message = f"{place} has {len(fields)} tab-separated fields; query-id, corpus-id and score are wanted."
            raise InvalidInput("dataset", message)
        query_id, document_id, score = fields
        if not score.removeprefix("-").isdecimal():
            raise InvalidInput("score", f"{place}: score is {score!r}; it must be a whole number.")
        yield place, query_id, document_id, int(score)


def _read_qrels(path: Path, queries: dict[str, str], corpus: dict[str, EvaluationDocument]) -> Qrels:
    qrels: Qrels = {}
    for place, query_id, document_id, grade in qrels_rows(path):
        if query_id not in queries:
            raise InvalidInput("query-id", f"{place}: query-id {query_id!r} is not among the queries.")
        if document_id not in corpus:
            raise InvalidInput("corpus-id", f"{place}: corpus-id {document_id!r} is not in the corpus.")
        grades = qrels.setdefault(query_id, {})
        if grades.setdefault(document_id, grade) != grade:
            raise InvalidInput("score", f"{place}: {query_id!r} and {document_id!r} were judged before, differently.")
    return qrels
