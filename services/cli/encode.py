"""``mamba-search encode``: texts in, embeddings out."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from encoder.errors import InvalidInput
from services.settings import CommandSettings

if TYPE_CHECKING:
    from encoder.interface import Encoder

BATCH_TEXTS = 64


def encode(
    texts: Annotated[
        list[str] | None, typer.Argument(help="Texts to encode. None: one text per line of standard input.")
    ] = None,
    query: Annotated[bool, typer.Option("--query", help="Encode as search queries, not as passages.")] = False,
    target: Annotated[
        str | None, typer.Option(help="Ask the encoder service at HOST:PORT. Default: run the model here.")
    ] = None,
    model: Annotated[Path | None, typer.Option(help="Model folder. Default: the model that is shipped.")] = None,
) -> None:
    """Turn texts into embeddings: a JSON object per text, in order, with its tokens and its embedding."""
    settings = CommandSettings.load({"model": model} if model else {})
    asyncio.run(_encode(settings, texts, target, as_query=query))


async def _encode(settings: CommandSettings, texts: list[str] | None, target: str | None, *, as_query: bool) -> None:
    encoder = await open_encoder(settings, target)
    try:
        for batch in _batches(texts if texts else _lines()):
            encoded = await (encoder.encode_queries(batch) if as_query else encoder.encode_passages(batch))
            for text, count, embedding in zip(batch, encoded.token_counts, encoded.embeddings, strict=True):
                row = {"text": text, "token_count": count, "embedding": [round(float(x), 7) for x in embedding]}
                sys.stdout.write(json.dumps(row, ensure_ascii=False) + "\n")
    finally:
        await encoder.close()


async def open_encoder(settings: CommandSettings, target: str | None) -> Encoder:
    """Give the encoder service at ``target``, or where there is none the settings' model in this process."""
    if target:
        from encoder.client import EncoderClient

        return EncoderClient(target, timeout_s=settings.command_timeout_s, token=settings.shown_token())
    from services.in_process import load_encoder

    return await load_encoder(settings)


def _lines() -> Iterator[str]:
    """Yield the lines of standard input that are not blank."""
    try:
        for line in sys.stdin:
            if line.strip():
                yield line.rstrip("\n")
    except UnicodeDecodeError as error:
        raise InvalidInput("texts", "Standard input is not UTF-8; convert it.") from error


def _batches(texts: Sequence[str] | Iterator[str]) -> Iterator[list[str]]:
    batch: list[str] = []
    for text in texts:
        batch.append(text)
        if len(batch) == BATCH_TEXTS:
            yield batch
            batch = []
    if batch:
        yield batch
