"""What ``mamba-search evaluate`` gives out: a line per measurement, and the files that were asked for."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TextIO

from encoder.errors import InvalidInput
from encoder.evaluation.datasets import EvaluationSet
from encoder.evaluation.metrics import CUTOFF_MAX, METRICS, QueryMetrics, measure
from encoder.evaluation.results import Comparison, EvaluationMode, Result
from encoder.evaluation.runs import Run, cut_run, read_trec_run, write_trec_run
from encoder.evaluation.significance import compare, confidence_interval
from services.evaluation.evaluation import Evaluation, System

_SHOWN = {"ndcg@10": "nDCG@10", "mrr@10": "MRR@10", "recall@10": "R@10", "recall@100": "R@100"}


@dataclass(slots=True)
class EvaluationOutput:
    """Where results go. Made by :meth:`open`; closed when the last one is there."""

    modes: Sequence[EvaluationMode]
    as_json: bool
    baseline: Path | None
    run_dir: Path | None
    per_query: TextIO | None
    candidates: TextIO | None
    _files: ExitStack
    _dense: Run | None = None  # of the set under way, for the candidates

    @classmethod
    def open(
        cls,
        sets: Sequence[EvaluationSet],
        modes: Sequence[EvaluationMode],
        *,
        as_json: bool,
        baseline: Path | None,
        run_dir: Path | None,
        per_query: Path | None,
        candidates: Path | None,
    ) -> EvaluationOutput:
        """Open the files and check the baseline before the work, which takes minutes.

        :class:`InvalidInput` where a file cannot be written or the baseline is missing.
        """
        if baseline and not baseline.exists():
            raise InvalidInput("baseline", f"baseline {baseline} is neither a TREC run nor a folder of runs.")
        if baseline and baseline.is_file() and len(sets) > 1:
            raise InvalidInput("baseline", f"baseline {baseline} is one run; give one --dataset, or a folder of runs.")
        if run_dir:
            _make_folder(run_dir)
        files = ExitStack()
        per_query_file, candidates_file = (
            _open(files, field, path) for field, path in (("per_query", per_query), ("candidates", candidates))
        )
        return cls(modes, as_json, baseline, run_dir, per_query_file, candidates_file, files)

    def add(self, found: EvaluationSet, system: System, evaluation: Evaluation) -> None:
        """Give out one measurement."""
        result = self._result(found, system, evaluation)
        name = f"{found.stem}.{evaluation.mode.value}.trec"
        if self.run_dir:
            write_trec_run(self.run_dir / name, cut_run(evaluation.run, CUTOFF_MAX), system.name.replace(" ", "-"))
        if self.per_query:
            _write_per_query(self.per_query, result, evaluation.metrics)
        if self.candidates:
            self._add_candidates(self.candidates, found, evaluation)
        line = result.model_dump_json(by_alias=True) if self.as_json else _describe(result)
        sys.stdout.write(line + "\n")
        sys.stdout.flush()

    def close(self) -> None:
        """Close the files."""
        self._files.close()

    def _result(self, found: EvaluationSet, system: System, evaluation: Evaluation) -> Result:
        metrics = evaluation.metrics
        baseline, differences = self._compare(found, evaluation)
        return Result.model_validate(
            {metric: round(metrics.mean(metric), 5) for metric in METRICS}
            | {
                "system": system.name,
                "dataset": found.name,
                "length": found.length,
                "mode": evaluation.mode,
                "chunks": system.chunks,
                "documents": len(found.documents),
                "queries": len(found.queries),
                "intervals": {metric: _rounded(*confidence_interval(metrics.values[metric])) for metric in METRICS},
                "baseline": baseline,
                "differences": differences,
                "parameters": system.parameters,
                "tokens": evaluation.tokens or None,
                "tokens_per_s": round(evaluation.tokens / evaluation.encode_s, 1) if evaluation.encode_s else None,
                "seconds": round(evaluation.seconds, 2),
            }
        )

    def _compare(self, found: EvaluationSet, evaluation: Evaluation) -> tuple[str | None, dict[str, Comparison]]:
        if not self.baseline:
            return None, {}
        path = self.baseline
        if path.is_dir():
            path = path / f"{found.stem}.{evaluation.mode.value}.trec"
            if not path.is_file():
                raise InvalidInput("baseline", f"baseline has no {path}; write it with --run-dir {self.baseline}.")
        run = cut_run(read_trec_run(path), CUTOFF_MAX)
        if not run.keys() & found.queries.keys():
            raise InvalidInput("baseline", f"baseline {path} answers no query of {found.name}; is it of another set?")
        values = measure(found.qrels, run).values
        differences = {}
        for metric in METRICS:
            difference = compare(evaluation.metrics.values[metric], values[metric])
            shown = {name: round(value, 5) for name, value in asdict(difference).items()}
            differences[metric] = Comparison(**shown, significant=difference.significant)
        return path.stem, differences

    def _add_candidates(self, file: TextIO, found: EvaluationSet, evaluation: Evaluation) -> None:
        if evaluation.mode is EvaluationMode.DENSE:
            self._dense = evaluation.run
        elif evaluation.mode is EvaluationMode.SPARSE and self._dense is not None:
            # Modes come dense before sparse.
            for query_id in found.queries:
                row = {
                    "dataset": found.name,
                    "length": found.length,
                    "query_id": query_id,
                    "query": found.queries[query_id],
                    "documents": _join(self._dense, evaluation.run, found.qrels[query_id], query_id),
                }
                file.write(json.dumps(row, ensure_ascii=False) + "\n")
            self._dense = None


def _join(dense: Run, sparse: Run, grades: Mapping[str, int], query_id: str) -> list[dict[str, object]]:
    """One row per document among the first of either run: cosine and BM25 of its best chunk, its ranks, its grade."""
    first = {document.document_id for run in (dense, sparse) for document in run[query_id][:CUTOFF_MAX]}
    rows: dict[str, dict[str, object]] = {}
    for name, run in (("dense", dense), ("sparse", sparse)):
        for rank, document in enumerate(run[query_id], start=1):
            if document.document_id not in first:
                continue
            row = rows.setdefault(
                document.document_id,
                {
                    "document_id": document.document_id,
                    "dense_score": None,
                    "dense_rank": None,
                    "sparse_score": None,
                    "sparse_rank": None,
                    "grade": grades.get(document.document_id, 0),
                },
            )
            row |= {f"{name}_score": round(document.score, 6), f"{name}_rank": rank}
    return list(rows.values())


def _write_per_query(file: TextIO, result: Result, metrics: QueryMetrics) -> None:
    for place, query_id in enumerate(metrics.query_ids):
        row = {
            "system": result.system,
            "dataset": result.dataset,
            "length": result.length,
            "mode": result.mode.value,
            "chunks": result.chunks,
            "query_id": query_id,
            **{metric: round(float(metrics.values[metric][place]), 5) for metric in METRICS},
        }
        file.write(json.dumps(row, ensure_ascii=False) + "\n")


def _describe(result: Result) -> str:
    row = result.model_dump(by_alias=True)
    low, high = result.intervals["ndcg@10"]
    shown = f"nDCG@10 {result.ndcg_at_10:.4f} [{low:.3f}, {high:.3f}]"
    for metric in METRICS[1:]:
        shown += f"  {_SHOWN[metric]} {row[metric]:.4f}"
    size = f"{result.documents:,} documents, {result.queries:,} queries, {result.seconds:.0f} s"
    line = f"{result.title:<20} {result.mode.value:<7} {shown}  ({size})"
    if result.baseline:
        found = result.differences["ndcg@10"]
        verdict = "significant" if found.significant else "not significant"
        line += (
            f"\n{'':<28} nDCG@10 {found.mean:+.4f} [{found.low:+.4f}, {found.high:+.4f}] from {result.baseline}, "
            f"p {found.p_randomization:.4f}: {verdict}"
        )
    return line


def _rounded(low: float, high: float) -> tuple[float, float]:
    return round(low, 5), round(high, 5)


def _make_folder(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InvalidInput("run_dir", f"run_dir {folder} cannot be made ({error.strerror}).") from error


def _open(files: ExitStack, field: str, path: Path | None) -> TextIO | None:
    if path is None:
        return None
    try:
        return files.enter_context(path.open("w", encoding="utf-8"))
    except OSError as error:
        raise InvalidInput(field, f"{field} {path} cannot be written ({error.strerror}).") from error
