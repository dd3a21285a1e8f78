"""``mamba-search bench encoder``: how fast the encoder reads here, beside others and the machine's ceilings."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from encoder.benchmarking.results import Part, Row, System
from encoder.errors import InvalidInput, MambaSearchError

if TYPE_CHECKING:
    from encoder.benchmarking.running import Plan

BEGIN, END = "<!-- encoder-speed -->", "<!-- /encoder-speed -->"
_LENGTH_MAX = 1 << 24


def encoder(
    model: Annotated[
        str,
        typer.Option(help="Named size (weights at random), `default`, `tiny`, or a model folder."),
    ] = "mamba2-130m",
    device: Annotated[str, typer.Option(help="auto (a GPU where torch sees one), cpu or cuda.")] = "auto",
    length: Annotated[
        list[int] | None, typer.Option(help="Tokens of a text; may be repeated. Default: from 128 to 262,144.")
    ] = None,
    batch_tokens: Annotated[
        int | None,
        typer.Option(min=1, help="Tokens of a pass. Default: 131,072 on a GPU, 4,096 on a CPU."),
    ] = None,
    contender: Annotated[
        list[System] | None, typer.Option(help="Measure these only; may be repeated. Default: all.")
    ] = None,
    part: Annotated[list[Part] | None, typer.Option(help="Measure this only; may be repeated. Default: all.")] = None,
    check: Annotated[
        bool, typer.Option("--check", help="Also compare our embeddings with those of plain torch in float32.")
    ] = False,
    rounds: Annotated[int, typer.Option(min=1, help="Timed passes of a cell, at most.")] = 9,
    seconds: Annotated[
        float, typer.Option(min=0.0, help="Seconds of a cell's timed passes together; one is always timed.")
    ] = 3.0,
    seconds_max: Annotated[
        float, typer.Option(min=0.0, help="Seconds of one pass; who would take longer stops at that length.")
    ] = 10.0,
    calls: Annotated[int, typer.Option(min=1, help="Calls for queries.")] = 300,
    texts: Annotated[int, typer.Option(min=1, help="Texts of about 250 tokens to encode whole.")] = 4096,
    text_model: Annotated[str, typer.Option(help="Model that encodes whole texts; named as --model is.")] = "default",
    sentence_transformers: Annotated[
        Path | None, typer.Option(help="sentence-transformers folder whose encode stands beside ours.")
    ] = None,
    results: Annotated[Path | None, typer.Option(help="Write every figure, as JSON lines, when it is there.")] = None,
    plot: Annotated[Path | None, typer.Option(help="Draw speed by length into this SVG file.")] = None,
    report: Annotated[
        Path | None, typer.Option(help="Renew the tables between the marks <!-- encoder-speed --> of this page.")
    ] = None,
    show: Annotated[
        list[Path] | None,
        typer.Option(help="Measure nothing: show what earlier runs wrote with --results; may be repeated."),
    ] = None,
) -> None:
    """Measure tokens/s, latency and peak memory by length of text, and print them as tables in Markdown."""
    if show and results:
        raise InvalidInput("show", "--show and --results exclude each other; give one of them.")
    lengths = _check_lengths(length)
    _check_outputs(plot, report)
    if show:
        from encoder.benchmarking.results import read_results

        rows = [row for path in show for row in read_results(path)]
    else:
        try:
            from encoder.benchmarking.measuring import Limits
            from encoder.benchmarking.running import LENGTHS, Plan, choose_device, default_systems
        except ModuleNotFoundError as error:
            raise MambaSearchError(f"The package {error.name} is missing; install mamba-search[encoder].") from error
        chosen = choose_device(device)
        plan = Plan(
            model=model,
            text_model=text_model,
            device=chosen,
            lengths=lengths or LENGTHS,
            batch_tokens=batch_tokens,
            systems=list(dict.fromkeys(contender or default_systems(chosen))),
            parts=list(dict.fromkeys(part or Part)),
            check=check,
            limits=Limits(rounds, seconds, seconds_max),
            calls=calls,
            texts=texts,
            sentence_transformers=sentence_transformers,
        )
        rows = _measure(plan, results)
    _give_out(rows, plot, report)


def _check_lengths(lengths: list[int] | None) -> list[int]:
    for length in lengths or []:
        if not 1 <= length <= _LENGTH_MAX:
            raise InvalidInput("length", f"length is {length} tokens; 1 to {_LENGTH_MAX:,} are allowed.")
    return list(dict.fromkeys(lengths or []))


def _check_outputs(plot: Path | None, report: Path | None) -> None:
    """Refuse what could not be written at the end, before work that takes minutes."""
    if plot:
        from encoder.benchmarking.plot import require_matplotlib

        require_matplotlib()
        if not plot.parent.is_dir():
            raise InvalidInput("plot", f"plot {plot} cannot be written; {plot.parent} is not a folder.")
    if report:
        _renewed(report, "")


def _measure(plan: Plan, results: Path | None) -> list[Row]:
    from encoder.benchmarking.running import run

    rows: list[Row] = []
    try:
        file = results.open("w", encoding="utf-8") if results else None
    except OSError as error:
        raise InvalidInput("results", f"results {results} cannot be written ({error.strerror}).") from error

    def emit(row: Row) -> None:
        rows.append(row)
        if file:
            file.write(row.model_dump_json() + "\n")
            file.flush()  # a run that is killed keeps what it has

    try:
        run(plan, emit, _say)
    finally:
        if file:
            file.close()
    return rows


def _say(line: str) -> None:
    sys.stderr.write(line + "\n")
    sys.stderr.flush()


def _give_out(rows: list[Row], plot: Path | None, report: Path | None) -> None:
    from encoder.benchmarking.table import render

    tables = render(rows)
    sys.stdout.write(tables + "\n")
    if plot:
        from encoder.benchmarking.plot import draw

        draw(rows, plot)
    if report:
        shown = f"\n\n![tokens per second by length of text]({_relative(plot, report)})" if plot else ""
        report.write_text(_renewed(report, tables + shown), encoding="utf-8")


def _renewed(report: Path, tables: str) -> str:
    """Put tables between the page's marks; :class:`InvalidInput` where it has none, or cannot be read."""
    from encoder.evaluation.report import insert_between

    try:
        return insert_between(report.read_text(encoding="utf-8"), BEGIN, END, tables)
    except OSError as error:
        raise InvalidInput("report", f"report {report} cannot be read ({error.strerror}).") from error
    except ValueError as error:
        raise InvalidInput("report", f"report {report}: {error}; they say where the tables go.") from error


def _relative(plot: Path, report: Path) -> str:
    return Path(os.path.relpath(plot.resolve(), report.resolve().parent)).as_posix()
