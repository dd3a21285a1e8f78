"""The whole benchmark, in one process and one run: what is measured, in which order. Knows no files."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from encoder.benchmarking.ceilings import measure_ceilings
from encoder.benchmarking.checking import check
from encoder.benchmarking.contenders import Contender, make_contenders
from encoder.benchmarking.encode_loops import measure_texts
from encoder.benchmarking.measuring import LengthMeasurement, Limits, Say
from encoder.benchmarking.models import ModelSource, open_source
from encoder.benchmarking.queries import measure_queries
from encoder.benchmarking.results import OURS, Machine, Made, Part, Row, System
from encoder.benchmarking.timing import failure
from encoder.errors import InvalidInput
from encoder.text_encoder import preferred_dtype

LENGTHS = (128, 512, 2048, 8192, 32_768, 131_072, 262_144)
_BATCH_TOKENS = {"cuda": 131_072, "cpu": 4096}
Emit = Callable[[Row], None]


@dataclass(frozen=True, slots=True)
class Plan:
    """What is to be measured."""

    model: str
    text_model: str  # that encodes whole texts
    device: torch.device
    lengths: Sequence[int]
    batch_tokens: int | None  # of a pass
    systems: Sequence[System]
    parts: Sequence[Part]
    check: bool
    limits: Limits
    calls: int  # for queries
    texts: int
    sentence_transformers: Path | None


def default_systems(device: torch.device) -> list[System]:
    """List everybody who has to do with a device; on a GPU our kernels for CPUs are nobody's."""
    return [system for system in System if system is not System.CPU or device.type == "cpu"]


def choose_device(name: str) -> torch.device:
    """Read ``auto`` (a GPU where torch sees one), ``cpu`` or ``cuda``; :class:`InvalidInput` where it is not there."""
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError:
        device = torch.device("meta")
    if device.type not in ("cpu", "cuda"):
        raise InvalidInput("device", f"device is {name!r}; give auto, cpu or cuda.")
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise InvalidInput("device", f"device is {name}, and torch sees no such CUDA device here.")
    return device


def run(plan: Plan, emit: Emit, say: Say) -> None:
    """Measure everything; each figure is given to ``emit`` as soon as it is there, ``say`` hears how it goes.

    :class:`InvalidInput` where a model is unknown, :class:`~encoder.errors.CheckpointError` where a folder is none.
    """
    source = open_source(plan.model)
    text_source = open_source(plan.text_model) if Part.TEXTS in plan.parts else source
    device, dtype = plan.device, preferred_dtype(plan.device)
    batch_tokens = plan.batch_tokens or _BATCH_TOKENS[device.type]
    emit(_machine(source, device, dtype, batch_tokens))
    # First, as it reads a folder that may be none.
    if Part.TEXTS in plan.parts:
        for texts in measure_texts(
            text_source,
            plan.sentence_transformers,
            device,
            dtype,
            count=plan.texts,
            batch_tokens=batch_tokens,
            limits=plan.limits,
            say=say,
        ):
            emit(texts)
    if Part.CEILINGS in plan.parts:
        emit(measure_ceilings(source.config, device, dtype, batch_tokens))
        say("ceilings are measured")
    if plan.check or {Part.LENGTHS, Part.QUERIES} & set(plan.parts):
        _compete(plan, source, dtype, batch_tokens, emit, say)


def _compete(plan: Plan, source: ModelSource, dtype: torch.dtype, batch_tokens: int, emit: Emit, say: Say) -> None:
    lengths = sorted(set(plan.lengths))
    systems = plan.systems if Part.LENGTHS in plan.parts else [each for each in plan.systems if each in OURS]
    contenders = []
    for contender in make_contenders(systems, source, plan.device, dtype, lengths[-1]):
        emit(_made(contender))
        say(f"{contender.system}: {contender.skipped or contender.about}, made in {contender.seconds:.1f} s")
        if contender.read is not None:
            contenders.append(contender)
    ours = [contender for contender in contenders if contender.encoder is not None]
    if plan.check:
        for agreement in check(ours, source, plan.device, lengths):
            emit(agreement)
            least = agreement.failed or f"{agreement.cosine_min:.6f}"
            say(f"{agreement.length:,} tokens, {agreement.system}: least cosine with float32 {least}")
    if Part.QUERIES in plan.parts:
        for contender in ours:
            _time_queries(contender, plan.calls, emit, say)
    if Part.LENGTHS in plan.parts:
        measurement = LengthMeasurement(contenders, plan.device, source.config.vocabulary_size, plan.limits, say)
        for length in lengths:
            for cell in measurement.measure(length, batch_tokens):
                emit(cell)


def _time_queries(contender: Contender, calls: int, emit: Emit, say: Say) -> None:
    try:
        for latency in measure_queries(contender, calls):
            emit(latency)
            figures = f"{latency.median_ms:.2f} ms, p99 {latency.p99_ms:.2f} ms"
            say(f"{contender.system}, {latency.queries} at once: {figures}")
    except Exception as error:  # noqa: BLE001 - whoever fails here has no figure, and the others go on
        say(f"{contender.system}, queries: {failure(error)}")


def _machine(source: ModelSource, device: torch.device, dtype: torch.dtype, batch_tokens: int) -> Machine:
    on_gpu = device.type == "cuda"
    return Machine(
        device=torch.cuda.get_device_name(device) if on_gpu else f"CPU, {torch.get_num_threads()} threads",
        cuda=on_gpu,
        torch=torch.__version__,
        dtype=str(dtype).removeprefix("torch."),
        model=source.config.name if source.trained else f"{source.config.name}, weights at random",
        parameters=source.parameters,
        batch_tokens=batch_tokens,
    )


def _made(contender: Contender) -> Made:
    return Made(
        system=contender.system,
        about=contender.about,
        parameters=contender.parameters,
        skipped=contender.skipped,
    )
