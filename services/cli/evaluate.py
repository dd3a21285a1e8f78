"""``mamba-search evaluate``: how good search is, on sets with judgements."""

from __future__ import annotations

import asyncio
import contextlib
import json
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from services.cli.modes import Mode
from services.settings import CommandSettings

if TYPE_CHECKING:
    from encoder.evaluation.datasets import EvaluationSet
    from services.evaluation import Evaluation, Progress
    from services.results import SearchMode


def evaluate(
    dataset: Annotated[
        list[Path], typer.Option(help="Folder in BEIR layout (corpus, queries, qrels); may be repeated.")
    ],
    mode: Annotated[
        list[Mode] | None,
        typer.Option(help="How to score; may be repeated: modes of a set share its index. Default: hybrid."),
    ] = None,
    json_output: Annotated[
        bool, typer.Option("--json", help="Print one JSON object per set and mode, and nothing else.")
    ] = False,
    run_file: Annotated[
        Path | None, typer.Option(help="Write what was found to this file, as a TREC run (one set and mode only).")
    ] = None,
    data_dir: Annotated[
        Path | None, typer.Option(help="Keep each set's index in a folder of its own here, and use it again.")
    ] = None,
    model: Annotated[Path | None, typer.Option(help="Model folder. Default: the model that is shipped.")] = None,
) -> None:
    """Measure nDCG@10, recall@100 and MRR@10; a document's score is its best chunk's."""
    from encoder.errors import InvalidInput
    from encoder.evaluation.datasets import load_evaluation_set
    from services.results import SearchMode

    modes = list(dict.fromkeys(mode or [Mode.HYBRID]))
    if run_file and len(dataset) * len(modes) > 1:
        raise InvalidInput("run_file", "--run-file holds one run; give one --dataset and one --mode.")
    settings = CommandSettings.load({"model": model} if model else {})
    sets = [load_evaluation_set(folder) for folder in dataset]  # all of them first: the work takes minutes
    asyncio.run(
        _evaluate(settings, sets, [SearchMode(name.value) for name in modes], data_dir, run_file, as_json=json_output)
    )


async def _evaluate(
    settings: CommandSettings,
    sets: Sequence[EvaluationSet],
    modes: Sequence[SearchMode],
    data_dir: Path | None,
    run_file: Path | None,
    *,
    as_json: bool,
) -> None:
    from encoder.evaluation.runs import write_trec_run
    from encoder.tokenizer import Tokenizer
    from services.evaluation import evaluate_set
    from services.in_process import load_encoder, open_parts

    tokenizer = Tokenizer.load(settings.model)
    encoder = await load_encoder(settings)
    try:
        for evaluation_set in sets:
            with _folder(data_dir, evaluation_set.name) as folder, _progress(evaluation_set.name) as progress:
                async with open_parts(folder, encoder, tokenizer) as parts:
                    async for evaluation in evaluate_set(evaluation_set, modes, parts, progress):
                        _print(evaluation, as_json=as_json)
                        if run_file:
                            write_trec_run(run_file, evaluation.run, f"mamba-search-{evaluation.mode.value}")
    finally:
        await encoder.close()


@contextlib.contextmanager
def _folder(data_dir: Path | None, name: str) -> Iterator[Path]:
    if data_dir:
        yield data_dir / name
    else:
        with tempfile.TemporaryDirectory(prefix="mamba-search-evaluate-") as folder:
            yield Path(folder)


@contextlib.contextmanager
def _progress(name: str) -> Iterator[Progress]:
    """Show on standard error how far the work on a set is, where that is a terminal."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    console = Console(stderr=True)
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bars:
        tasks: dict[str, TaskID] = {}

        def show(what: str, done: int, total: int) -> None:
            if what not in tasks:
                tasks[what] = bars.add_task(f"{name}: {what}", total=total)
            bars.update(tasks[what], completed=done)

        yield show


def _print(evaluation: Evaluation, *, as_json: bool) -> None:
    metrics = evaluation.metrics
    row = {
        "dataset": evaluation.dataset,
        "mode": evaluation.mode.value,
        "documents": evaluation.documents,
        "queries": evaluation.queries,
        "ndcg@10": round(metrics.ndcg_at_10, 5),
        "recall@100": round(metrics.recall_at_100, 5),
        "mrr@10": round(metrics.mrr_at_10, 5),
        "seconds": round(evaluation.seconds, 2),
    }
    if as_json:
        sys.stdout.write(json.dumps(row, ensure_ascii=False) + "\n")
    else:
        shown = (
            f"nDCG@10 {metrics.ndcg_at_10:.4f}  recall@100 {metrics.recall_at_100:.4f}  MRR@10 {metrics.mrr_at_10:.4f}"
        )
        size = f"{evaluation.documents:,} documents, {evaluation.queries:,} queries, {evaluation.seconds:.0f} s"
        sys.stdout.write(f"{evaluation.dataset:<20} {evaluation.mode.value:<7} {shown}  ({size})\n")
    sys.stdout.flush()
