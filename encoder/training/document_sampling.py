"""Batches of documents that are read in one pass, an end-of-sequence token after each chunk; see ``sampling.py``."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from encoder.errors import InvalidInput
from encoder.training.bucketing import PARTS_MAX, Buckets, by_width, check_room, fit, number_parts
from encoder.training.examples import TrainingSet
from encoder.training.picking import pick
from encoder.training.token_store import Numbers, RaggedArray, Tokens, TokenStore


@dataclass(frozen=True, slots=True)
class DocumentShape:
    """What a batch of documents looks like. Widths are in tokens, special ones included."""

    batch_size: int  # documents of the widest width, and as many tokens of others
    widths: tuple[int, ...]
    end_id: int  # the end-of-sequence token
    start_ids: tuple[int, ...] = ()  # before a document
    query_widths: tuple[int, ...] = (32, 64, 256)
    query_room: int = 1
    queries: int = 1  # of each document, at most
    opening: int = 0  # tokens of a document's beginning that stand before each of its later chunks


class DocumentBatch(NamedTuple):
    """Documents as rows; a document wider than the widest width is read in parts of whole chunks, one part a row.

    Queries are about whole documents: a row that holds a part of one has none.
    """

    tokens: Tokens  # (b, l) start, chunk, end, opening and chunk, end, ... and zeros
    lengths: Numbers  # (b,) special tokens included
    places: Numbers  # (n, 2) row and column of each chunk's end token
    spans: Numbers  # (n, 3) row, first column and one past the last column of each chunk, its opening included
    documents: Numbers  # (b,) numbers of the set
    query_tokens: Tokens  # (q, lq)
    query_lengths: Numbers  # (q,)
    query_rows: Numbers  # (q,) row of the document that each is about
    query_numbers: Numbers  # (q,) of the set: equal for equal texts

    def chunks(self) -> tuple[Tokens, Numbers]:
        """Give each chunk alone, as a teacher reads it: tokens ``(n, l)``, a multiple of 16 wide, and lengths."""
        rows, starts, stops = self.spans.T
        lengths = stops - starts
        width = int(lengths.max(initial=1))
        columns = np.arange(width + -width % 16)
        read = self.tokens[rows[:, None], np.minimum(starts[:, None] + columns, self.tokens.shape[1] - 1)]
        return np.where(columns < lengths[:, None], read, 0), lengths


class _Plan(NamedTuple):
    buckets: Buckets  # of document * PARTS_MAX + part
    queries: RaggedArray  # of each document


def planned_documents(training_set: TrainingSet, shape: DocumentShape) -> Buckets:
    """Sort the documents of a set into buckets, once."""
    return _planned(training_set, shape).buckets


def document_batch(
    training_set: TrainingSet, shape: DocumentShape, seed: int, step: int, rank: int, world_size: int = 1
) -> DocumentBatch:
    """Draw documents and queries about them. :class:`InvalidInput` where the set holds no documents."""
    plan, (store, chunk_ends) = _planned(training_set, shape), _documents(training_set)
    draw = plan.buckets.draw(seed, step, rank, world_size)
    documents, parts = np.divmod(draw.examples, PARTS_MAX)
    rng = np.random.default_rng([*draw.key, 5])
    width = draw.widths[0]
    tokens = np.zeros((len(documents), width), dtype=np.int64)
    lengths = np.zeros(len(documents), dtype=np.int64)
    spans, whole = [], np.zeros(len(documents), dtype=bool)
    for row, (document, part) in enumerate(zip(documents, parts, strict=True)):
        ids, ends = store[document], chunk_ends[document].astype(np.int64)
        opening = ids[: min(shape.opening, int(ends[0]))]
        first, last = _chunks_of_part(_stream(ends, len(opening)), int(part), width - len(shape.start_ids), rng)
        whole[row] = first == 0 and last == len(ends)
        begin = int(ends[first - 1]) if first else 0
        found = _lay_out(ids[begin : int(ends[last - 1])], ends[first:last] - begin, opening, first == 0, shape)
        lengths[row] = len(found.ids)
        tokens[row, : lengths[row]] = found.ids
        spans.append(np.concatenate([np.full((len(found.spans), 1), row), found.spans], axis=1))
    joined = np.concatenate(spans)
    asked = pick(plan.queries, documents, shape.queries, rng)
    asked[~whole] = -1
    rows, _ = np.nonzero(asked >= 0)
    queries = asked[asked >= 0]
    query_width = _narrowest(training_set.queries.lengths[queries], shape)
    return DocumentBatch(
        tokens,
        lengths,
        joined[:, [0, 2]],
        joined,
        documents,
        *training_set.queries.texts(queries, query_width - shape.query_room),
        rows,
        queries,
    )


class _Row(NamedTuple):
    ids: Tokens  # (l,)
    spans: Numbers  # (chunks, 2)


def _lay_out(ids: Tokens, ends: Numbers, opening: Tokens, begins: bool, shape: DocumentShape) -> _Row:  # noqa: FBT001
    """Set the opening before each chunk, but where a document ``begins``, and the end token after it.

    ``ends`` are the chunks' in ``ids``, the last one ``len(ids)``.
    """
    starts = np.concatenate([[0], ends[:-1]])
    before = np.full(len(ends), len(opening))
    if begins:
        before[0] = 0
    ids = np.insert(ids, np.repeat(starts, before), np.tile(opening, np.count_nonzero(before)))
    lengths = ends - starts + before
    stops = len(shape.start_ids) + np.cumsum(lengths + 1) - 1
    row = np.concatenate([np.array(shape.start_ids, ids.dtype), np.insert(ids, np.cumsum(lengths), shape.end_id)])
    return _Row(row, np.stack([stops - lengths, stops], axis=1))


def _stream(ends: Numbers, opening: int) -> Numbers:
    """Count a document's tokens up to and with each chunk's end token, openings included."""
    return ends + np.arange(1, len(ends) + 1) + opening * np.arange(len(ends))


def _chunks_of_part(stream: Numbers, part: int, room: int, rng: np.random.Generator) -> tuple[int, int]:
    """Choose the chunks of a part, first and one past the last, that fit ``room`` with what stands round them."""
    if stream[-1] <= room:
        return 0, len(stream)
    # Parts begin at other chunks each time, so that no chunk is always the first.
    wanted = part * room - int(rng.integers(0, room // 2)) if part else 0
    begins = np.concatenate([[0], stream[:-1]])
    first = min(int(np.searchsorted(begins, wanted)), len(stream) - 1)
    last = int(np.searchsorted(stream, begins[first] + room, side="right"))
    return first, max(last, first + 1)


def _narrowest(lengths: Numbers, shape: DocumentShape) -> int:
    longest = np.array([lengths.max(initial=0)])
    return shape.query_widths[int(fit(longest, shape.query_widths, shape.query_room)[0])]


def _documents(training_set: TrainingSet) -> tuple[TokenStore, RaggedArray]:
    if training_set.documents is None or training_set.chunk_ends is None:
        raise InvalidInput(
            "sources", f'source {training_set.name!r} holds passages, no documents; set level = "document" for it.'
        )
    return training_set.documents, training_set.chunk_ends


def _planned(training_set: TrainingSet, shape: DocumentShape) -> _Plan:
    return training_set.planned(shape, lambda: _plan(training_set, shape))


def _plan(training_set: TrainingSet, shape: DocumentShape) -> _Plan:
    store, chunk_ends = _documents(training_set)
    check_room(shape.query_widths, shape.query_room)
    room = len(shape.start_ids)
    check_room(shape.widths, room)
    needed = room + shape.opening + _longest_chunk(chunk_ends)
    if shape.widths[0] < needed:
        raise InvalidInput(
            "widths",
            f"widths begins with {shape.widths[0]}; a chunk of source {training_set.name!r} needs {needed} columns.",
        )
    documents = np.flatnonzero(store.lengths > 0)
    if not len(documents):
        raise InvalidInput("sources", f"source {training_set.name!r} has no document with a text.")
    first_chunks: Numbers = chunk_ends.values[chunk_ends.starts[documents]].astype(np.int64)
    openings: Numbers = np.minimum(first_chunks, shape.opening)
    chunks = chunk_ends.lengths[documents]
    streams: Numbers = store.lengths[documents] + chunks + openings * (chunks - 1)
    counts = -(-streams // (shape.widths[-1] - room))
    examples = number_parts(documents, counts)
    buckets = by_width(examples, np.repeat(streams, counts), shape.widths, room, shape.batch_size)
    return _Plan(buckets, _queries_of_documents(training_set))


def _longest_chunk(chunk_ends: RaggedArray) -> int:
    """Tokens of the longest chunk, its end token included."""
    steps = np.diff(chunk_ends.values.astype(np.int64), prepend=0)
    begins = chunk_ends.starts[:-1][chunk_ends.lengths > 0]
    steps[begins] = chunk_ends.values[begins]
    return int(steps.max(initial=0)) + 1


def _queries_of_documents(training_set: TrainingSet) -> RaggedArray:
    """Turn the positives round: the queries that each document answers."""
    positives = training_set.groups.positives
    queries = np.repeat(np.arange(len(positives)), positives.lengths)
    readable = training_set.queries.lengths[queries] > 0
    queries, documents = queries[readable], positives.values[readable].astype(np.int64)
    order = np.argsort(documents, kind="stable")
    starts = np.zeros(len(training_set.passages) + 1, dtype=np.int64)
    np.cumsum(np.bincount(documents, minlength=len(training_set.passages)), out=starts[1:])
    return RaggedArray(queries[order], starts)
