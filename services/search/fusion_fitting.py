"""Fits :class:`services.search.fusion.FusionWeights` on material: the numbers that rank relevant documents highest.

The loss is the cross-entropy of the relevant chunks under a softmax over the candidates' fused scores, each set
counting as much as another. Its scale is fitted beside the weights and thrown away: order does not depend on it.

A model knows the data that it was trained on, and words fare better against it elsewhere. So queries' embeddings are
blurred first, until dense search is on average as good as sparse search: neither half is expected to be the better one
on documents never seen. How far each query is led astray shows in its scores, from which the weight is to be told. What
its embedding tells beside them is read off the embedding as it is, along the few axes on which queries differ most.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from encoder.errors import InvalidInput
from encoder.evaluation.metrics import measure
from encoder.evaluation.runs import Run, rank_documents
from encoder.progress import Report
from services.search.fusion import FusionWeights, Half, align, features, fuse
from services.search.fusion_material import CANDIDATES, Material

BLUR_MAX = 2.0
_BLUR_STEPS = 6
_AXES_MAX = 32  # of queries' embeddings; more of them tell sources apart, not kinds of questions
_SLOPE_PENALTY = 0.005  # on squared slopes, of standardized features: little data says little
_SCALE_FIRST = 20.0  # about the inverse temperature that encoders are trained with
_METRIC = "ndcg@10"


@dataclass(frozen=True, slots=True)
class SetQuality:
    """nDCG@10 on one set, by its blurred embeddings."""

    dense: float
    sparse: float
    hybrid: float
    hybrid_held_out: float | None  # by weights fitted on the other sets


@dataclass(frozen=True, slots=True)
class Fitted:
    """What came of a fit."""

    weights: FusionWeights
    blur: float  # length of what was added to queries' embeddings, themselves of length 1
    sets: Mapping[str, SetQuality]


def fit(materials: Mapping[str, Material], blur: float | None, report: Report) -> Fitted:
    """Fit weights; ``blur`` of queries' embeddings unless given until dense search is no better than sparse.

    :class:`InvalidInput` where no query of any set has a relevant candidate.
    """
    if blur is None:
        blur = _find_blur(materials, report)
    sets = {name: _Searches.of(material, blur) for name, material in materials.items()}
    examples = {name: found.examples() for name, found in sets.items()}
    usable = [name for name, found in examples.items() if len(found.features)]
    if not usable:
        raise InvalidInput("dataset", "no query finds a relevant document; give sets whose queries can be answered.")
    weights = _fit([examples[name] for name in usable])
    quality = {}
    for done, (name, found) in enumerate(sets.items(), start=1):
        others = [examples[other] for other in usable if other != name]
        held_out = found.hybrid(_fit(others)) if others else None
        quality[name] = SetQuality(found.dense(), found.sparse(), found.hybrid(weights), held_out)
        report("sets", done, len(sets))
    return Fitted(weights, blur, quality)


def _find_blur(materials: Mapping[str, Material], report: Report) -> float:
    """Halve the interval in which dense search stops being the better one, on the mean of the sets."""
    low, high = 0.0, BLUR_MAX
    for step in range(_BLUR_STEPS + 1):
        # The first look is at embeddings as they are: they may be no better than words already.
        middle = (low + high) / 2 if step else 0.0
        sets = [_Searches.of(material, middle) for material in materials.values()]
        better = np.mean([found.dense() - found.sparse() for found in sets]) > 0
        report("blur", step + 1, _BLUR_STEPS + 1)
        if not step and not better:
            return 0.0
        low, high = (middle, high) if better else (low, middle)
    return (low + high) / 2


@dataclass(frozen=True, slots=True)
class _Examples:
    """Candidates of ``q`` queries with a relevant one among them, ``k`` at most."""

    cosines: torch.Tensor  # (q, k)
    bm25: torch.Tensor  # (q, k)
    present: torch.Tensor  # (q, k)
    relevant: torch.Tensor  # (q, k)
    features: torch.Tensor  # (q, 2)
    queries: torch.Tensor  # (q, d) embeddings, not blurred


@dataclass(frozen=True, slots=True)
class _Searches:
    """What both halves found for the queries of a set; candidates are chunks."""

    documents: NDArray[np.int32]
    queries: NDArray[np.float32]  # (q, d) not blurred
    halves: Sequence[tuple[Half[int], Half[int]]]
    qrels: Mapping[str, Mapping[str, int]]  # by numbers written out

    @classmethod
    def of(cls, material: Material, blur: float) -> _Searches:
        cosines = _blurred(material, blur) @ material.embeddings.astype(np.float32).T
        order = np.argsort(-cosines, axis=1, kind="stable")[:, :CANDIDATES]
        halves = []
        for row, best in enumerate(order):
            found = material.sparse_chunks[row] >= 0
            words = zip(
                material.sparse_chunks[row][found].tolist(), material.sparse_scores[row][found].tolist(), strict=True
            )
            dense = Half(dict(zip(best.tolist(), cosines[row, best].tolist(), strict=True)))
            halves.append((dense, Half(dict(words), complete=not found.all())))
        qrels: dict[str, dict[str, int]] = {}
        for query, document, grade in material.judged.tolist():
            qrels.setdefault(str(query), {})[str(document)] = grade
        return cls(material.documents, material.queries, halves, qrels)

    def dense(self) -> float:
        return self._quality([dense.scores for dense, _ in self.halves])

    def sparse(self) -> float:
        return self._quality([sparse.scores for _, sparse in self.halves])

    def hybrid(self, weights: FusionWeights) -> float:
        pairs = zip(self.halves, self.queries, strict=True)
        return self._quality([fuse(*halves, weights, query) for halves, query in pairs])

    def _quality(self, scores: Sequence[Mapping[int, float]]) -> float:
        run: Run = {}
        for row, found in enumerate(scores):
            best = sorted(found.items(), key=lambda item: (-item[1], item[0]))
            run[str(row)] = rank_documents(((str(self.documents[chunk]), score) for chunk, score in best), 10)
        return measure({name: dict(grades) for name, grades in self.qrels.items()}, run).mean(_METRIC)

    def examples(self) -> _Examples:
        rows = []
        for row, (dense, sparse) in enumerate(self.halves):
            answers = self.qrels.get(str(row), {})
            found = align(dense, sparse)
            relevant = [str(self.documents[chunk]) in answers for chunk in found]
            if any(relevant):
                rows.append((list(found.values()), relevant, features(dense, sparse), self.queries[row]))
        width = max((len(scores) for scores, *_ in rows), default=0)
        scores = torch.zeros(len(rows), width, 2, dtype=torch.float64)
        present, relevants = torch.zeros(2, len(rows), width, dtype=torch.bool)
        for place, (pairs, relevant, *_) in enumerate(rows):
            scores[place, : len(pairs)] = torch.tensor(pairs, dtype=torch.float64)
            present[place, : len(pairs)] = True
            relevants[place, : len(pairs)] = torch.tensor(relevant)
        read = torch.tensor([found for *_, found, _ in rows], dtype=torch.float64).reshape(-1, 2)
        queries = torch.tensor(np.array([query for *_, query in rows]), dtype=torch.float64)
        return _Examples(scores[..., 0], scores[..., 1], present, relevants, read, queries)


def _blurred(material: Material, blur: float) -> NDArray[np.float32]:
    """Lead queries astray towards what the set's passages speak of: random sums of their embeddings, centred."""
    embeddings = material.embeddings.astype(np.float32)
    drawn = np.random.default_rng(0).standard_normal((len(material.queries), len(embeddings)), dtype=np.float32)
    astray = drawn @ (embeddings - embeddings.mean(axis=0))
    astray /= np.maximum(np.linalg.norm(astray, axis=1, keepdims=True), 1e-12)
    queries = material.queries + blur * astray
    lengths = np.maximum(np.linalg.norm(queries, axis=1, keepdims=True), 1e-12)
    blurred: NDArray[np.float32] = (queries / lengths).astype(np.float32)
    return blurred


def _fit(sets: Sequence[_Examples]) -> FusionWeights:
    """Minimize by L-BFGS; what weights depend on is standardized for it, and the result is in its own units."""
    read = torch.cat([found.features for found in sets])
    asked = torch.cat([found.queries for found in sets])
    axes = torch.linalg.svd(asked - asked.mean(dim=0), full_matrices=False).Vh[:_AXES_MAX].T  # (d, a)
    every = torch.cat([read, asked @ axes], dim=1)  # (all q, 2 + a)
    mean, deviation = every.mean(dim=0), every.std(dim=0, correction=0).clamp_min(1e-6)
    deviation[2:] = deviation[2:].max()  # an axis that says less shall count less
    standardized = ((every - mean) / deviation).split([len(found.features) for found in sets])
    log_scale = torch.tensor(float(np.log(_SCALE_FIRST)), dtype=torch.float64, requires_grad=True)
    intercept = torch.tensor(-3.0, dtype=torch.float64, requires_grad=True)
    slopes = torch.zeros(every.shape[1], dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.LBFGS([log_scale, intercept, slopes], max_iter=100, line_search_fn="strong_wolfe")

    def step() -> torch.Tensor:
        optimizer.zero_grad()
        losses = [
            _loss(found, log_scale, intercept + values @ slopes)
            for found, values in zip(sets, standardized, strict=True)
        ]
        loss = torch.stack(losses).mean() + _SLOPE_PENALTY * slopes.square().sum()
        loss.backward()
        return loss

    optimizer.step(step)
    own = slopes.detach() / deviation
    at_zero, best_sparse, dense_gap = (
        round(float(number), 4) for number in (intercept.detach() - own @ mean, own[0], own[1])
    )
    query = tuple(round(number, 4) for number in (axes @ own[2:]).tolist())
    return FusionWeights(intercept=at_zero, best_sparse=best_sparse, dense_gap=dense_gap, query=query)


def _loss(found: _Examples, log_scale: torch.Tensor, log_weight: torch.Tensor) -> torch.Tensor:
    scores = log_scale.exp() * (found.cosines + log_weight.exp()[:, None] * found.bm25)
    everything = scores.masked_fill(~found.present, -torch.inf).logsumexp(dim=1)
    return (everything - scores.masked_fill(~found.relevant, -torch.inf).logsumexp(dim=1)).mean()
