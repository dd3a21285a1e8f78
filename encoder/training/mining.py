"""Hard negatives and lists of candidates: what words and embeddings find for each query of a training set.

Candidates of a query are its positives, the negatives that its source gives, and the best by BM25 and by each model's
embeddings. A negative is one that nothing speaks for: no positive, not of a positive's document, not of a positive's
very tokens, and scored clearly below the positives by the judge (Moreira et al. 2024, "NV-Retriever",
arXiv 2407.15831: of the limits they compare, a share of the positive's score serves best).
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from encoder.errors import InvalidInput
from encoder.progress import Report
from encoder.tokenizer import Tokenizer
from encoder.training.examples import MINED_FOLDER, TrainingSet
from encoder.training.lexical import LexicalRanker
from encoder.training.mining_config import MiningConfig
from encoder.training.nearest import Embedder, Neighbours, scores_of
from encoder.training.rankings import fuse
from encoder.training.token_store import Numbers, RaggedWriter
from encoder.training.units import Scores, Units


@dataclass(frozen=True, slots=True)
class Mined:
    """What came of it; means are over the queries with a positive."""

    queries: int
    candidates: float
    negatives: float
    false_negatives: float  # left out for their score
    positives_first: float  # share of queries whose best candidate by fused score is a positive


@dataclass(frozen=True, slots=True)
class _Found:
    """Candidates of one query, its positives first."""

    numbers: Numbers
    fused: Scores
    judged: Scores | None
    positives: int


def find_near(
    training_set: TrainingSet,
    embedders: Mapping[str, Embedder],
    config: MiningConfig,
    device: torch.device,
    work: Path,
    report: Report,
) -> list[Neighbours]:
    """Find what is near each query by each model: the part for a GPU. ``work`` is an empty folder.

    :class:`InvalidInput` where no query has a positive, or nothing is there to find candidates with.
    """
    if not embedders and not config.bm25:
        raise InvalidInput("bm25", "bm25 is false and there is no model to mine with; set it to true, or give a model.")
    if not len(_asked(training_set)):
        raise InvalidInput("sources", f"source {training_set.name!r} has no query with a positive; nothing to mine.")
    units = Units.of(training_set)
    return [
        Neighbours.find(embedder, training_set, units, config.candidates, device, work / name, report)
        for name, embedder in embedders.items()
    ]


def choose(
    training_set: TrainingSet, tokenizer: Tokenizer, near: Sequence[Neighbours], config: MiningConfig, report: Report
) -> Mined:
    """Find by words, too, score all candidates and write them: the part for a core.

    The last of ``near`` judges, and is fused with BM25: give the teacher, where there is one, after the model.
    """
    units = Units.of(training_set)
    judge = near[-1] if near else None
    lexical = LexicalRanker(units, tokenizer) if config.bm25 else None
    return _write(training_set, _Search(training_set, units, near, judge, lexical, config), report)


def _asked(training_set: TrainingSet) -> Numbers:
    """List the queries with a positive."""
    return np.flatnonzero((training_set.groups.positives.lengths > 0) & (training_set.queries.lengths > 0))


@dataclass(frozen=True, slots=True)
class _Search:
    """All rankers of a set."""

    training_set: TrainingSet
    units: Units
    near: Sequence[Neighbours]
    judge: Neighbours | None
    lexical: LexicalRanker | None
    config: MiningConfig

    def candidates(self, query: int) -> _Found:
        """Find a query's candidates and score them."""
        groups = self.training_set.groups
        parts = [np.asarray(groups.positives[query]), np.asarray(groups.negatives[query])]
        parts += [found.numbers[query] for found in self.near]
        words = None if self.lexical is None else self.lexical.scores(self.training_set.queries[query])
        if words is not None:
            count = min(self.config.candidates, len(words))
            best = np.argpartition(-words, count - 1)[:count]
            parts.append(best[words[best] > 0])
        joined = np.concatenate(parts).astype(np.int64)
        _, first = np.unique(joined, return_index=True)
        numbers = joined[np.sort(first)]
        numbers = numbers[self.units.counts[numbers] > 0]
        positives = int(np.isin(numbers, parts[0]).sum())
        judged = None
        if self.judge is not None:
            judged = scores_of(self.judge.queries[query], self.judge.units, self.units, numbers)
        rankings = [scores for scores in (judged, None if words is None else words[numbers]) if scores is not None]
        weights = [1.0, self.config.bm25_weight][-len(rankings) :] if words is not None else [1.0]
        fused = fuse([scores[None] for scores in rankings], self.config.fusion, weights)[0]
        return _Found(numbers, fused, judged, positives)

    def negatives(self, found: _Found) -> tuple[NDArray[np.int64], int]:
        """Choose which candidates (places) are negatives, the best first; also count those that scored too high."""
        places = np.arange(found.positives, len(found.numbers))
        places = places[~self._alike(found.numbers[: found.positives], found.numbers[places])]
        too_high = 0
        if found.judged is not None and found.positives:
            worst = float(found.judged[: found.positives].min())
            limit = min(worst * self.config.relative_max, worst - self.config.margin)
            below = found.judged[places] < limit
            too_high = int((~below).sum())
            places = places[below]
        order = np.argsort(-found.fused[places], kind="stable")[: self.config.negatives]
        return places[order], too_high

    def _alike(self, positives: Numbers, others: Numbers) -> NDArray[np.bool_]:
        """Tell which passages are of a positive's document, or have a positive's tokens (and another spelling)."""
        passages, groups = self.training_set.passages, self.training_set.passage_groups
        read = {passages[number].tobytes() for number in positives}
        alike = np.array([passages[number].tobytes() in read for number in others], dtype=bool)
        if not self.config.same_document:
            shared = groups[positives]
            alike |= np.isin(groups[others], shared[shared >= 0])
        return alike


def _write(training_set: TrainingSet, search: _Search, report: Report) -> Mined:
    partial, final = training_set.folder / f"{MINED_FOLDER}.partial", training_set.folder / MINED_FOLDER
    shutil.rmtree(partial, ignore_errors=True)
    candidates = negatives = too_high = first = 0
    with (
        RaggedWriter(partial / "candidates", np.uint32) as candidate_numbers,
        RaggedWriter(partial / "candidate_scores", np.float32) as candidate_scores,
        RaggedWriter(partial / "negatives", np.uint32) as negative_numbers,
        RaggedWriter(partial / "negative_scores", np.float32) as negative_scores,
    ):
        asked = set(_asked(training_set).tolist())
        for query in range(len(training_set.queries)):
            if query not in asked:
                for writer in (candidate_numbers, candidate_scores, negative_numbers, negative_scores):
                    writer.extend(np.empty(0), np.zeros(1, dtype=np.int64))
                continue
            found = search.candidates(query)
            chosen, high = search.negatives(found)
            _extend(candidate_numbers, found.numbers)
            _extend(candidate_scores, found.fused)
            _extend(negative_numbers, found.numbers[chosen])
            _extend(negative_scores, (found.fused if found.judged is None else found.judged)[chosen])
            candidates += len(found.numbers)
            negatives += len(chosen)
            too_high += high
            first += bool(len(found.fused)) and int(found.fused.argmax()) < found.positives
            if query % 256 == 0:
                report("candidates", query, len(training_set.queries))
    shutil.rmtree(final, ignore_errors=True)
    partial.rename(final)
    count = len(asked)
    return Mined(count, candidates / count, negatives / count, too_high / count, first / count)


def _extend(writer: RaggedWriter, row: NDArray[np.generic]) -> None:
    writer.extend(row, np.array([len(row)]))
