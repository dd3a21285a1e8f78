"""Writes questions of training data as evaluation folders, for fitting what must not be fitted on what was learnt.

    python -m encoder.training.held_out_sets CONFIG --out FOLDER

Each source of a training configuration that has questions becomes a folder in BEIR layout: some questions, the passages
that answer them, and others of the source to choose among. Which questions follows from the data alone
(:func:`encoder.training.sources.held_out_place`): those that ``held_out`` of a source keeps from training come first.
"""

from __future__ import annotations

import argparse
import hashlib
import heapq
import sys
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from encoder.errors import MambaSearchError
from encoder.evaluation.building.layout import BuiltSet, write_set
from encoder.training.config import read_config
from encoder.training.source_formats import holds_documents, read_source
from encoder.training.sources import Passage, Question, SourceConfig, expand, held_out_place

QUERIES_DEFAULT, PASSAGES_DEFAULT, DOCUMENTS_DEFAULT = 100, 500, 30
QUERY_CHARS_MAX = 1500  # longer ones are summaries in disguise, and search takes no more than 512 tokens


def held_out_set(source: SourceConfig, *, queries: int, passages: int, documents: int) -> BuiltSet:
    """Take ``queries`` questions of a source, with what answers them and others up to ``passages`` in all.

    Where those are whole documents, up to ``documents`` of them. The source is read some times and never held whole;
    the same source gives the same set. No questions, an empty set.
    """
    # What training leaves out is the first that is wanted here.
    whole = source.model_copy(update={"held_out": 0.0, "limit": None})
    asked = _Lowest(queries)
    first = next(read_source(whole), None)
    if isinstance(first, Passage) and first.key is None:
        return BuiltSet()  # rows of nothing but text; there may be many
    for question in _questions(whole):
        asked.add(question.query, held_out_place(question))
    if not asked.keys:
        return BuiltSet()
    answers = {
        _id_of(positive)
        for question in _questions(whole)
        if question.query in asked.keys
        for positive in question.positives
    }
    others = _Lowest(max(0, (documents if holds_documents(source) else passages) - len(answers)))
    for passage in _passages(whole):
        name = _id_of(passage)
        if name not in answers:
            others.add(name, 0)
    return _collect(whole, asked.keys, answers | others.keys)


def _collect(source: SourceConfig, asked: set[str], wanted: set[str]) -> BuiltSet:
    built = BuiltSet()
    judged: set[tuple[str, str]] = set()
    for passage in _passages(source):
        if _id_of(passage) in wanted:
            built.documents[_id_of(passage)] = passage.title, passage.text
    for question in _questions(source):
        if question.query in asked:
            query_id = _digest(question.query)
            found = sorted({_id_of(positive) for positive in question.positives} & built.documents.keys())
            for name in found:
                if (query_id, name) not in judged:
                    judged.add((query_id, name))
                    built.ask(query_id, question.query, name)
    return built


def _questions(source: SourceConfig) -> Iterator[Question]:
    for item in read_source(source):
        if isinstance(item, Question) and item.positives and len(item.query) <= QUERY_CHARS_MAX:
            yield item


def _passages(source: SourceConfig) -> Iterator[Passage]:
    """Yield every passage that has words, those of a question's own included."""
    for item in read_source(source):
        found: Iterable[Passage | str] = [item] if isinstance(item, Passage) else [*item.positives, *item.negatives]
        for passage in found:
            if isinstance(passage, Passage) and (passage.text.strip() or passage.title.strip()):
                yield passage


def _id_of(passage: Passage | str) -> str:
    """Name a passage by its key, else by its words: the same passage of several questions is one."""
    if isinstance(passage, str):
        return _digest(passage)
    return _digest(f"{passage.title}\n{passage.text}" if passage.key is None else passage.key)


def _digest(text: str) -> str:
    return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).hexdigest()


class _Lowest:
    """The ``count`` distinct keys of the lowest places that were added; among equals their digests decide."""

    def __init__(self, count: int) -> None:
        self._count = count
        self._heap: list[tuple[float, int, str]] = []  # of negatives: the highest is the first to go
        self.keys: set[str] = set()

    def add(self, key: str, place: float) -> None:
        if key in self.keys or not self._count:
            return
        self.keys.add(key)
        heapq.heappush(self._heap, (-place, -int(_digest(key), 16), key))
        if len(self._heap) > self._count:
            self.keys.remove(heapq.heappop(self._heap)[-1])


def main(arguments: Sequence[str] | None = None) -> int:
    """Write a folder for each source with questions; 1 where the configuration or a source is at fault."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("config", type=Path, help="training configuration, or the name of one that ships")
    parser.add_argument("--set", action="append", default=[], dest="changes", metavar="KEY=VALUE")
    parser.add_argument("--out", type=Path, required=True, help="folder to write the folders into")
    parser.add_argument("--queries", type=int, default=QUERIES_DEFAULT, help="questions of a source (%(default)s)")
    parser.add_argument("--passages", type=int, default=PASSAGES_DEFAULT, help="passages of a source (%(default)s)")
    parser.add_argument("--documents", type=int, default=DOCUMENTS_DEFAULT, help="or whole documents (%(default)s)")
    given = parser.parse_args(arguments)
    try:
        # Tasks may draw from the same file under several names.
        sources: dict[tuple[object, ...], SourceConfig] = {}
        for source in expand(read_config(given.config, given.changes).sources):
            sources.setdefault((source.path, source.corpus, source.split), source)
        for source in sources.values():
            built = held_out_set(source, queries=given.queries, passages=given.passages, documents=given.documents)
            if built.queries:
                write_set(built, given.out / source.name)
                sys.stdout.write(f"{source.name}: {len(built.documents)} documents, {len(built.queries)} queries\n")
    except OSError as error:
        sys.stderr.write(f"out {given.out} cannot be written ({error.strerror}).\n")
        return 1
    except MambaSearchError as error:
        sys.stderr.write(f"{error}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
