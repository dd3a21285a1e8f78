"""``mamba-search ingest``: files in, progress while it lasts, a summary at the end."""

from __future__ import annotations

import asyncio
import sys
import time
from collections import Counter, deque
from collections.abc import AsyncGenerator, Callable, Iterator
from contextlib import aclosing
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from services.settings import CommandSettings

if TYPE_CHECKING:
    from ingest.documents import Document
    from ingest.receipts import LoadError, Progress, Receipt

EXIT_REJECTED = 1
BYTES_PER_TOKEN = 4  # of English text, about: only a progress bar depends on it


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
) -> None:
    """Bring documents into the index. A document that is there already, unchanged, costs nothing."""
    from ingest.loaders import STDIN, load_documents, total_bytes

    settings = CommandSettings.load({"ingest_target": target} if target else {})
    stdin = sys.stdin.buffer if STDIN in paths else None
    tally = Tally(bytes_total=total_bytes(paths))
    skipped: Counter[str] = Counter()  # files of git repositories that are no text
    documents = load_documents(paths, stdin, skipped=skipped)
    items = tally.watch(_growing(documents) if growing else documents)
    try:
        if data_dir:
            asyncio.run(_show(_ingest_in_process(settings, data_dir, items, tally), tally))
        else:
            from services.cli.ingest_stream import ingest_over_grpc

            asyncio.run(_show(ingest_over_grpc(settings.ingest_target, items), tally))
    except KeyboardInterrupt:
        what = "document" if tally.ingested == 1 else "documents"
        sys.stderr.write(f"interrupted: {tally.ingested} {what} ingested; the rest was not\n")
        raise
    finally:
        if tally.documents:  # also where it ended early: these are durable
            sys.stdout.write(tally.summary() + "\n")
        if skipped:
            reasons = ", ".join(f"{count} {reason}" for reason, count in sorted(skipped.items()))
            sys.stderr.write(f"left out of git repositories: {reasons}\n")
    if tally.rejected:
        raise typer.Exit(EXIT_REJECTED)


def _growing(items: Iterator[Document | LoadError]) -> Iterator[Document | LoadError]:
    """Mark documents as ones that may grow."""
    from ingest.receipts import LoadError

    for item in items:
        yield item if isinstance(item, LoadError) else replace(item, growing=True)


@dataclass(slots=True)
class Tally:
    """How far an ingestion is."""

    bytes_total: int | None  # of the files; None where it cannot be known
    bytes_done: int = 0  # of texts with a receipt
    ingested: int = 0
    updated: int = 0
    unchanged: int = 0
    superseded: int = 0
    rejected: int = 0
    chunks: int = 0
    tokens: int = 0
    tokens_written: int = 0  # those of documents under way included, where that is told
    started: float = 0.0
    on_change: Callable[[], None] | None = None
    _sizes: deque[int] = field(default_factory=deque)  # of documents under way

    def watch(self, items: Iterator[Document | LoadError]) -> Iterator[Document | LoadError]:
        """Pass documents on, and remember their sizes until their receipts come (about in the same order)."""
        from ingest.receipts import LoadError

        self.started = time.monotonic()
        for item in items:
            size = 0 if isinstance(item, LoadError) else len(item.text.encode("utf-8", "surrogatepass"))
            self._sizes.append(size)
            yield item

    def count(self, receipt: Receipt) -> None:
        """Add what became of one document, or of one that could not be read."""
        from ingest.receipts import Outcome

        self.bytes_done += self._sizes.popleft()
        name = receipt.outcome.value
        setattr(self, name, getattr(self, name) + 1)
        if receipt.outcome is Outcome.INGESTED:
            self.chunks += receipt.chunk_count
            self.tokens += receipt.token_count
        self._tell()

    def written(self, progress: Progress) -> None:
        """Note how much of the documents under way is in the index."""
        self.tokens_written = progress.tokens
        self._tell()

    def _tell(self) -> None:
        if self.on_change:
            self.on_change()

    def bytes_reached(self) -> int:
        """Guess how many bytes are done: those of a document under way by its tokens."""
        under_way = (self.tokens_written - self.tokens) * BYTES_PER_TOKEN
        return self.bytes_done + max(min(under_way, sum(self._sizes)), 0)

    @property
    def documents(self) -> int:
        """Documents with a receipt of any kind."""
        return self.ingested + self.updated + self.unchanged + self.superseded + self.rejected

    def tokens_per_s(self) -> float:
        """Give the mean speed so far."""
        return max(self.tokens, self.tokens_written) / max(time.monotonic() - self.started, 1e-3)

    def summary(self) -> str:
        """Say everything in one sentence."""
        documents = "document" if self.ingested == 1 else "documents"
        rare = [(self.updated, "with new metadata"), (self.superseded, "overtaken by newer versions")]
        others = "".join(f"{count} {what}, " for count, what in rare if count)
        return (
            f"{self.ingested} {documents} ingested ({self.chunks:,} chunks, {self.tokens:,} tokens), "
            f"{others}{self.unchanged} unchanged, {self.rejected} refused, in {time.monotonic() - self.started:.1f} s "
            f"({self.tokens_per_s():,.0f} tokens/s)"
        )


async def _ingest_in_process(
    settings: CommandSettings, data_dir: Path, items: Iterator[Document | LoadError], tally: Tally
) -> AsyncGenerator[Receipt, None]:
    from encoder.tokenizer import Tokenizer
    from ingest.pipeline import Ingestor
    from ingest.states import open_states
    from services.in_process import load_encoder, open_journal, open_parts

    encoder = await load_encoder(settings)
    try:
        async with (
            open_parts(data_dir, encoder, Tokenizer.load(settings.model), settings.chunk_encoding) as parts,
            open_journal(data_dir, parts.index) as journal,
        ):
            ingestor = Ingestor(
                parts.encoder,
                parts.index,
                parts.chunker,
                journal,
                chunk_encoder=parts.chunk_encoder,
                states=open_states(data_dir, bytes_max=settings.states_bytes_max, keep_s=settings.states_keep_s),
                on_progress=tally.written,
            )
            tally.started = time.monotonic()
            async with aclosing(ingestor.ingest_all(items)) as receipts:
                async for receipt in receipts:
                    yield receipt
    finally:
        await encoder.close()


async def _show(receipts: AsyncGenerator[Receipt, None], tally: Tally) -> None:
    """Consume the receipts under a progress bar; tell of each refusal as it comes."""
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

    console = Console(stderr=True, highlight=False)
    columns = (BarColumn(), TextColumn("{task.description}"), TimeElapsedColumn(), TextColumn("left"))
    with Progress(
        *columns, TimeRemainingColumn(), console=console, transient=True, disable=not console.is_terminal
    ) as bar:
        task = bar.add_task("starting", total=tally.bytes_total)
        tally.on_change = lambda: bar.update(task, completed=tally.bytes_reached(), description=_describe(tally))
        async with aclosing(receipts) as stream:
            async for receipt in stream:
                tally.count(receipt)
                if receipt.error:
                    name = receipt.source or receipt.document_id
                    console.print(f"refused: {name}: {receipt.error}", markup=False, soft_wrap=True)


def _describe(tally: Tally) -> str:
    refused = f", {tally.rejected} refused" if tally.rejected else ""
    documents = "document" if tally.documents == 1 else "documents"
    return f"{tally.documents} {documents}{refused}, {tally.tokens_per_s():,.0f} tokens/s"
