"""A sampled batch as the rows that student and teacher read. Runs beside the loop, in other processes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch

from encoder.training.config import CropsTask, DistillTask, DocumentsTask, PairsTask, RankingTask, Task, needs_teacher
from encoder.training.documents import DocumentRows
from encoder.training.examples import TrainingSet
from encoder.training.rows import RowRules, TextRows, fold, pack, wrap
from encoder.training.sampling import (
    CropShape,
    DocumentShape,
    PairShape,
    RankingShape,
    Shape,
    TextBatch,
    TextShape,
    batches_per_epoch,
    crop_batch,
    document_batch,
    pair_batch,
    ranking_batch,
    text_batch,
)
from encoder.training.tasks import DistillRows, PairRows, RankingRows
from encoder.training.teacher_rules import TeacherInput, TeacherRules
from encoder.training.token_store import Numbers, Tokens

_SEED_OF_OTHERS = 12

Rows = PairRows | DistillRows | RankingRows | DocumentRows


class Made(NamedTuple):
    """Rows, and what reading them costs the student."""

    rows: Rows
    tokens: int  # special ones included
    places: int  # padding included


class Place(NamedTuple):
    """Which batch of a task and a set: batches of one kind are counted, not the run's steps."""

    seed: int
    number: int
    rank: int
    world_size: int


@dataclass(frozen=True, slots=True)
class Maker:
    """Makes the batches of one run."""

    rules: RowRules
    teacher: TeacherRules | None
    pack_tokens: int | None = None  # width of packed rows
    ordinary_ids: Numbers | None = None  # that may stand in place of others

    def shape(self, task: Task) -> Shape:
        """Give a task's batches the shape that leaves room for the model's special tokens."""
        end = self.rules.end is not None
        query_room, passage_room = len(self.rules.query_start) + end, len(self.rules.passage_start) + end
        match task:
            case PairsTask():
                return PairShape(
                    task.batch_size, task.query_widths, task.passage_widths, task.negatives, query_room, passage_room
                )
            case CropsTask():
                windows = TextShape("windows", task.widths, task.batch_size, passage_room)
                return CropShape(windows, task.query_width, task.crop_min, task.removed, query_room)
            case RankingTask():
                return RankingShape(
                    task.batch_size,
                    task.query_widths,
                    task.passage_widths,
                    task.candidates,
                    task.target_temperature,
                    query_room,
                    passage_room,
                )
            case DistillTask():
                room = query_room if task.texts == "queries" else passage_room
                return TextShape(task.texts, task.widths, task.batch_size, room)
            case DocumentsTask():
                assert self.rules.end is not None  # tasks are checked before a maker is made
                return DocumentShape(
                    task.batch_size,
                    task.widths,
                    self.rules.end,
                    self.rules.passage_start,
                    task.query_widths,
                    query_room,
                    task.queries,
                    task.opening_tokens,
                )

    def epoch_steps(self, training_set: TrainingSet, task: Task, processes: int) -> int:
        """Count the steps in which every example of a set is drawn."""
        return batches_per_epoch(training_set, self.shape(task), processes)

    def make(self, training_set: TrainingSet, task: Task, place: Place) -> Made:
        """Draw a batch and make its rows."""
        shape = self.shape(task)
        match task, shape:
            case PairsTask(), PairShape():
                return self._pairs(training_set, task, shape, place)
            case CropsTask(), CropShape():
                return self._crops(training_set, task, shape, place)
            case RankingTask(), RankingShape():
                return self._ranking(training_set, shape, place)
            case DistillTask(), TextShape():
                return self._distill(training_set, task, shape, place)
            case DocumentsTask(), DocumentShape():
                return self._documents(training_set, task, shape, place)
        raise TypeError(f"{type(task).__name__} has no batches")

    def _pairs(self, training_set: TrainingSet, task: PairsTask, shape: PairShape, place: Place) -> Made:
        found = pair_batch(training_set, shape, *place)
        queries, passages = (found.query_tokens, found.query_lengths), (found.passage_tokens, found.passage_lengths)
        return self._contrast(task, queries, passages, found.query_numbers, found.passage_numbers)

    def _crops(self, training_set: TrainingSet, task: CropsTask, shape: CropShape, place: Place) -> Made:
        found = crop_batch(training_set, shape, *place)
        queries, passages = (found.query_tokens, found.query_lengths), (found.passage_tokens, found.passage_lengths)
        return self._contrast(task, queries, passages, found.numbers, found.numbers)

    def _contrast(
        self,
        task: PairsTask | CropsTask,
        queries: tuple[Tokens, Numbers],
        passages: tuple[Tokens, Numbers],
        query_numbers: Numbers,
        passage_numbers: Numbers,
    ) -> Made:
        asked = needs_teacher(task)
        rows = PairRows(
            self._queries(*queries),
            self._passages(*passages),
            torch.from_numpy(query_numbers),
            torch.from_numpy(passage_numbers),
            self._ask(*queries) if asked else None,
            self._ask(*passages) if asked else None,
        )
        return _made(rows, rows.queries, rows.passages)

    def _ranking(self, training_set: TrainingSet, shape: RankingShape, place: Place) -> Made:
        found = ranking_batch(training_set, shape, *place)
        queries = self._queries(found.query_tokens, found.query_lengths)
        passages = self._passages(found.passage_tokens, found.passage_lengths)
        return _made(RankingRows(queries, passages, torch.from_numpy(found.targets)), queries, passages)

    def _distill(self, training_set: TrainingSet, task: DistillTask, shape: TextShape, place: Place) -> Made:
        found = text_batch(training_set, shape, *place)
        if task.replaced:
            found = self._with_others(found, task.replaced, place)
        is_query = task.texts == "queries"
        texts = (self._queries if is_query else self._passages)(found.tokens, found.lengths)
        teacher = self._ask(found.tokens, found.lengths)
        assert teacher is not None  # the configuration has been checked
        return _made(DistillRows(is_query, texts, teacher), texts)

    def _with_others(self, texts: TextBatch, share_max: float, place: Place) -> TextBatch:
        """Set other tokens in place of some, of each text another share up to ``share_max``."""
        assert self.ordinary_ids is not None  # where a task asks for it
        rng = np.random.default_rng([*place, _SEED_OF_OTHERS])
        shares = share_max * rng.random((len(texts.tokens), 1))
        chosen = (rng.random(texts.tokens.shape) < shares) & (np.arange(texts.tokens.shape[1]) < texts.lengths[:, None])
        others = rng.choice(self.ordinary_ids, int(chosen.sum()))
        tokens = texts.tokens.copy()
        tokens[chosen] = others
        return texts._replace(tokens=tokens)

    def _documents(self, training_set: TrainingSet, task: DocumentsTask, shape: DocumentShape, place: Place) -> Made:
        found = document_batch(training_set, shape, *place)
        piece_numbers = found.places[:, 1] // task.piece_tokens
        order = np.argsort(piece_numbers, kind="stable")
        tokens, places = found.tokens.astype(np.int32), found.places[order]
        pieces = []
        for number, start in enumerate(range(0, tokens.shape[1], task.piece_tokens)):
            inside = places[piece_numbers[order] == number] - np.array([0, start])
            piece = np.ascontiguousarray(tokens[:, start : start + task.piece_tokens])
            pieces.append(TextRows(torch.from_numpy(piece), torch.from_numpy(inside)))
        if self.pack_tokens is not None and len(pieces) == 1:
            pieces = [fold(tokens, found.lengths, places, self.pack_tokens)]
        chunk_tokens, chunk_lengths = found.chunks()
        queries = self._queries(found.query_tokens, found.query_lengths)
        asks = needs_teacher(task)
        rows = DocumentRows(
            pieces,
            torch.from_numpy(places[:, 0].copy()),
            self._ask(chunk_tokens[order], chunk_lengths[order]) if asks else None,
            queries,
            self._ask(found.query_tokens, found.query_lengths) if asks else None,
            torch.from_numpy(found.query_rows),
            torch.from_numpy(found.query_numbers),
        )
        made = _made(rows, queries)
        places_read = sum(piece.tokens.numel() for piece in pieces)
        return made._replace(tokens=made.tokens + int(found.lengths.sum()), places=made.places + places_read)

    def _queries(self, tokens: Tokens, lengths: Numbers) -> TextRows:
        return self._lay_out(tokens, lengths, self.rules.query_start)

    def _passages(self, tokens: Tokens, lengths: Numbers) -> TextRows:
        return self._lay_out(tokens, lengths, self.rules.passage_start)

    def _lay_out(self, tokens: Tokens, lengths: Numbers, start: tuple[int, ...]) -> TextRows:
        if self.pack_tokens is None:
            return wrap(tokens, lengths, start, self.rules.end)
        return pack(tokens, lengths, start, self.rules.end, self.pack_tokens)

    def _ask(self, tokens: Tokens, lengths: Numbers) -> TeacherInput | None:
        return None if self.teacher is None else self.teacher.ready(tokens, lengths)


def _made(rows: Rows, *texts: TextRows) -> Made:
    return Made(rows, sum(each.count_tokens() for each in texts), sum(each.tokens.numel() for each in texts))
