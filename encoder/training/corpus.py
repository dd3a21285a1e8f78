"""Training text as token ids: JSONL files in, two flat arrays out. Tokenizes once, on all cores; knows no torch.

A corpus folder holds, for each source file, what it has of:

    <name>.texts.npz      long texts (``text``, or title and text of a document)
    <name>.queries.npz    distinct short texts (``query`` of a pair, or a question list's ``text``)
    <name>.positives.npz  distinct texts that answer a query (``positive``, or the whole document of ``doc_id``)
    <name>.pairs.npy      ``(rows, 2)``: number of the query, number of its positive

Rows with a ``doc_id`` and no ``positive`` name a document of ``<name>.docs.jsonl.xz``.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import lzma
import multiprocessing
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from encoder.errors import InvalidInput
from encoder.model_config import DEFAULT_MODEL_FOLDER
from encoder.tokenizer import Tokenizer

_BATCH_ROWS = 2048
PARTS = ("texts", "queries", "positives")


@dataclass(frozen=True, slots=True)
class PackedTexts:
    """Token ids of many texts end to end; text i is ``ids[starts[i]:starts[i + 1]]``."""

    ids: NDArray[np.uint16]
    starts: NDArray[np.int64]  # (texts + 1,)

    def __len__(self) -> int:
        return len(self.starts) - 1

    def save(self, path: Path) -> None:
        """Write as one ``.npz``."""
        np.savez(path, ids=self.ids, starts=self.starts)

    @classmethod
    def load(cls, path: Path) -> PackedTexts:
        """Read back what :meth:`save` wrote."""
        with np.load(path) as arrays:
            return cls(ids=arrays["ids"], starts=arrays["starts"])

    @classmethod
    def pack(cls, texts: Sequence[Sequence[int]]) -> PackedTexts:
        """Join lists of token ids (each below 65,536)."""
        starts = np.zeros(len(texts) + 1, dtype=np.int64)
        np.cumsum([len(text) for text in texts], out=starts[1:])
        ids = np.fromiter((token for text in texts for token in text), dtype=np.uint16, count=int(starts[-1]))
        return cls(ids=ids, starts=starts)

    @classmethod
    def join(cls, parts: Sequence[PackedTexts]) -> PackedTexts:
        """Join packs end to end."""
        if not parts:
            return cls.pack([])
        starts = [parts[0].starts[:1]]
        shift = 0
        for part in parts:
            starts.append(part.starts[1:] + shift)
            shift += int(part.starts[-1])
        return cls(ids=np.concatenate([part.ids for part in parts]), starts=np.concatenate(starts))


def read_rows(path: Path) -> Iterator[dict[str, Any]]:
    """Read ``.jsonl`` or ``.jsonl.xz``; :class:`InvalidInput` names the file and line of a bad row."""
    opener = lzma.open if path.suffix == ".xz" else open
    with opener(path, "rt", encoding="utf-8") as lines:
        for number, line in enumerate(lines, start=1):
            try:
                row = json.loads(line)
            except ValueError as error:
                raise InvalidInput("row", f"{path}, line {number}, is not JSON: {error}.") from error
            if not isinstance(row, dict):
                raise InvalidInput("row", f"{path}, line {number}, is not a JSON object.")
            yield row


def with_title(title: str, text: str) -> str:
    """Join title and text as ingestion does for a passage."""
    return f"{title}\n{text}" if title and not text.startswith(title) else text


def _row_texts(path: Path, row: dict[str, Any], documents: dict[str, str]) -> dict[str, str]:
    """Say which of the row's texts belong to which part."""
    if "query" in row:
        if "positive" in row:
            return {"queries": row["query"], "positives": with_title(row.get("title", ""), row["positive"])}
        if row.get("doc_id") in documents:
            return {"queries": row["query"], "positives": documents[row["doc_id"]]}
        raise InvalidInput("doc_id", f"{path}: no document {row.get('doc_id')!r} for query {row['query']!r}.")
    if path.parent.name == "questions":
        return {"queries": row["text"]}
    return {"texts": with_title(row.get("title", ""), row["text"])}


class _Distinct:
    """Numbers distinct texts as they come and tokenizes them in batches."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        self._numbers: dict[bytes, int] = {}
        self._waiting: list[str] = []
        self._packs: list[PackedTexts] = []

    def number(self, text: str) -> int:
        key = hashlib.blake2b(text.encode(), digest_size=16).digest()
        if key not in self._numbers:
            self._numbers[key] = len(self._numbers)
            self._waiting.append(text)
            if len(self._waiting) >= _BATCH_ROWS:
                self._flush()
        return self._numbers[key]

    def _flush(self) -> None:
        if self._waiting:
            self._packs.append(PackedTexts.pack(self._tokenizer.encode_batch(self._waiting)))
            self._waiting.clear()

    def pack(self) -> PackedTexts:
        self._flush()
        return PackedTexts.join(self._packs)


def tokenize_file(path: Path, out: Path, tokenizer: Tokenizer) -> int:
    """Tokenize one source file into ``out``; return the number of tokens."""
    name = path.name.split(".jsonl")[0]
    documents: dict[str, str] = {}
    companion = path.with_name(path.name.replace(".jsonl", ".docs.jsonl"))
    if companion.exists():
        documents = {row["doc_id"]: with_title(row.get("title", ""), row["text"]) for row in read_rows(companion)}
    distinct = {part: _Distinct(tokenizer) for part in PARTS}
    pairs: list[tuple[int, int]] = []
    for row in read_rows(path):
        numbers = {part: distinct[part].number(text) for part, text in _row_texts(path, row, documents).items()}
        if "positives" in numbers:
            pairs.append((numbers["queries"], numbers["positives"]))
    tokens = 0
    for part in PARTS:
        pack = distinct[part].pack()
        tokens += len(pack.ids)
        if len(pack):
            pack.save(out / f"{path.parent.name}-{name}.{part}.npz")
    if pairs:
        np.save(out / f"{path.parent.name}-{name}.pairs.npy", np.array(sorted(set(pairs)), dtype=np.int64))
    return tokens


def _tokenize_job(job: tuple[Path, Path, Path]) -> str:
    path, out, model = job
    return f"{path.name}: {tokenize_file(path, out, Tokenizer.load(model)):,} tokens"


def prepare(sources: Sequence[Path], out: Path, model: Path, processes: int) -> None:
    """Tokenize every ``.jsonl`` and ``.jsonl.xz`` file of the source folders into ``out``."""
    out.mkdir(parents=True, exist_ok=True)
    files = sorted(
        (file for source in sources for file in source.glob("*.jsonl*")), key=lambda file: -file.stat().st_size
    )
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(processes, mp_context=context) as pool:
        for line in pool.map(_tokenize_job, [(file, out, model) for file in files]):
            print(line, flush=True)  # noqa: T201 - a command's output


def main() -> None:
    """Command line: ``python -m encoder.training.corpus OUT SOURCE…``."""
    parser = argparse.ArgumentParser(description=prepare.__doc__)
    parser.add_argument("out", type=Path)
    parser.add_argument("sources", type=Path, nargs="+")
    parser.add_argument("--model", type=Path, default=DEFAULT_MODEL_FOLDER, help="folder with tokenizer.json")
    parser.add_argument("--processes", type=int, default=multiprocessing.cpu_count())
    arguments = parser.parse_args()
    prepare(arguments.sources, arguments.out, arguments.model, arguments.processes)


if __name__ == "__main__":
    main()
