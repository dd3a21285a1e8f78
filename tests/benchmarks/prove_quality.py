"""Fails unless the quality that `mamba-search evaluate` measured clears the project's bars.

    python tests/benchmarks/prove_quality.py RESULTS.jsonl

Bars on sets that are not among the results are not checked, and named. The last line is the figure.
"""

import sys
from pathlib import Path

from encoder.evaluation.results import EvaluationMode, mean_ndcg, read_results

MODES = (EvaluationMode.DENSE, EvaluationMode.SPARSE, EvaluationMode.HYBRID)
DENSE_NDCG_MIN = {"squad_xquad_en": 0.88, "docs_desc": 0.80, "cosqa": 0.45}


def main(path: Path) -> int:
    results = [result for result in read_results([path]) if result.length is None]
    found = {(result.dataset, result.mode): result.ndcg_at_10 for result in results}
    failures = []
    for name, least in DENSE_NDCG_MIN.items():
        score = found.get((name, "dense"))
        if score is None:
            print(f"dense nDCG@10 on {name}: not measured (bar {least:.2f})")
            continue
        print(f"dense nDCG@10 on {name}: {score:.4f} (bar {least:.2f})")
        if score < least:
            failures.append(name)
    means = {mode: mean_ndcg(results, mode) for mode in MODES}
    dense, sparse, hybrid = (means[mode] for mode in MODES)
    if dense is None or sparse is None or hybrid is None:
        print("not all modes were measured; run `make evaluate` with MODES='dense sparse hybrid'")
        return 1
    sets = len({result.dataset for result in results})
    if sets == 1:
        print("hybrid's mean against those of its parts: not judged on one set")
    elif hybrid <= max(dense, sparse):
        failures.append("hybrid")
    verdict = "FAIL: " + ", ".join(failures) if failures else "PASS"
    print(f"{verdict}: mean nDCG@10 over {sets} sets: dense {dense:.4f}, sparse {sparse:.4f}, hybrid {hybrid:.4f}")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
