"""How good a run is, query by query, by ir-measures (trec_eval's numbers)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from encoder.evaluation.datasets import Qrels
from encoder.evaluation.runs import Run, strict_scores

CUTOFF_MAX = 100  # how many documents per query the metrics look at
# What is measured, as results name it; gains of nDCG are the grades, as in trec_eval.
METRICS = ("ndcg@10", "mrr@10", "recall@10", "recall@100")


@dataclass(frozen=True, slots=True)
class QueryMetrics:
    """The metrics of every judged query, 0 to 1."""

    query_ids: tuple[str, ...]  # (q,)
    values: dict[str, NDArray[np.float64]]  # by the names in METRICS: (q,)

    def mean(self, metric: str) -> float:
        """Mean over the queries."""
        return float(self.values[metric].mean())


def measure(qrels: Qrels, run: Run) -> QueryMetrics:
    """Compare a run with the judgements. A judged query that the run does not answer counts as 0."""
    import ir_measures  # here: it takes a second, and a wrong argument is refused before

    wanted = dict(
        zip((ir_measures.nDCG @ 10, ir_measures.RR @ 10, ir_measures.R @ 10, ir_measures.R @ 100), METRICS, strict=True)
    )
    scored = {
        query_id: dict(zip((document.document_id for document in ranked), strict_scores(ranked), strict=True))
        for query_id, ranked in run.items()
        if query_id in qrels and ranked
    }
    places = {query_id: place for place, query_id in enumerate(qrels)}
    values = {name: np.zeros(len(qrels)) for name in METRICS}
    if scored:
        for found in ir_measures.iter_calc(list(wanted), {name: qrels[name] for name in scored}, scored):
            values[wanted[found.measure]][places[found.query_id]] = found.value
    return QueryMetrics(tuple(qrels), values)
