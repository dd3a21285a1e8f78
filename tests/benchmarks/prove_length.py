"""Fails unless documents are found by their best chunk at 32K tokens nearly as well as at 2K.

    python tests/benchmarks/prove_length.py LENGTH.jsonl

Takes what `mamba-search evaluate --length 2048 --length 32768` printed; one vector for a document may stand beside it,
and is told, not judged. The last line is the figure.
"""

import sys
from collections import defaultdict
from pathlib import Path

from encoder.evaluation.results import Chunks, EvaluationMode, read_results

SHORT, LONG = 2048, 32_768
RATIO_MIN = 0.97


def main(path: Path) -> int:
    found: dict[tuple[str, Chunks], dict[int, float]] = defaultdict(dict)
    for result in read_results([path]):
        if result.mode is EvaluationMode.DENSE and result.length is not None:
            found[result.dataset, result.chunks][result.length] = result.ndcg_at_10
    ratios: list[float] = []
    for (dataset, chunks), scores in found.items():
        if SHORT in scores and LONG in scores:
            ratio = scores[LONG] / scores[SHORT]
            print(f"{dataset}, {chunks}: {scores[SHORT]:.4f} at 2K, {scores[LONG]:.4f} at 32K, ratio {ratio:.3f}")
            if chunks is not Chunks.DOCUMENT:
                ratios.append(ratio)
    if not ratios:
        print("nothing to compare; run `mamba-search evaluate --mode dense --length 2048 --length 32768`")
        return 1
    passed = min(ratios) >= RATIO_MIN
    print(
        f"{'PASS' if passed else 'FAIL'}: nDCG@10 at 32K by that at 2K, best chunk: {min(ratios):.3f} (bar {RATIO_MIN})"
    )
    return 0 if passed else 1


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
