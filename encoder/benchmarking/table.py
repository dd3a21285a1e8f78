"""What was measured, as tables in Markdown, one under the other; parts that were not measured are left out."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import partial

from encoder.benchmarking.results import (
    OURS,
    TITLES,
    Agreement,
    Ceilings,
    Cell,
    Latency,
    Machine,
    Made,
    Row,
    System,
    Texts,
    lengths_of,
    of_kind,
)

_UNMEASURED = "–"


def render(rows: Sequence[Row]) -> str:
    """Render all tables."""
    cells, ceilings = of_kind(rows, Cell), of_kind(rows, Ceilings)
    made = list({each.system: each for each in of_kind(rows, Made)}.values())  # of several runs, the last
    parts = [_machine(of_kind(rows, Machine))]
    if cells:
        parts.append(_by_length("tokens/s, by tokens of a text", cells, made, _speed))
        parts.append(_by_length("ms for one text alone", cells, [], lambda cell: _ms(cell.latency_s)))
    if any(cell.peak_bytes for cell in cells):
        parts.append(_by_length("peak memory in MiB", cells, [], lambda cell: _mebibytes(cell.peak_bytes)))
    for found in ceilings[-1:]:
        parts += [_rates(found), _ceiling(found)]
        ours = [cell for cell in cells if cell.system in OURS and cell.tokens_per_s]
        if ours:
            title = "share of the ceiling (of the roofline)"
            parts.append(_by_length(title, ours, [], partial(_share, found)))
    parts += [
        _queries(of_kind(rows, Latency)),
        _texts(of_kind(rows, Texts)),
        _agreement(of_kind(rows, Agreement)),
        _contenders(made),
        "" if cells else _skipped(made),
    ]
    return "\n\n".join(part for part in parts if part)


def _machine(found: Sequence[Machine]) -> str:
    lines = [
        f"{each.device}, torch {each.torch}, {each.dtype}; {each.model}, {each.parameters / 1e6:,.0f}M parameters; "
        f"{each.batch_tokens:,} tokens in a pass, or one longer text."
        for each in found[-1:]
    ]
    return "".join(lines)


def _by_length(title: str, cells: Sequence[Cell], made: Sequence[Made], show: Callable[[Cell], str]) -> str:
    lengths = lengths_of(cells)
    at = {(cell.system, cell.length): cell for cell in cells}
    skipped = {each.system: each.skipped for each in made if each.skipped}
    lines = []
    for system in System:
        if system in skipped:
            empty = [""] * (len(lengths) - 1)
            lines.append([TITLES[system], f"skipped: {_safe(skipped[system])}", *empty])
        elif any(cell.system == system for cell in cells):
            found = [at.get((system, length)) for length in lengths]
            lines.append([TITLES[system], *(_UNMEASURED if cell is None else show(cell) for cell in found)])
    return _table([title, *(f"{length:,}" for length in lengths)], lines)


def _speed(cell: Cell) -> str:
    return f"{cell.tokens_per_s:,.0f}" if cell.tokens_per_s else _safe(cell.stopped)


def _ms(seconds: float | None) -> str:
    return _UNMEASURED if seconds is None else f"{1000 * seconds:,.1f}"


def _mebibytes(size: int | None) -> str:
    return _UNMEASURED if size is None else f"{size / 2**20:,.0f}"


def _share(ceilings: Ceilings, cell: Cell) -> str:
    costs = ceilings.seconds_per_token(cell.system)
    if costs is None or cell.tokens_per_s is None:
        return _UNMEASURED
    return f"{sum(costs) * cell.tokens_per_s:.0%} ({max(costs) * cell.tokens_per_s:.0%})"


def _rates(found: Ceilings) -> str:
    lines = [["copy, read and write", f"{found.copy_bytes_per_s / 1e9:,.0f} GB/s", ""]]
    for rate in found.rates:
        name = f"{rate.what}: ({rate.m:,}, {rate.k:,}) by ({rate.k:,}, {rate.n:,})"
        eight = _teraflops(rate.fp8_flops_per_s) if rate.fp8_flops_per_s else _safe(rate.fp8_missing)
        lines.append([name, _teraflops(rate.flops_per_s), eight])
    return _table(["the device", "measured", "FP8"], lines)


def _teraflops(flops: float | None) -> str:
    if flops is None:
        return _UNMEASURED
    rate = flops / 1e12
    return f"{rate:,.0f} Tflop/s" if rate >= 100 else f"{rate:.3g} Tflop/s"


def _ceiling(found: Ceilings) -> str:
    def column(system: System, size: int) -> list[str]:
        costs = found.seconds_per_token(system)
        if costs is None:
            return [_UNMEASURED] * 4
        products, traffic = costs
        return [
            f"{1e9 * products:,.1f} ns for {found.flops_per_token / 1e6:,.4g} Mflop",
            f"{1e9 * traffic:,.1f} ns for {size / 1e3:,.4g} kB",
            f"{1 / (products + traffic):,.0f} tokens/s",
            f"{1 / max(products, traffic):,.0f} tokens/s",
        ]

    names = ["products with weights", "activations read and written once", "ceiling: both", "roofline: the longer"]
    sixteen, eight = column(System.FUSED, found.bytes_per_token), column(System.FUSED_FP8, found.bytes_per_token_fp8)
    lines = [list(line) for line in zip(names, sixteen, eight, strict=True)]
    return _table(["what a token takes at least", "16 bits", "FP8"], lines)


def _queries(found: Sequence[Latency]) -> str:
    lines = [
        [
            TITLES[each.system],
            f"{each.queries} of {each.tokens} tokens",
            f"{each.median_ms:.2f} ms",
            f"{each.p99_ms:.2f} ms",
        ]
        for each in found
    ]
    return _table(["queries", "at once", "median", "p99"], lines) if lines else ""


def _texts(found: Sequence[Texts]) -> str:
    lines = []
    for each in found:
        if each.skipped:
            lines.append([each.model, f"skipped: {_safe(each.skipped)}", "", "", ""])
            continue
        lines.append(
            [
                f"{each.model}, batches of {each.batch_size or 0:,}",
                f"{each.texts:,}",
                *(_number(speed) for speed in (each.texts_per_s, each.tokens_per_s, each.bare_tokens_per_s)),
            ]
        )
    head = ["texts to embeddings", "texts", "texts/s", "tokens/s", "bare passes, tokens/s"]
    return _table(head, lines) if lines else ""


def _number(value: float | None) -> str:
    return _UNMEASURED if value is None else f"{value:,.0f}"


def _agreement(found: Sequence[Agreement]) -> str:
    if not found:
        return ""
    lines = [
        [
            TITLES[each.system],
            f"{each.texts} of {each.length:,}",
            _safe(each.failed) if each.cosine_min is None else f"{each.cosine_min:.6f}",
            _UNMEASURED if each.cosine_between is None else f"{each.cosine_between:.6f}",
        ]
        for each in found
    ]
    least = min((each.cosine_min for each in found if each.cosine_min is not None), default=None)
    table = _table(["cosine with plain torch in float32", "texts", "least", "of the two most alike texts"], lines)
    return f"{table}\n\nThe smallest cosine of all: {_UNMEASURED if least is None else f'{least:.6f}'}."


def _contenders(found: Sequence[Made]) -> str:
    named = [
        f"{TITLES[each.system]}: {each.about}, {(each.parameters or 0) / 1e6:,.0f}M parameters"
        for each in found
        if not each.skipped
    ]
    return "; ".join(named) + "." if named else ""


def _skipped(found: Sequence[Made]) -> str:
    named = [f"{TITLES[each.system]}: {each.skipped}" for each in found if each.skipped]
    return "Skipped: " + "; ".join(named) + "." if named else ""


def _table(head: Sequence[str], lines: Iterable[Sequence[str]]) -> str:
    rules = ["---", *["---:"] * (len(head) - 1)]
    return "\n".join("| " + " | ".join(line) + " |" for line in (head, rules, *lines))


def _safe(text: str) -> str:
    """Keep what stands in a cell from ending it."""
    return text.replace("|", "\\|")
