"""Times passes over texts of rising length, the contenders in turn, so that clocks and heat meet all alike."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from statistics import median

import torch

from encoder.benchmarking.contenders import Contender
from encoder.benchmarking.results import Cell, System
from encoder.benchmarking.timing import (
    OUT_OF_MEMORY,
    Batch,
    allocated_bytes,
    failure,
    random_batch,
    release,
    seconds_of,
)

Say = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Limits:
    """How long a cell of the table may take."""

    rounds: int  # passes that are timed, at most
    seconds: float  # of the timed passes together; one is always timed
    seconds_max: float  # of one pass: who would take longer stops


@dataclass(slots=True)
class _Run:
    """One contender at one length."""

    contender: Contender
    times: list[float] = field(default_factory=list)  # of passes
    alone: list[float] = field(default_factory=list)  # of single texts
    peak_bytes: int | None = None


class LengthMeasurement:
    """All contenders over all lengths. Remembers how fast each was, and who has stopped for good."""

    def __init__(
        self, contenders: Sequence[Contender], device: torch.device, vocabulary_size: int, limits: Limits, say: Say
    ) -> None:
        """Take contenders that can read; ``say`` is told how it goes."""
        self._contenders = contenders
        self._device = device
        self._vocabulary_size = vocabulary_size
        self._limits = limits
        self._say = say
        self._kept = {contender.system: contender.kept_bytes for contender in contenders}
        self._done: dict[System, list[Cell]] = {contender.system: [] for contender in contenders}
        self._stopped: dict[System, str] = {}

    def measure(self, length: int, batch_tokens: int) -> Iterator[Cell]:
        """Time passes over as many texts of ``length`` as have ``batch_tokens``, at least one; yield cells as they end.

        Each contender reads once before anything is timed: kernels are tuned, memory is laid out. In each round
        everybody reads all texts, then one text alone. The peak of memory is that of the first timed pass, less what
        was there before it, plus what the contender itself keeps: its weights, and what its passes have left behind.
        Lengths have to rise: from those before it is estimated who would take too long.
        """
        rows = max(1, batch_tokens // length)
        batch = random_batch(rows, length, self._vocabulary_size, self._device)
        running = []
        for contender in self._contenders:
            stopped = self._why_stopped(contender, length, batch.size) or self._warm_up(contender, batch)
            if stopped:
                yield self._cell(Cell(system=contender.system, length=length, rows=rows, stopped=stopped))
            else:
                running.append(_Run(contender))
        while running:
            for run in list(running):
                stopped = self._read(run, batch)
                spent = sum(run.times) + sum(run.alone)
                if stopped or len(run.times) >= self._limits.rounds or spent >= self._limits.seconds:
                    running.remove(run)
                    yield self._cell(_summary(run, batch, stopped))

    def _why_stopped(self, contender: Contender, length: int, tokens: int) -> str:
        if contender.system in self._stopped:
            return self._stopped[contender.system]
        expected = expected_seconds(self._done[contender.system], length, tokens, linear=contender.linear)
        if expected > self._limits.seconds_max:
            self._stopped[contender.system] = f"over {self._limits.seconds_max:g} s, estimated"
        return self._stopped.get(contender.system, "")

    def _warm_up(self, contender: Contender, batch: Batch) -> str:
        before = allocated_bytes(self._device)
        stopped = ""
        try:
            taken = seconds_of(lambda: _reading(contender)(batch), self._device)
            one = _alone(batch)
            if len(batch.ids) > 1:
                taken += seconds_of(lambda: _reading(contender)(one), self._device)
            self._say(f"{batch.ids.shape[1]:,} tokens, {contender.system}: first use took {taken:.1f} s")
        except Exception as error:  # noqa: BLE001 - the code of others raises what it likes, and the rest goes on
            stopped = failure(error)
        if stopped:
            self._stop(contender.system, stopped)
        self._kept[contender.system] += max(0, allocated_bytes(self._device) - before)
        return stopped

    def _read(self, run: _Run, batch: Batch) -> str:
        """Time one round; the reason where it fails."""
        read, one = _reading(run.contender), _alone(batch)
        try:
            if run.peak_bytes is None and self._device.type == "cuda":
                before = allocated_bytes(self._device)
                torch.cuda.reset_peak_memory_stats(self._device)
                run.times.append(seconds_of(lambda: read(batch), self._device))
                peak = torch.cuda.max_memory_allocated(self._device)
                run.peak_bytes = peak - before + self._kept[run.contender.system]
            else:
                run.times.append(seconds_of(lambda: read(batch), self._device))
            if len(batch.ids) > 1:
                run.alone.append(seconds_of(lambda: read(one), self._device))
        except Exception as error:  # noqa: BLE001 - as above
            stopped = failure(error)
        else:
            return ""
        self._stop(run.contender.system, stopped)
        return stopped

    def _stop(self, system: System, reason: str) -> None:
        release(self._device)
        if reason == OUT_OF_MEMORY:  # longer texts will not need less; any other failure may be this length's
            self._stopped[system] = reason

    def _cell(self, cell: Cell) -> Cell:
        self._done[cell.system].append(cell)
        said = cell.stopped or f"{cell.tokens_per_s:,.0f} tokens/s, {cell.passes} passes of {cell.seconds:.3f} s"
        self._say(f"{cell.length:,} tokens, {cell.system}: {said}")
        return cell


def expected_seconds(done: Sequence[Cell], length: int, tokens: int, *, linear: bool) -> float:
    """Estimate the seconds of a pass over ``tokens`` in texts of ``length`` from the cells before; 0 without any.

    Where cost is linear a token costs what it cost last. Otherwise it costs ``a + b l``, the line through the last two
    cells, and at most as many times more as the text is longer; that, where there is one cell only.
    """
    # The fastest pass: what else the machine does makes no pass faster.
    points = [(cell.length, cell.fastest / (cell.rows * cell.length)) for cell in done if cell.fastest is not None]
    if not points:
        return 0.0
    last_length, last_cost = points[-1]
    if linear:
        return last_cost * tokens
    most = last_cost * length / last_length
    if len(points) > 1:
        first_length, first_cost = points[-2]
        slope = max(0.0, (last_cost - first_cost) / (last_length - first_length))
        most = min(most, last_cost + slope * (length - last_length))
    return most * tokens


def _summary(run: _Run, batch: Batch, stopped: str) -> Cell:
    rows, length = batch.ids.shape
    cell = Cell(system=run.contender.system, length=length, rows=rows, stopped=stopped)
    if stopped:
        return cell
    seconds = median(run.times)
    return cell.model_copy(
        update={
            "passes": len(run.times),
            "seconds": seconds,
            "fastest": min(run.times),
            "slowest": max(run.times),
            "tokens_per_s": batch.size / seconds,
            "latency_s": median(run.alone) if run.alone else seconds,
            "peak_bytes": run.peak_bytes,
        }
    )


def _alone(batch: Batch) -> Batch:
    return Batch(batch.ids[:1], batch.tokens[:1])


def _reading(contender: Contender) -> Callable[[Batch], object]:
    assert contender.read is not None  # those without were left out
    return contender.read
