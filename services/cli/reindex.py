"""``mamba-search reindex``: an index moves to another model, while it is searched."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from services.cli.collection_options import OnDisk, Quantization, RecallMin, Replicas, Shards
from services.settings import BulkSettings

if TYPE_CHECKING:
    from ingest.reindexing import Pass
    from services.moving.reindexing import Mover


def reindex(
    model: Annotated[
        Path | None, typer.Option(help="The new model: folder or hub id. Default: the model that is shipped.")
    ] = None,
    data_dir: Annotated[
        Path | None, typer.Option(help="Move the index in this directory. Default: the one on the Qdrant server.")
    ] = None,
    index_target: Annotated[
        str, typer.Option(help="HOST:PORT of the index owner that holds the directory, where a service runs.")
    ] = "127.0.0.1:50053",
    qdrant_url: Annotated[str | None, typer.Option(help="Address of the Qdrant server.")] = None,
    alias: Annotated[
        str | None, typer.Option(help="Alias to move. Default: the setting qdrant_collection, mamba-search.")
    ] = None,
    collection: Annotated[
        str | None, typer.Option(help="Collection to make. Default: the alias and the next number, mamba-search-2.")
    ] = None,
    encoder_target: Annotated[
        str | None, typer.Option(help="Encode at the encoder service at HOST:PORT. Default: in this process.")
    ] = None,
    shards: Shards = None,
    replicas: Replicas = None,
    quantization: Quantization = "none",
    on_disk: OnDisk = False,
    recall_min: RecallMin = 0.95,
) -> None:
    """Move an index to another model: from the texts that it holds, without the files, and without a pause."""
    from encoder.errors import InvalidInput
    from encoder.progress import reporting
    from ingest.index.collections import Layout
    from services.moving.bulk_encoder import encoder_factory, needed_server
    from services.moving.reindexing import make_mover, reindex_collection, reindex_directory

    given = {"model": model, "qdrant_url": qdrant_url, "qdrant_collection": alias}
    settings = BulkSettings.load({name: value for name, value in given.items() if value is not None})
    if data_dir and qdrant_url:
        raise InvalidInput("data_dir", "--data-dir and --qdrant-url exclude each other; give one of them.")

    async def move_to(mover: Mover) -> str:
        if data_dir:
            await reindex_directory(mover, data_dir, index_target)
            return f"{data_dir} is an index of {settings.model} now"
        layout = Layout(shards, replicas, on_disk or None, quantization, hnsw_deferred=True)
        moved = await reindex_collection(
            mover,
            needed_server(settings),
            settings.qdrant_collection,
            collection,
            layout,
            recall_min=recall_min,
        )
        return f"{settings.qdrant_collection} leads to {moved.new}, recall@10 {moved.recall:.3f}; {moved.old} is kept"

    async def move() -> str:
        encoder = encoder_factory(settings, encoder_target)()
        try:
            with reporting() as report_of:
                report = report_of("reindex")

                def progress(found: Pass) -> None:
                    report(f"documents ({found.copied:,} copied in this pass)", found.compared, 0)

                mover = await make_mover(settings, encoder, progress, lambda what: typer.echo(what, err=True))
                return await move_to(mover)
        finally:
            await encoder.close()

    typer.echo(asyncio.run(move()))
