"""``mamba-search ingest``: files in, progress while it lasts, a summary at the end."""

from __future__ import annotations

import asyncio
import signal
import sys
import threading
import time
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from services.cli.given import command_settings
from services.settings import CommandSettings

if TYPE_CHECKING:
    from services.cli.refusals import Refusals
    from services.cli.tally import Tally
    from services.cli.watch import Target

EXIT_REJECTED = 1


def ingest(
    paths: Annotated[
        list[str],
        typer.Argument(
            help="Files, folders, patterns ('docs/**/*.md'), git repositories, URLs (https, s3, gs); - is stdin."
        ),
    ],
    target: Annotated[
        str | None, typer.Option(help="Send to the ingestion worker at HOST:PORT. Default: 127.0.0.1:50052.")
    ] = None,
    data_dir: Annotated[
        Path | None, typer.Option(help="Ask no service: fill the index in this directory, in this process.")
    ] = None,
    growing: Annotated[
        bool,
        typer.Option(
            "--growing", help="These documents may grow (logs, transcripts): what is added to one costs only itself."
        ),
    ] = False,
    failures: Annotated[
        Path | None, typer.Option(help="Write each document that is refused, and why, to this file, as JSON lines.")
    ] = None,
    watch: Annotated[
        bool, typer.Option("--watch", help="Follow a folder until Ctrl-C: what changes in it, and what goes.")
    ] = False,
    prune: Annotated[
        bool, typer.Option("--prune", help="With --watch: delete also what vanished since it was last followed.")
    ] = False,
) -> None:
    """Bring documents into the index. A document that is there already, unchanged, costs nothing."""
    from rich.console import Console

    from encoder.errors import InvalidInput
    from ingest.receipts import Progress
    from services.cli.refusals import collecting_refusals
    from services.cli.tally import Tally

    settings = command_settings({"ingest_target": target} if target else {})
    if prune and not watch:
        raise InvalidInput("prune", "--prune is for --watch alone; add that, or leave it out.")
    console = Console(stderr=True, highlight=False)
    # Of a service nothing is known but its receipts.
    tally = Tally(progress=Progress() if data_dir else None)
    with collecting_refusals(console, failures, paths) as refusals:
        try:
            if watch:
                asyncio.run(_watch(settings, data_dir, paths, tally, refusals, growing=growing, prune=prune))
            else:
                asyncio.run(_ingest(settings, data_dir, paths, tally, refusals, growing=growing))
        except (KeyboardInterrupt, asyncio.CancelledError):
            if not watch:  # which has no other end
                documents = "document" if tally.ingested == 1 else "documents"
                sys.stderr.write(f"interrupted: {tally.ingested} {documents} ingested; the rest was not\n")
                raise
        finally:
            if tally.documents or tally.deleted:  # also where it ended early: these are durable
                sys.stdout.write(tally.summary() + "\n")
            if told := refusals.summary():
                sys.stderr.write(told + "\n")
    if refusals.count:
        raise typer.Exit(EXIT_REJECTED)


async def _ingest(
    settings: CommandSettings,
    data_dir: Path | None,
    paths: list[str],
    tally: Tally,
    refusals: Refusals,
    *,
    growing: bool,
) -> None:
    from ingest.loaders import load_documents
    from ingest.sources.finding import STDIN
    from services.cli.stages import showing

    skipped: Counter[str] = Counter()  # files of git repositories that are no text
    _expect(paths, tally)
    stdin = sys.stdin.buffer if STDIN in paths else None
    items = tally.watch(load_documents(paths, stdin, skipped=skipped))
    try:
        async with (
            showing(tally, refusals.console),
            _target(settings, data_dir, tally) as target,
            aclosing(_marked(target, growing=growing).ingest(items)) as receipts,
        ):
            async for receipt in receipts:
                tally.count(receipt)
                if receipt.error:
                    refusals.tell(receipt)
    finally:
        if skipped:
            reasons = ", ".join(f"{count} {reason}" for reason, count in sorted(skipped.items()))
            sys.stderr.write(f"left out of git repositories: {reasons}\n")


async def _watch(
    settings: CommandSettings,
    data_dir: Path | None,
    paths: list[str],
    tally: Tally,
    refusals: Refusals,
    *,
    growing: bool,
    prune: bool,
) -> None:
    from services.cli.watch import check_watched, follow

    folder = check_watched(paths)
    _expect([str(folder)], tally)
    task = asyncio.current_task()
    assert task
    # As Ctrl-C does, for those that are started by a service manager.
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
    where = data_dir or settings.ingest_target
    async with _target(settings, data_dir, tally) as target:
        await follow(folder, where, _marked(target, growing=growing), tally, refusals, prune=prune)


@asynccontextmanager
async def _target(settings: CommandSettings, data_dir: Path | None, tally: Tally) -> AsyncIterator[Target]:
    if data_dir:
        from services.cli.ingest_in_process import in_process

        async with in_process(settings, data_dir, tally) as target:
            tally.started = time.monotonic()  # loading a model takes seconds
            yield target
    else:
        from services.cli.ingest_stream import OverGrpc

        yield OverGrpc(settings.ingest_target, settings.command_timeout_s, settings)


def _marked(target: Target, *, growing: bool) -> Target:
    from services.cli.growing import Growing

    return Growing(target) if growing else target


def _expect(paths: list[str], tally: Tally) -> None:
    """Count what is to come beside the work: nothing waits for it, and an end of the command ends it."""
    from ingest.expected import expect

    def count() -> None:
        tally.expected = expect(paths)

    threading.Thread(target=count, name="expect", daemon=True).start()
