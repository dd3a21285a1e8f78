"""The product's parts as observed processes of their own: index owner, encoder (without Ray), search, worker."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from tests.processes import free_port

MODULES = {
    "index": ["services.index_owner"],
    "encoder": ["tests.observing.encoder"],
    "search": ["services.search_service"],
    "ingest": ["services.ingest_service"],
}


@dataclass(frozen=True)
class Parts:
    """Where they answer, and which processes they are."""

    ports: Mapping[str, int]
    metrics: Mapping[str, int]
    logs: Path
    pids: dict[str, int] = field(default_factory=dict)

    def target(self, part: str) -> str:
        return f"127.0.0.1:{self.ports[part]}"


@asynccontextmanager
async def running(folder: Path, settings: Mapping[str, object], *, model: str = "fake") -> AsyncIterator[Parts]:
    """Start all parts, wait until both doors serve, and end them with SIGTERM."""
    parts = Parts({part: free_port() for part in MODULES}, {part: free_port() for part in MODULES}, folder)
    environment = {name: value for name, value in os.environ.items() if not name.startswith("MAMBASEARCH_")}  # noqa: TID251
    told: dict[str, object] = {
        "data_dir": folder / "data",
        "index_target": parts.target("index"),
        "encoder_target": parts.target("encoder"),
        "ingest_cutting_processes": 0,
        "query_encoder": "service",
        **{f"{part}_port": port for part, port in parts.ports.items()},
        **{f"{part}_metrics_port": port for part, port in parts.metrics.items()},
        **settings,
    }
    environment |= {f"MAMBASEARCH_{name.upper()}": str(value) for name, value in told.items()}
    started = []
    try:
        for part, module in MODULES.items():
            arguments = [*module, str(parts.ports[part]), model] if part == "encoder" else module
            with (folder / f"{part}.log").open("wb") as log:
                started.append(
                    await asyncio.create_subprocess_exec(
                        sys.executable, "-m", *arguments, env=environment, stdout=log, stderr=log
                    )
                )
            parts.pids[part] = started[-1].pid
        for part in ("search", "ingest"):
            await _serves(parts.target(part))
        yield parts
    finally:
        for process in reversed(started):
            if process.returncode is None:
                process.terminate()
            try:
                async with asyncio.timeout(20):
                    await process.wait()
            except TimeoutError:
                process.kill()
                await process.wait()
                raise


async def _serves(target: str) -> None:
    async with grpc.aio.insecure_channel(target, options=[("grpc.max_reconnect_backoff_ms", 200)]) as channel:
        stub: Any = health_pb2_grpc.HealthStub(channel)
        async with asyncio.timeout(180):
            while True:
                answer = await stub.Check(health_pb2.HealthCheckRequest(), wait_for_ready=True)
                if answer.status == health_pb2.HealthCheckResponse.SERVING:
                    return
                await asyncio.sleep(0.1)
