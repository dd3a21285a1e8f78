"""``mamba-search bulk-load``: a whole collection from Parquet and JSON lines, and the switch to it."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Annotated

import typer

from services.cli.collection_options import OnDisk, Quantization, RecallMin, Replicas, Shards
from services.settings import BulkSettings

EXIT_REJECTED = 1


def bulk_load(
    sources: Annotated[
        list[str], typer.Argument(help="Parquet and JSON lines: files, folders, patterns, s3:// and gs://.")
    ],
    collection: Annotated[str, typer.Option(help="Collection to make; it must not exist.")],
    checkpoint: Annotated[
        Path, typer.Option(help="Folder that says how far it is: the same command goes on where it was interrupted.")
    ],
    alias: Annotated[
        str | None,
        typer.Option(help="Alias to switch to the collection at the end. Default: none, nothing is switched."),
    ] = None,
    qdrant_url: Annotated[str | None, typer.Option(help="Address of the Qdrant server.")] = None,
    model: Annotated[
        Path | None, typer.Option(help="Model folder or hub id. Default: the model that is shipped.")
    ] = None,
    encoder_target: Annotated[
        str | None, typer.Option(help="Encode at the encoder service at HOST:PORT. Default: models of its own.")
    ] = None,
    ray_address: Annotated[
        str | None,
        typer.Option(help="Ray cluster to run on; auto: the one of this machine. Default: a Ray of its own."),
    ] = None,
    readers: Annotated[int, typer.Option(min=1, max=1024, help="Processes that read and cut.")] = 1,
    encoders: Annotated[int, typer.Option(min=1, max=1024, help="Processes that encode.")] = 1,
    encoder_gpus: Annotated[float, typer.Option(min=0, max=64, help="GPUs of each encoder; 0.5 shares one.")] = 0,
    writers: Annotated[int, typer.Option(min=1, max=1024, help="Processes that write.")] = 1,
    shards: Shards = None,
    replicas: Replicas = None,
    quantization: Quantization = "none",
    on_disk: OnDisk = False,
    hnsw_m: Annotated[int, typer.Option(min=4, max=128, help="Edges of a vector in the graph.")] = 16,
    recall_min: RecallMin = 0.95,
    drop_old: Annotated[
        bool, typer.Option("--drop-old", help="Delete what the alias led to before, a minute after the switch.")
    ] = False,
) -> None:
    """Fill a new collection on a Qdrant server by Ray Data, check it, and switch an alias to it."""
    from encoder.progress import reporting
    from ingest.batch import Pools
    from ingest.index.collections import Layout
    from services.moving.bulk_loading import BulkLoad, Checks, run_bulk_load

    given = {"qdrant_url": qdrant_url, "model": model}
    settings = BulkSettings.load({name: value for name, value in given.items() if value is not None})
    wanted = BulkLoad(
        sources,
        collection,
        alias,
        checkpoint,
        Layout(shards, replicas, on_disk or None, quantization, hnsw_m, hnsw_deferred=True),
        Pools(readers, encoders, 1, encoder_gpus, writers),
        Checks(recall_min=recall_min),
        encoder_target,
        ray_address,
        drop_old,
    )
    started = time.monotonic()
    with reporting() as report_of:
        report = report_of(collection)
        finished = run_bulk_load(
            settings,
            wanted,
            lambda totals, done, of: report(f"parts ({totals.documents:,} documents)", done, of),
            lambda what: typer.echo(f"{collection}: {what}", err=True),
        )
    totals, elapsed_s = finished.totals, time.monotonic() - started
    typer.echo(
        f"{totals.documents:,} documents in {collection} ({totals.chunks:,} chunks, {totals.tokens:,} tokens), "
        f"{totals.dead:,} refused, recall@10 {finished.recall:.3f}, in {elapsed_s:.1f} s"
    )
    if alias:
        before = f"; {finished.replaced} before" if finished.replaced else ""
        typer.echo(f"{alias} leads to {collection}{before}")
    if totals.dead:
        sys.stderr.write(f"refused rows, with reasons: {finished.dead_letters}\n")
        raise typer.Exit(EXIT_REJECTED)
