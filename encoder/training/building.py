"""Makes a training set in the cache: reads a source once, numbers its texts, tokenizes them, notes who answers whom.

The set's folder is named after the source and a digest of all that decides its content: the files, the settings and the
tokenizer. It is written beside and moved into place when it is complete.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from encoder.errors import InvalidInput, StorageFull
from encoder.model_config import file_digest
from encoder.progress import Report
from encoder.tokenizer import Tokenizer
from encoder.training.numbering import Numbering
from encoder.training.source_formats import holds_documents, read_source, source_files
from encoder.training.sources import Item, Passage, Question, SourceConfig
from encoder.training.token_store import Numbers, RaggedWriter, token_dtype
from encoder.training.tokenizing import OrderedTexts, Text, TokenizedTexts, TokenizingPool

SET_FILE = "set.json"
_VERSION = 1
_BATCH_ROWS = 512
# What changes how often a source is drawn, or what is added to it later, but not what is in it.
_NOT_CONTENT = {"name", "weight", "mined", "path", "corpus"}


def build(source: SourceConfig, pool: TokenizingPool, cache: Path, report: Report | None) -> Path:
    """Give the folder of a source's set, made now unless it is there; errors as :func:`examples.prepare`."""
    name = f"{source.name}-{_digest(source, pool.tokenizer)}"
    folder, partial = cache / name, cache / f"{name}.partial"
    try:
        cache.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InvalidInput("cache", f"cache {cache} cannot be a folder ({error.strerror}); give another.") from error
    with _locked(cache / f"{name}.lock"):
        if (folder / SET_FILE).exists():
            return folder
        for left_over in (folder, partial):
            shutil.rmtree(left_over, ignore_errors=True)
        try:
            _Builder(source, pool, partial).run(report)
            partial.rename(folder)
        except OSError as error:
            raise StorageFull(f"{partial} cannot be written ({error.strerror}); make room in the cache.") from error
        finally:
            shutil.rmtree(partial, ignore_errors=True)
    return folder


def _digest(source: SourceConfig, tokenizer: Tokenizer) -> str:
    about = {
        "version": _VERSION,
        "tokenizer": tokenizer.fingerprint,
        "source": source.model_dump(mode="json", exclude=_NOT_CONTENT),
        "files": [[path.name, file_digest(path)] for path in source_files(source)],
    }
    return hashlib.sha256(json.dumps(about, sort_keys=True).encode()).hexdigest()[:16]


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Let one program at a time make a set; the lock goes with the program, however it ends."""
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


@dataclass(frozen=True, slots=True)
class _Pairs:
    """Numbers of queries and of passages that belong together, an array of each a batch."""

    queries: list[Numbers]
    passages: list[Numbers]

    def add(self, found: Sequence[tuple[int, int]]) -> None:
        array = np.array(found, dtype=np.int64).reshape(-1, 2)
        self.queries.append(array[:, 0])
        self.passages.append(array[:, 1])

    def keys(self, passages: int) -> Numbers:
        """Give each pair once, as ``query * passages + passage``, sorted."""
        if not self.queries:
            return np.empty(0, dtype=np.int64)
        return np.unique(np.concatenate(self.queries) * max(passages, 1) + np.concatenate(self.passages))


class _Builder:
    """One source on its way to disk."""

    def __init__(self, source: SourceConfig, pool: TokenizingPool, folder: Path) -> None:
        self._source, self._pool, self._folder = source, pool, folder
        self._queries, self._passages = Numbering(), Numbering()
        self._keys: Numbering = Numbering()
        self._key_passages: list[Numbers] = []
        self._groups = Numbering()
        self._passage_groups: list[NDArray[np.int32]] = []
        self._pairs = {"positives": _Pairs([], []), "negatives": _Pairs([], [])}

    def run(self, report: Report | None) -> None:
        dtype = token_dtype(self._pool.tokenizer.vocabulary_size)
        chunk_tokens = self._source.chunk_tokens if holds_documents(self._source) else None
        with (
            RaggedWriter(self._folder / "queries", dtype) as queries,
            RaggedWriter(self._folder / "passages", dtype) as passages,
            RaggedWriter(self._folder / "chunk_ends", np.uint32) as chunk_ends,
        ):
            self._query_texts = OrderedTexts(self._pool, None, lambda found: queries.extend(found.ids, found.lengths))

            def take(found: TokenizedTexts) -> None:
                passages.extend(found.ids, found.lengths)
                if found.chunk_ends is not None and found.chunk_counts is not None:
                    chunk_ends.extend(found.chunk_ends, found.chunk_counts)

            self._passage_texts = OrderedTexts(self._pool, chunk_tokens, take)
            self._read(report)
            self._query_texts.finish()
            self._passage_texts.finish()
        if chunk_tokens is None:
            shutil.rmtree(self._folder / "chunk_ends")
        self._write_groups()
        self._write_about()

    def _read(self, report: Report | None) -> None:
        rows = 0
        items_of = read_source(self._source)
        while items := list(islice(items_of, _BATCH_ROWS)):
            self._take(items)
            rows += len(items)
            if report:
                report("rows read", rows, 0)
        if not len(self._queries) and not len(self._passages):
            raise InvalidInput("sources", f"source {self._source.name!r} ({self._source.path}) holds no rows.")

    def _take(self, items: Sequence[Item]) -> None:
        questions = [item for item in items if isinstance(item, Question)]
        passages = [item for item in items if isinstance(item, Passage)]
        inline = [part for question in questions for part in (*question.positives, *question.negatives)]
        numbers = iter(self._number_passages([*passages, *(part for part in inline if isinstance(part, Passage))]))
        self._note_keys(passages, [next(numbers) for _ in passages])
        named = iter(self._find_keys(questions))
        query_numbers, new = self._queries.number([question.query for question in questions])
        self._query_texts.add([Text(questions[i].query, prompt=self._source.query_prompt) for i in new])
        found: dict[str, list[tuple[int, int]]] = {kind: [] for kind in self._pairs}
        for query, question in zip(query_numbers, questions, strict=True):
            for kind, parts in (("positives", question.positives), ("negatives", question.negatives)):
                found[kind] += [(query, next(numbers) if isinstance(part, Passage) else next(named)) for part in parts]
        for kind, pairs in self._pairs.items():
            pairs.add(found[kind])

    def _number_passages(self, passages: Sequence[Passage]) -> Numbers:
        numbers, new = self._passages.number([f"{part.title}\0{part.text}" for part in passages])
        prompt = self._source.passage_prompt
        self._passage_texts.add([Text(passages[i].text, passages[i].title, prompt) for i in new])
        groups, _ = self._groups.number([part.group or "" for part in passages])
        known = np.array([part.group is not None for part in passages], dtype=bool)
        self._passage_groups.append(np.where(known, groups, -1)[new].astype(np.int32))
        return numbers

    def _note_keys(self, passages: Sequence[Passage], numbers: Sequence[int]) -> None:
        keyed = [(part.key, number) for part, number in zip(passages, numbers, strict=True) if part.key is not None]
        _, new = self._keys.number([key for key, _ in keyed])
        if len(new) < len(keyed):
            twice = next(key for i, (key, _) in enumerate(keyed) if i not in set(new.tolist()))
            raise InvalidInput("sources", f"source {self._source.name!r}: the id {twice!r} occurs twice in its corpus.")
        if not keyed:
            return
        self._key_passages.append(np.array([number for _, number in keyed], dtype=np.int64))

    def _find_keys(self, questions: Sequence[Question]) -> Numbers:
        wanted = [
            (part, question.place)
            for question in questions
            for part in (*question.positives, *question.negatives)
            if isinstance(part, str)
        ]
        found = self._keys.find([key for key, _ in wanted])
        for (key, place), number in zip(wanted, found, strict=True):
            if number < 0:
                raise InvalidInput("sources", f"{place}: no document has the id {key!r}.")
        return self._passage_of_key()[found] if wanted else found

    def _passage_of_key(self) -> Numbers:
        if len(self._key_passages) > 1:
            self._key_passages = [np.concatenate(self._key_passages)]
        return self._key_passages[0]

    def _write_groups(self) -> None:
        count = len(self._passages)
        keys = {kind: pairs.keys(count) for kind, pairs in self._pairs.items()}
        # Of two judgements the better one holds.
        keys["negatives"] = np.setdiff1d(keys["negatives"], keys["positives"], assume_unique=True)
        for kind, found in keys.items():
            queries, passages = np.divmod(found, max(count, 1))
            with RaggedWriter(self._folder / kind, np.uint32) as writer:
                writer.extend(passages, np.bincount(queries, minlength=len(self._queries)))
        groups = np.concatenate(self._passage_groups) if self._passage_groups else np.empty(0, dtype=np.int32)
        np.save(self._folder / "passage_groups.npy", groups)

    def _write_about(self) -> None:
        about = {
            "name": self._source.name,
            "source": self._source.model_dump(mode="json"),
            "queries": len(self._queries),
            "passages": len(self._passages),
            "sentence_ends": self._pool.sentence_ends,
        }
        (self._folder / SET_FILE).write_text(json.dumps(about, indent=1), encoding="utf-8")
