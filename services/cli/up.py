"""``mamba-search up``: everything on this machine, until Ctrl-C."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path
from typing import Annotated

import typer

from services.settings import UpSettings


def up(
    data_dir: Annotated[
        Path | None, typer.Option(help="Directory of the index and the logs. Default: one in your home directory.")
    ] = None,
    search_port: Annotated[int | None, typer.Option(help="Port of the search service. Default: 50051.")] = None,
    ingest_port: Annotated[int | None, typer.Option(help="Port of the ingestion worker. Default: 50052.")] = None,
    http_port: Annotated[
        int | None, typer.Option(help="Port of the search page and of HTTP; 0: none. Default: 8080.")
    ] = None,
    index_port: Annotated[int | None, typer.Option(help="Port of the index owner. Default: 50053.")] = None,
    encoder_port: Annotated[int | None, typer.Option(help="Port of the encoder service. Default: 9000.")] = None,
    encoder_device: Annotated[
        str | None, typer.Option(help="Where the model runs: auto, cpu, cuda, cuda:1. Default: auto.")
    ] = None,
) -> None:
    """Start the encoder, the index, search and ingestion on this machine; Ctrl-C stops all of them.

    Every other setting is an environment variable: see docs/settings.md.
    """
    from services.machine.supervisor import up as run

    given = {
        "data_dir": data_dir,
        "search_port": search_port,
        "ingest_port": ingest_port,
        "http_port": http_port,
        "index_port": index_port,
        "encoder_port": encoder_port,
        "encoder_device": encoder_device,
    }
    settings = UpSettings.load({name: value for name, value in given.items() if value is not None})
    asyncio.run(run(settings, _announce))


def _announce(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()
