"""Draws the Grafana dashboard from a real run: python -m tests.benchmarks.dashboard_picture docs

Starts the product's parts with the default model (the replica without Ray) and Prometheus (Debian's package), ingests
sources of Python's library while it searches, asks Prometheus the dashboard's own queries, and draws each panel with
matplotlib, in the dashboard's places. Grafana is not needed, and draws the same with its own looks.
"""

from __future__ import annotations

import argparse
import asyncio
import inspect
import json
import tempfile
import time
from contextlib import suppress
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

import grpc
import httpx
import matplotlib as mpl
import yaml
from mambasearch.v1 import ingest_pb2, ingest_pb2_grpc, search_pb2, search_pb2_grpc
from PIL import Image

from tests.observing.parts import Parts, running
from tests.processes import free_port

mpl.use("Agg")
import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.ticker import EngFormatter, FuncFormatter

ROOT = Path(__file__).parents[2]
DASHBOARD = json.loads((ROOT / "deploy" / "grafana" / "dashboards" / "mamba-search.json").read_text())
RUN_S, STEP_S, RATE_S = 90, 3, 20
QUERIES = (
    "read a file line by line",
    "parse a date",
    "open a socket",
    "sort a list",
    "compress bytes",
    "run a command",
)
MODULES = (
    "bisect",
    "csv",
    "fnmatch",
    "glob",
    "heapq",
    "queue",
    "sched",
    "shelve",
    "stat",
    "textwrap",
    "timeit",
    "uuid",
)
SERIES_MAX = 8

Series = tuple[str, list[float], list[float]]  # its name, seconds since the beginning, values


@dataclass(frozen=True)
class Source:
    """Where to ask, and for what time."""

    url: str
    started: float
    seconds: float


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    folder = parser.parse_args().folder
    with tempfile.TemporaryDirectory() as scratch:
        asyncio.run(run(Path(scratch), folder))


async def run(scratch: Path, folder: Path) -> None:
    """Run everything for a while, then draw."""
    async with running(scratch, {"tenants": ""}, model="default") as parts:
        port = free_port()
        arguments = [f"--config.file={configured(scratch, parts)}", f"--storage.tsdb.path={scratch / 'tsdb'}"]
        arguments += [f"--web.listen-address=127.0.0.1:{port}", "--log.level=error"]
        prometheus = await asyncio.create_subprocess_exec("prometheus", *arguments)
        try:
            await asyncio.sleep(3 * STEP_S)
            started = time.time()
            await load(parts)
            seconds = time.time() - started
            for number, panels in enumerate(pages(), start=1):
                draw(panels, Source(f"http://127.0.0.1:{port}", started, seconds), folder / f"dashboard-{number}.png")
        finally:
            prometheus.terminate()
            await prometheus.wait()


def configured(scratch: Path, parts: Parts) -> Path:
    """Write deploy's configuration with this run's ports, and a shorter interval."""
    told = yaml.safe_load((ROOT / "deploy" / "prometheus" / "prometheus.yml").read_text())
    told["global"] = {"scrape_interval": f"{STEP_S}s", "scrape_timeout": f"{STEP_S}s", "evaluation_interval": "15s"}
    told["rule_files"] = [str(ROOT / "deploy" / "prometheus" / "alerts.yml")]
    told["scrape_configs"] = [
        {
            "job_name": "mamba-search" if part == "search" else f"mamba-search-{part}",
            "static_configs": [{"targets": [f"127.0.0.1:{port}"]}],
        }
        for part, port in parts.metrics.items()
    ]
    path = scratch / "prometheus.yml"
    path.write_text(yaml.safe_dump(told))
    return path


async def load(parts: Parts) -> None:
    """Search all the while, with three clients; ingest from the first fifth on."""
    ends = time.monotonic() + RUN_S

    async def search(number: int) -> None:
        async with grpc.aio.insecure_channel(parts.target("search")) as channel:
            stub = search_pb2_grpc.SearchServiceStub(channel)
            count = 0
            while time.monotonic() < ends:
                count += 1
                # One search in forty is refused, so that there are errors to see.
                query = "" if count % 40 == 0 else f"{QUERIES[count % len(QUERIES)]} {number}"
                try:
                    await stub.Search(search_pb2.SearchRequest(query=query), timeout=20)
                except grpc.aio.AioRpcError as error:
                    if error.code() is not grpc.StatusCode.INVALID_ARGUMENT:
                        print(error.code(), error.details(), flush=True)
                await asyncio.sleep(0.1)

    async def ingest() -> None:
        await asyncio.sleep(RUN_S / 5)
        async with grpc.aio.insecure_channel(parts.target("ingest")) as channel:
            requests = (
                ingest_pb2.IngestDocumentsRequest(
                    document_id=name, title=name, text=inspect.getsource(import_module(name))
                )
                for name in MODULES
            )
            with suppress(TimeoutError):
                async with asyncio.timeout(ends - time.monotonic()):
                    async for answer in ingest_pb2_grpc.IngestServiceStub(channel).IngestDocuments(requests):
                        if not answer.HasField("slow_down"):
                            print(answer.document_id, answer.chunk_count, "chunks", flush=True)

    await asyncio.gather(*(search(number) for number in range(3)), ingest())


def pages() -> list[list[dict[str, Any]]]:
    """Cut the dashboard's rows into two pages."""
    panels = DASHBOARD["panels"]
    middle = [place for place, panel in enumerate(panels) if panel["type"] == "row"][3]
    return [panels[:middle], panels[middle:]]


def draw(panels: list[dict[str, Any]], source: Source, path: Path) -> None:
    """Draw panels at their places."""
    top = panels[0]["gridPos"]["y"]
    rows = max(panel["gridPos"]["y"] + panel["gridPos"]["h"] for panel in panels) - top
    figure = plt.figure(figsize=(16, rows * 0.36), dpi=80, facecolor="#f4f5f5")
    for panel in panels:
        place = panel["gridPos"]
        bottom = 1 - (place["y"] - top + place["h"]) / rows
        if panel["type"] == "row":
            figure.text(0.012, bottom + 0.2 / rows, panel["title"], fontsize=12, weight="bold", color="#24292e")
            continue
        box = (place["x"] / 24 + 0.035, bottom + 1.5 / rows, place["w"] / 24 - 0.047, (place["h"] - 2.7) / rows)
        axes = figure.add_axes(box)
        series = ask(panel, source)
        if panel["type"] == "stat":
            draw_number(axes, panel, series)
        else:
            draw_lines(axes, panel, series, source.seconds)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path)
    with Image.open(path) as picture:
        smaller = picture.convert("RGB").quantize(64)
    smaller.save(path, optimize=True)
    print(f"{path}: {path.stat().st_size // 1024} KiB")


def ask(panel: dict[str, Any], source: Source) -> list[Series]:
    """Ask Prometheus the panel's queries; give each series with its name."""
    found = []
    for target in panel["targets"]:
        query = target["expr"].replace("$__rate_interval", f"{RATE_S}s")
        times = {"start": source.started, "end": source.started + source.seconds, "step": STEP_S}
        answer = httpx.get(f"{source.url}/api/v1/query_range", params={"query": query, **times}, timeout=30).json()
        assert answer["status"] == "success", (query, answer)
        for series in answer["data"]["result"]:
            name = target["legendFormat"]
            for label, value in series["metric"].items():
                name = name.replace("{{" + label + "}}", value)
            at = [float(point[0]) - source.started for point in series["values"]]
            found.append((name, at, [float(point[1]) for point in series["values"]]))
    return found


def draw_lines(axes: Axes, panel: dict[str, Any], series: list[Series], seconds: float) -> None:
    axes.set_title(panel["title"], fontsize=9, loc="left", color="#24292e")
    largest = sorted(series, key=lambda one: -max((v for v in one[2] if v == v), default=0))[:SERIES_MAX]
    for name, at, values in largest:
        axes.plot(at, values, label=name, linewidth=1.2)
    axes.set_xlim(0, seconds)
    axes.set_ylim(bottom=0)
    axes.tick_params(labelsize=7, colors="#57606a")
    axes.yaxis.set_major_formatter(formatter(panel))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:.0f} s"))
    axes.grid(color="#e4e7eb", linewidth=0.6)
    for side in axes.spines.values():
        side.set_visible(False)
    if largest:
        axes.legend(fontsize=6, loc="upper left", framealpha=0.7, edgecolor="none")
    else:
        axes.text(0.5, 0.5, "no data", transform=axes.transAxes, ha="center", color="#8b949e", fontsize=9)


def draw_number(axes: Axes, panel: dict[str, Any], series: list[Series]) -> None:
    axes.set_title(panel["title"], fontsize=9, loc="left", color="#24292e")
    axes.axis("off")
    shown = formatter(panel)
    lines = [(name, shown(values[-1], 0)) for name, _, values in series]
    text = lines[0][1] if len(lines) == 1 else "\n".join(f"{name}: {value}" for name, value in lines)
    axes.text(0, 0.45, text, fontsize=17 if len(lines) == 1 else 8, va="center", color="#1a7f37")


def formatter(panel: dict[str, Any]) -> Any:
    match panel["fieldConfig"]["defaults"]["unit"]:
        case "s":
            return EngFormatter(unit="s")
        case "bytes":
            return EngFormatter(unit="B")
        case "percentunit":
            return FuncFormatter(lambda value, _: f"{100 * value:.1f} %")
        case "reqps":
            return FuncFormatter(lambda value, _: f"{value:.1f}/s")
    return EngFormatter(sep="")


if __name__ == "__main__":
    main()
