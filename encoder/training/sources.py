"""Where training data comes from: files of four formats in, passages and questions out, one at a time. Knows no tokens.

The formats' readers are in ``source_formats.py``.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import pydantic

from encoder.chunk_cuts import TOKENS_MAX_DEFAULT
from encoder.errors import InvalidInput
from encoder.jsonl import SUFFIXES


class SourceConfig(pydantic.BaseModel):
    """One source of training data.

    ``format`` says what ``path`` is:

    - ``jsonl``: a file, or a folder of which each file becomes a source of its own. Rows are ``query`` with
      ``positive`` (and ``title``, ``negatives``, ``doc_id``); or ``query`` with the ``doc_id`` of a row of
      ``<name>.docs.jsonl`` beside it (``doc_id``, ``title``, ``text``); or only ``text`` (and ``title``).
    - ``beir``: a folder with ``corpus.jsonl``, ``queries.jsonl`` and ``qrels/<split>.tsv`` or ``qrels.tsv``; what was
      judged 0 is a negative.
    - ``tevatron``: a file or a folder of files with ``query``, ``positive_passages`` and ``negative_passages``
      (``docid``, ``title``, ``text``); or with ``query_text``, ``positive_document_ids`` and ``negative_document_ids``
      that name rows of ``corpus``.
    - ``loco``: a file or a folder of files with ``query`` and ``answer_pids``; ``corpus`` is the same for their
      documents (``pid``, ``passage``); ``split`` takes the rows of one ``dataset``.

    Files may end in ``.jsonl``, ``.jsonl.xz`` or ``.jsonl.gz``.
    """

    model_config = pydantic.ConfigDict(extra="forbid", frozen=True)

    name: str = pydantic.Field(pattern=r"^[\w.-]+$")
    format: Literal["beir", "tevatron", "loco", "jsonl"]
    path: Path
    corpus: Path | None = None
    split: str | None = None  # beir: the file of judgements, "train" unless given; loco: the task
    # This share of the questions is kept from training; encoder.training.held_out_sets makes evaluation folders of it.
    held_out: float = pydantic.Field(default=0.0, ge=0, lt=1)
    limit: int | None = pydantic.Field(default=None, ge=1)  # so many questions (texts, where there are none), the first
    # How often it is drawn, against other sources; a folder's files share it by their sizes. By size unless given.
    weight: float | None = pydantic.Field(default=None, gt=0)
    # Passages are read whole and alone; documents may also be read in one pass, in chunks. Unless given: document for
    # loco, for rows with only text and for files with a .docs.jsonl beside them.
    level: Literal["passage", "document"] | None = None
    texts: Literal["passages", "queries"] = "passages"  # what rows with only ``text`` are
    query_prompt: str = ""  # put before every query, besides the model's own prompt
    passage_prompt: str = ""
    chunk_tokens: int = pydantic.Field(default=TOKENS_MAX_DEFAULT, ge=16)  # of documents; ingestion's unless given
    mined: bool = False  # also take the negatives and candidates that mining wrote for it

    @pydantic.model_validator(mode="after")
    def _check(self) -> SourceConfig:
        if self.format == "loco" and self.corpus is None:
            raise ValueError("format loco needs corpus, the file or folder of its documents")
        if self.corpus is not None and self.format not in ("loco", "tevatron"):
            raise ValueError(f"corpus belongs to the formats loco and tevatron, not to {self.format}")
        if self.split is not None and self.format not in ("loco", "beir"):
            raise ValueError(f"split belongs to the formats beir and loco, not to {self.format}")
        return self


@dataclass(frozen=True, slots=True)
class Passage:
    """A text to be found."""

    text: str
    title: str = ""
    key: str | None = None  # by which questions may name it
    group: str | None = None  # the document it is a part of: its other parts may answer, too


@dataclass(frozen=True, slots=True)
class Question:
    """A query with what answers it and what does not; a string is the key of a passage that came before.

    A query of a list of queries alone has no positives.
    """

    query: str
    positives: Sequence[Passage | str]
    negatives: Sequence[Passage | str]
    place: str  # for messages


Item = Passage | Question


def held_out_place(question: Question) -> float:
    """Place a question in [0, 1); those below a source's ``held_out`` are not trained on.

    Its own words decide, or the key of the document that answers it: questions on a document are held out together.
    """
    first = next(iter(question.positives), None)
    words = first if isinstance(first, str) else question.query
    digest = hashlib.blake2b(words.encode("utf-8", "surrogatepass"), digest_size=8, person=b"held out").digest()
    return int.from_bytes(digest, "big") / 2**64


def expand(sources: Sequence[SourceConfig]) -> list[SourceConfig]:
    """Turn each folder of JSONL files into one source a file; two of one name are an :class:`InvalidInput`."""
    found = [part for source in sources for part in parts_of(source)]
    for name, count in Counter(part.name for part in found).items():
        if count > 1:
            raise InvalidInput("sources", f"sources holds the name {name!r} {count} times; give each one of its own.")
    return found


def parts_of(source: SourceConfig) -> list[SourceConfig]:
    """Give the files of a folder of JSONL as sources, named after both; another source as it is."""
    if source.format != "jsonl" or not source.path.is_dir():
        return [source]
    return [
        source.model_copy(update={"path": path, "name": f"{source.name}-{path.name.split('.jsonl')[0]}"})
        for path in data_files(source.path)
    ]


def data_files(path: Path) -> list[Path]:
    """List a file itself, or a folder's JSONL files but ``.docs.jsonl``; :class:`InvalidInput` where there is none."""
    if path.is_file():
        return [path]
    if not path.is_dir():
        raise InvalidInput("path", f"path {path} does not exist; give a file or a folder of training data.")
    files = [file for file in sorted(path.iterdir()) if file.name.endswith(SUFFIXES) and ".docs.jsonl" not in file.name]
    if not files:
        raise InvalidInput("path", f"path {path} holds no file {', '.join('*' + suffix for suffix in SUFFIXES)}.")
    return files


def companion(path: Path) -> Path | None:
    """Find the ``.docs.jsonl`` file beside a JSONL file."""
    stem = path.name.split(".jsonl")[0]
    candidates = (path.with_name(f"{stem}.docs{suffix}") for suffix in SUFFIXES)
    return next((candidate for candidate in candidates if candidate.is_file()), None)
