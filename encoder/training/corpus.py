"""Training text as token ids: JSONL files in, two flat arrays out. Tokenizes once, on all cores; knows no torch.

A corpus folder holds three :class:`PackedTexts` per source file:

    texts      long texts (``text``, or title and text of a document)
    queries    short ones (``query`` of a pair, or a question list's ``text``)
    positives  the text that answers the query of the same row (pairs only)

Rows with a ``doc_id`` and no ``positive`` are pairs of a query and a whole document of ``<name>.docs.jsonl.xz``.
"""

from __future__ import annotations

import argparse
import json
import lzma
import multiprocessing
from collections.abc import Iterator, Sequence
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
    opened = lzma.open(path, "rt", encoding="utf-8") if path.suffix == ".xz" else path.open(encoding="utf-8")
    with opened as lines:
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


def tokenize_file(path: Path, out: Path, tokenizer: Tokenizer) -> int:
    """Tokenize one source file into ``out/<name>.<part>.npz``; return the number of tokens."""
    name = path.name.split(".jsonl")[0]
    documents: dict[str, str] = {}
    companion = path.with_name(path.name.replace(".jsonl", ".docs.jsonl"))
    if companion.exists():
        documents = {row["doc_id"]: with_title(row.get("title", ""), row["text"]) for row in read_rows(companion)}
    packs: dict[str, list[PackedTexts]] = {part: [] for part in PARTS}
    waiting: dict[str, list[str]] = {part: [] for part in PARTS}

    def flush() -> None:
        for part, texts in waiting.items():
            if texts:
                packs[part].append(PackedTexts.pack(tokenizer.encode_batch(texts)))
                texts.clear()

    for row in read_rows(path):
        for part, text in _row_texts(path, row, documents).items():
            waiting[part].append(text)
        if max(map(len, waiting.values())) >= _BATCH_ROWS:
            flush()
    flush()
    for part, parts in packs.items():
        if parts:
            PackedTexts.join(parts).save(out / f"{name}.{path.parent.name}.{part}.npz")
    return sum(len(pack.ids) for parts in packs.values() for pack in parts)


def _tokenize_job(job: tuple[Path, Path, Path]) -> str:
    path, out, model = job
    return f"{path.name}: {tokenize_file(path, out, Tokenizer.load(model)):,} tokens"


def prepare(sources: Sequence[Path], out: Path, model: Path, processes: int) -> None:
    """Tokenize every ``.jsonl`` and ``.jsonl.xz`` file of the source folders into ``out``."""
    out.mkdir(parents=True, exist_ok=True)
    files = sorted(
        (file for source in sources for file in source.glob("*.jsonl*")), key=lambda file: -file.stat().st_size
    )
    with multiprocessing.get_context("spawn").Pool(processes) as pool:
        for line in pool.imap_unordered(_tokenize_job, [(file, out, model) for file in files]):
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
