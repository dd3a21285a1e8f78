"""The readers of the four formats of training data. What a row looks like is told by :class:`SourceConfig`.

BEIR: https://github.com/beir-cellar/beir/wiki/Load-your-custom-dataset. Tevatron: ``TrainDataset`` in its
src/tevatron/retriever/dataset.py. LoCo: https://huggingface.co/datasets/hazyresearch/LoCoV1-Queries.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from encoder.errors import InvalidInput
from encoder.evaluation.datasets import qrels_rows
from encoder.jsonl import SUFFIXES, Row, list_of, read_rows, string_of
from encoder.training.sources import Item, Passage, Question, SourceConfig, companion, data_files, held_out_place

_FIELD = "sources"


def read_source(source: SourceConfig) -> Iterator[Item]:
    """Stream a source; a passage comes before the questions that name it.

    :class:`InvalidInput` names file, line and field of a malformed row, an unknown key, a query without positives and
    an empty text.
    """
    count = 0
    for item in _READERS[source.format](source):
        if isinstance(item, Question) and held_out_place(item) < source.held_out:
            continue
        if isinstance(item, Question) or item.key is None:
            count += 1
            if source.limit is not None and count > source.limit:
                return
        yield item


def source_files(source: SourceConfig) -> list[Path]:
    """List every file that a source's content comes from."""
    if source.format == "beir":
        return list(_beir_files(source))
    files = data_files(source.path)
    if source.corpus is not None:
        files = [*files, *data_files(source.corpus)]
    if source.format == "jsonl":
        files = [*files, *(found for path in files if (found := companion(path)))]
    return files


def holds_documents(source: SourceConfig) -> bool:
    """Tell whether a source's passages are documents, as it says itself or as :class:`SourceConfig` has it."""
    if source.level is not None:
        return source.level == "document"
    if source.format == "jsonl":
        return companion(source.path) is not None or isinstance(next(read_source(source), None), Passage)
    return source.format == "loco"


def _read_jsonl(source: SourceConfig) -> Iterator[Item]:
    """Read our own rows; documents of the file beside come first."""
    documents = companion(source.path)
    if documents:
        for place, row in read_rows(documents, _FIELD):
            title = string_of(row, "title", place, "")
            yield Passage(_text_or_title(row, "text", title, place), title, string_of(row, "doc_id", place))
    for place, row in read_rows(source.path, _FIELD):
        if "query" in row:
            yield _jsonl_question(row, place, has_documents=documents is not None)
        elif source.texts == "queries":
            yield Question(_text(row, "text", place), (), (), place)
        elif "text" in row:
            yield Passage(_text(row, "text", place), string_of(row, "title", place, ""))
        else:
            raise InvalidInput("query", f"{place} has neither query nor text; a row needs one of them.")


def _jsonl_question(row: Row, place: str, *, has_documents: bool) -> Question:
    title, document = string_of(row, "title", place, ""), row.get("doc_id")
    if "positive" in row:
        group = None if document is None else string_of(row, "doc_id", place)
        positives: list[Passage | str] = [Passage(_text(row, "positive", place), title, group=group)]
    elif has_documents and document is not None:
        positives = [string_of(row, "doc_id", place)]
    else:
        raise InvalidInput(
            "positive",
            f"{place}: the query has no positive; give positive, or doc_id and a .docs.jsonl file beside this one.",
        )
    negatives = [_passage(found, "negatives", place) for found in list_of(row, "negatives", place)]
    return Question(_text(row, "query", place), positives, negatives, place)


def _read_tevatron(source: SourceConfig) -> Iterator[Item]:
    """Read rows that hold their passages, or name those of ``corpus``."""
    if source.corpus is not None:
        for path in data_files(source.corpus):
            for place, row in read_rows(path, _FIELD):
                title = string_of(row, "title", place, "")
                yield Passage(_text_or_title(row, "text", title, place), title, _key(row, "docid", place))
    for path in data_files(source.path):
        for place, row in read_rows(path, _FIELD):
            yield _tevatron_question(row, place, has_corpus=source.corpus is not None)


def _tevatron_question(row: Row, place: str, *, has_corpus: bool) -> Question:
    query = _text(row, "query_text" if "query_text" in row else "query", place)
    positives: list[Passage | str]
    negatives: list[Passage | str]
    if "positive_passages" in row:
        field = "positive_passages"
        positives = [_passage(found, field, place) for found in list_of(row, field, place)]
        negatives = [_passage(found, "negative_passages", place) for found in list_of(row, "negative_passages", place)]
    else:
        field = "positive_document_ids"
        if field in row and not has_corpus:
            raise InvalidInput("corpus", f"{place} names its passages by {field}; give the source a corpus file.")
        positives, negatives = _keys(row, field, place), _keys(row, "negative_document_ids", place)
    if not positives:
        raise InvalidInput(field, f"{place}: the query has no positive; {field} needs at least one.")
    return Question(query, positives, negatives, place)


def _read_loco(source: SourceConfig) -> Iterator[Item]:
    """Read whole long documents and queries; a document whose ``passage`` is null is left out, and who asks for it."""
    assert source.corpus is not None
    missing: set[str] = set()
    for path in data_files(source.corpus):
        for place, row in _of_task(path, source.split):
            key = _key(row, "pid", place)
            # Some papers of QASPER come without a text; LoCo's own evaluation drops them, too.
            if row.get("passage", "") is None:
                missing.add(key)
            else:
                yield Passage(_text(row, "passage", place), key=key)
    for path in data_files(source.path):
        for place, row in _of_task(path, source.split):
            answers = _keys(row, "answer_pids", place)
            if not answers:
                raise InvalidInput("answer_pids", f"{place}: the query has no positive; answer_pids needs one.")
            positives = [key for key in answers if key not in missing]
            if positives:
                yield Question(_text(row, "query", place), positives, (), place)


def _of_task(path: Path, task: str | None) -> Iterator[tuple[str, Row]]:
    for place, row in read_rows(path, _FIELD):
        if task is None or string_of(row, "dataset", place) == task:
            yield place, row


def _beir_files(source: SourceConfig) -> tuple[Path, Path, Path]:
    """Find corpus, queries and judgements; :class:`InvalidInput` names what is missing."""
    split = source.split or "train"
    return (
        _find(source.path, *(f"corpus{suffix}" for suffix in SUFFIXES)),
        _find(source.path, *(f"queries{suffix}" for suffix in SUFFIXES)),
        _find(source.path, f"qrels/{split}.tsv", *([] if source.split else ["qrels.tsv"])),
    )


def _read_beir(source: SourceConfig) -> Iterator[Item]:
    """Read a corpus, then the queries that the split judges. One judged without a relevant document is left out."""
    corpus, queries, qrels = _beir_files(source)
    for place, row in read_rows(corpus, _FIELD):
        title = string_of(row, "title", place, "")
        yield Passage(_text_or_title(row, "text", title, place), title, _key(row, "_id", place))
    judged: dict[str, tuple[list[str], list[str]]] = {}
    for _, query_id, document_id, grade in qrels_rows(qrels):
        judged.setdefault(query_id, ([], []))[0 if grade > 0 else 1].append(document_id)
    for place, row in read_rows(queries, _FIELD):
        positives, negatives = judged.pop(_key(row, "_id", place), ([], []))
        if positives:
            yield Question(_text(row, "text", place), positives, negatives, f"{place} (judged in {qrels})")
    if judged and source.limit is None:
        raise InvalidInput("query-id", f"{qrels} judges the query {next(iter(judged))!r}, which {queries} lacks.")


def _find(folder: Path, *names: str) -> Path:
    for name in names:
        if (folder / name).is_file():
            return folder / name
    raise InvalidInput("path", f"path {folder} has no {' or '.join(names)}; give a folder in BEIR layout.")


def _text(row: Row, key: str, place: str) -> str:
    text = string_of(row, key, place)
    if not text.strip():
        raise InvalidInput(key, f"{place}: {key} is empty; it needs words.")
    return text


def _text_or_title(row: Row, key: str, title: str, place: str) -> str:
    """Allow a document no text, as real corpora hold some: its title is read, or it is never drawn."""
    text = string_of(row, key, place, "" if title else None)
    return text if text.strip() else ""


def _passage(value: object, key: str, place: str) -> Passage:
    if isinstance(value, str):
        value = {"text": value}
    if not isinstance(value, Mapping):
        raise InvalidInput(key, f"{place}: {key} holds {json.dumps(value)[:60]}; each must be a text or an object.")
    return Passage(_text(value, "text", f"{place}, {key}"), string_of(value, "title", f"{place}, {key}", ""))


def _key(row: Row, key: str, place: str) -> str:
    value = row.get(key)
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    return string_of(row, key, place)


def _keys(row: Row, key: str, place: str) -> list[Passage | str]:
    return [_key({key: value}, key, place) for value in list_of(row, key, place)]


_READERS: dict[str, Callable[[SourceConfig], Iterator[Item]]] = {
    "beir": _read_beir,
    "jsonl": _read_jsonl,
    "loco": _read_loco,
    "tevatron": _read_tevatron,
}
