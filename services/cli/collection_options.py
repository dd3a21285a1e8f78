"""Options of the commands that make a collection on a Qdrant server."""

from __future__ import annotations

from typing import Annotated, Literal

import typer

Shards = Annotated[int | None, typer.Option(min=1, max=4096, help="Shards. Default: the server's.")]
Replicas = Annotated[int | None, typer.Option(min=1, max=64, help="Copies of a shard. Default: the server's.")]
Quantization = Annotated[
    Literal["none", "scalar", "binary"],
    typer.Option(help="Compress vectors for the search: to bytes (scalar) or bits (binary)."),
]
OnDisk = Annotated[bool, typer.Option("--on-disk", help="Keep vectors on disk, mapped into memory.")]
RecallMin = Annotated[
    float, typer.Option(min=0, max=1, help="Least recall@10 against exact search; below it nothing is switched.")
]
