"""What a run tells about itself: a bar on a terminal, ``log.jsonl``, TensorBoard's event files, a plot of the losses.

A resumed run goes on in the same files; what was logged after the checkpoint it resumes from is taken out.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from torch import Tensor

from encoder.training.objectives import Losses

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter

LOG_FILE = "log.jsonl"
EVENTS_FOLDER = "events"
PLOT_FILE = "loss.svg"

Row = Mapping[str, float | int]


class RunLog:
    """The log of one run, from a step on; a context."""

    def __init__(self, out: Path, step: int, steps: int, name: str) -> None:
        path = out / LOG_FILE
        kept = [row for row in read_log(path) if row["step"] <= step]
        path.write_text("".join(json.dumps(row) + "\n" for row in kept), encoding="utf-8")
        self._file = path.open("a", encoding="utf-8")
        self._events = _open_events(out / EVENTS_FOLDER, step)
        console = Console(stderr=True)
        self._shown = console.is_terminal
        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.fields[figures]}"),
        )
        self._bar = Progress(*columns, console=console, disable=not self._shown)
        self._task = self._bar.add_task(name, total=steps, completed=step, figures="")

    def __enter__(self) -> RunLog:
        self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.stop()
        self._file.close()
        if self._events is not None:
            self._events.close()

    def advance(self, step: int, steps: int) -> None:
        """Say how far the run is; ``steps`` may shrink where time runs out."""
        if self._shown:
            self._bar.update(self._task, completed=step, total=steps)

    def write(self, row: Row) -> None:
        """Log the figures of one step, ``step`` among them."""
        line = json.dumps(row)
        self._file.write(line + "\n")
        self._file.flush()
        if self._events is not None:
            for key, value in row.items():
                if key != "step":
                    self._events.add_scalar(key, value, int(row["step"]))
        if self._shown:
            figures = f"loss {row['loss']:.4f}, {row['tokens_per_s']:,} tokens/s"
            self._bar.update(self._task, completed=row["step"], figures=figures)
        else:
            sys.stderr.write(line + "\n")


class Means:
    """Means of losses since they were last taken, summed up on the device, which nothing waits for until then."""

    def __init__(self) -> None:
        self._sums: dict[str, Tensor] = {}
        self._counts: dict[str, int] = {}

    def add(self, task: str, losses: Losses) -> None:
        """Add one step's losses, and their sum as the step's ``loss``."""
        values = {f"loss/{task}_{name}": value.detach() for name, value in losses.items()}
        if not values:
            return
        values["loss"] = torch.stack(list(values.values())).sum()
        for name, value in values.items():
            self._sums[name] = self._sums[name] + value if name in self._sums else value
            self._counts[name] = self._counts.get(name, 0) + 1

    def take(self) -> dict[str, float]:
        """Give the means, and begin anew; waits for the device."""
        if not self._sums:
            return {"loss": 0.0}
        sums = torch.stack(list(self._sums.values())).tolist()
        found = {name: total / self._counts[name] for name, total in zip(self._sums, sums, strict=True)}
        self._sums.clear()
        self._counts.clear()
        return found


def read_log(path: Path) -> list[dict[str, float]]:
    """Read a run's rows; a last line that was cut short is left out."""
    rows = []
    for line in path.read_text(encoding="utf-8").splitlines() if path.exists() else ():
        try:
            rows.append(json.loads(line))
        except ValueError:
            break
    return rows


def plot_losses(out: Path) -> None:
    """Draw each loss over the steps into ``loss.svg``; nothing without matplotlib, or without rows."""
    try:
        from matplotlib.backends.backend_svg import FigureCanvasSVG
        from matplotlib.figure import Figure
    except ModuleNotFoundError:
        return
    rows = read_log(out / LOG_FILE)
    names = sorted({key for row in rows for key in row if key == "loss" or key.startswith("loss/")})
    if not names:
        return
    figure = Figure(figsize=(8, 4.5), layout="constrained")
    FigureCanvasSVG(figure)
    axes = figure.subplots()
    for name in names:
        points = [(row["step"], row[name]) for row in rows if name in row]
        axes.plot(*zip(*points, strict=True), label=name.removeprefix("loss/"), linewidth=2 if name == "loss" else 1)
    axes.set_xlabel("step")
    axes.set_ylabel("loss")
    axes.grid(alpha=0.3)
    axes.legend()
    figure.savefig(out / PLOT_FILE)


def _open_events(folder: Path, step: int) -> SummaryWriter | None:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ModuleNotFoundError:
        return None  # the package tensorboard is away; the same figures stand in log.jsonl
    return SummaryWriter(str(folder), purge_step=step + 1)
