"""How good a run is, by ir-measures (trec_eval's numbers)."""

from __future__ import annotations

from dataclasses import dataclass

from encoder.evaluation.datasets import Qrels
from encoder.evaluation.runs import Run, strict_scores

CUTOFF_MAX = 100  # how many documents per query the metrics look at


@dataclass(frozen=True, slots=True)
class Metrics:
    """Means over the judged queries, 0 to 1."""

    ndcg_at_10: float  # gains are the grades, as in trec_eval
    recall_at_100: float
    mrr_at_10: float


def measure(qrels: Qrels, run: Run) -> Metrics:
    """Compare a run with the judgements. A judged query that the run does not answer counts as 0."""
    import ir_measures  # here: the CLI imports this module for every command, and this takes a second

    wanted = (ir_measures.nDCG @ 10, ir_measures.R @ 100, ir_measures.RR @ 10)
    scored = {
        query_id: dict(zip((document.document_id for document in ranked), strict_scores(ranked), strict=True))
        for query_id, ranked in run.items()
        if query_id in qrels and ranked
    }
    sums = dict.fromkeys(wanted, 0.0)
    if scored:
        for found in ir_measures.iter_calc(wanted, {query_id: qrels[query_id] for query_id in scored}, scored):
            sums[found.measure] += found.value
    ndcg, recall, mrr = (sums[measure] / len(qrels) for measure in wanted)
    return Metrics(ndcg_at_10=ndcg, recall_at_100=recall, mrr_at_10=mrr)
