"""Metrics of the embedded engine, told by its owner. Knows no service."""

from __future__ import annotations

from pathlib import Path

from prometheus_client import CollectorRegistry, Gauge

from ingest.index.data_directory import ENGINE_PREFIX


class IndexOwnerMetrics:
    """Tells what the index takes of the disk, and whether it is being optimized."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._bytes = Gauge("mambasearch_index_size_bytes", "Bytes of the index on the disk.", registry=registry)
        self._free = Gauge(
            "mambasearch_index_disk_free_bytes", "Bytes that are free on the disk of the index.", registry=registry
        )
        self._optimizing = Gauge(
            "mambasearch_index_optimizing_segments",
            "Segments whose search graph is being built: of the embedded engine all of them, or none.",
            registry=registry,
        )

    def measured(self, *, size_bytes: int, free_bytes: int, optimizing_segments: int) -> None:
        """Take over what was measured."""
        self._bytes.set(size_bytes)
        self._free.set(free_bytes)
        self._optimizing.set(optimizing_segments)


def index_bytes(directory: Path) -> int:
    """Add up the engine's files in a data directory, as the disk holds them; what goes away meanwhile counts nothing.

    While the index is optimized there is a second copy of it.
    """
    total = 0
    for path in (path for folder in directory.glob(f"{ENGINE_PREFIX}*") for path in folder.rglob("*")):
        try:
            status = path.lstat()
        except FileNotFoundError:
            continue
        total += status.st_blocks * 512  # sparse files take less than they are long
    return total
