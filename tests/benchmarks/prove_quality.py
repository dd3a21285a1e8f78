"""Fails unless the quality that `mamba-search evaluate` measured clears the project's bars.

    python tests/benchmarks/prove_quality.py RESULTS.jsonl

Bars on sets that are not among the results are not checked, and named. The last line is the figure.
"""

import sys
from pathlib import Path

from encoder.evaluation.results import EvaluationMode, mean_ndcg, read_results

MODES = (EvaluationMode.DENSE, EvaluationMode.SPARSE, EvaluationMode.HYBRID)
DENSE_NDCG_MIN = {
    "squad_xquad_en": 0.94,
    "cosqa": 0.58,
    "covidqa": 0.72,
    "docs_desc": 0.85,
    "cranfield": 0.38,
    "evidence_inference": 0.97,
}
HYBRID_NDCG_MIN = {"covidqa": 0.78, "docs_desc": 0.87}
# Hybrid search against the better of its parts: what it may lose on any one set, and must gain in the mean of several.
HYBRID_LOSS_MAX = 0.01
HYBRID_GAIN_MIN = 0.02


def main(path: Path) -> int:
    results = [result for result in read_results([path]) if result.length is None]
    found = {(result.dataset, result.mode): result.ndcg_at_10 for result in results}
    sets = sorted({result.dataset for result in results})
    means = {mode: mean_ndcg(results, mode) for mode in MODES}
    dense, sparse, hybrid = (means[mode] for mode in MODES)
    if dense is None or sparse is None or hybrid is None:
        print("not all modes were measured; run `make evaluate` with MODES='dense sparse hybrid'")
        return 1
    failures = [
        name
        for mode, bars in ((EvaluationMode.DENSE, DENSE_NDCG_MIN), (EvaluationMode.HYBRID, HYBRID_NDCG_MIN))
        for name, least in bars.items()
        if not clears(f"{mode} nDCG@10 on {name}", found.get((name, mode)), least)
    ]
    for name in sets:
        parts = max(found[name, EvaluationMode.DENSE], found[name, EvaluationMode.SPARSE])
        gain = found[name, EvaluationMode.HYBRID] - parts
        if not clears(f"hybrid against the better part on {name}", gain, -HYBRID_LOSS_MAX):
            failures.append(f"hybrid on {name}")
    if len(sets) == 1:
        print("hybrid's mean against those of its parts: not judged on one set")
    elif not clears("hybrid against the better part in the mean", hybrid - max(dense, sparse), HYBRID_GAIN_MIN):
        failures.append("hybrid")
    verdict = "FAIL: " + ", ".join(failures) if failures else "PASS"
    print(f"{verdict}: mean nDCG@10 over {len(sets)} sets: dense {dense:.4f}, sparse {sparse:.4f}, hybrid {hybrid:.4f}")
    return 1 if failures else 0


def clears(what: str, score: float | None, least: float) -> bool:
    """Print a figure beside its bar; what was not measured is not judged."""
    if score is None:
        print(f"{what}: not measured (bar {least:.2f})")
        return True
    print(f"{what}: {score:.4f} (bar {least:.2f})")
    return score >= least


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
