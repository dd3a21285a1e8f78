"""Fails unless chunks embedded in one pass through their documents are found as well as chunks embedded alone.

    python tests/benchmarks/prove_context.py ONE_PASS.jsonl

Takes what `mamba-search evaluate --chunks one-pass --baseline` printed, the baseline being the runs of chunks alone. No
set may be significantly worse, and the mean difference must be above 0. The last line is the figure.
"""

import sys
from pathlib import Path
from statistics import fmean

from encoder.evaluation.results import Chunks, EvaluationMode, read_results

METRIC = "ndcg@10"


def main(path: Path) -> int:
    results = [
        result
        for result in read_results([path])
        if result.chunks is Chunks.ONE_PASS and result.mode is EvaluationMode.DENSE and METRIC in result.differences
    ]
    if not results:
        print("nothing was compared; run `mamba-search evaluate --mode dense --chunks one-pass --baseline FOLDER`")
        return 1
    worse = []
    for result in results:
        found = result.differences[METRIC]
        print(f"{result.title}: {found.mean:+.4f}, 95 % interval {found.low:+.4f} to {found.high:+.4f}")
        if found.significant and found.mean < 0:
            worse.append(result.title)
    mean = fmean(result.differences[METRIC].mean for result in results)
    passed = not worse and mean > 0
    about = f"; significantly worse: {', '.join(worse)}" if worse else ""
    verdict = "PASS" if passed else "FAIL"
    print(f"{verdict}: nDCG@10 in one pass against alone, mean of {len(results)} sets: {mean:+.4f}{about}")
    return 0 if passed else 1


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
