"""``mamba-search search``: a question in, the best passages out."""

from __future__ import annotations

import asyncio
import json
import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from services.cli.modes import Mode
from services.settings import CommandSettings

if TYPE_CHECKING:
    from rich.console import Console
    from rich.text import Text

    from services.cli.hits import Found, FoundPassage

EXCERPT_CHARS = 480
NAME_CHARS = 160
INDENT = "    "


def search(
    query: Annotated[str, typer.Argument(help="What to look for, in natural language.")],
    mode: Annotated[
        Mode, typer.Option(help="Score by embeddings (dense), by words (sparse: BM25) or by both.")
    ] = Mode.HYBRID,
    top_k: Annotated[int, typer.Option("--top-k", "-k", help="How many passages to show, 1 to 200.")] = 5,
    json_output: Annotated[bool, typer.Option("--json", help="Print one JSON object, passages whole.")] = False,
    tenant: Annotated[str, typer.Option(help="Whose documents to search.")] = "default",
    full: Annotated[bool, typer.Option("--full", help="Show passages whole, not only their best part.")] = False,
    target: Annotated[
        str | None, typer.Option(help="Ask the search service at HOST:PORT. Default: 127.0.0.1:50051.")
    ] = None,
    data_dir: Annotated[
        Path | None, typer.Option(help="Ask no service: search the index in this directory, in this process.")
    ] = None,
) -> None:
    """Find the passages that answer a question best."""
    settings = CommandSettings.load({"search_target": target} if target else {})
    if data_dir:
        found = asyncio.run(_search_in_process(settings, data_dir, query, mode, top_k, tenant))
    else:
        found = asyncio.run(_ask_service(settings, query, mode, top_k, tenant))
    if json_output:
        row = {"query": query, "mode": mode.value} | asdict(found)
        sys.stdout.write(json.dumps(row, ensure_ascii=False) + "\n")
    else:
        _show(found, query, None if full else EXCERPT_CHARS)


async def _ask_service(settings: CommandSettings, query: str, mode: Mode, top_k: int, tenant: str) -> Found:
    import grpc
    from mambasearch.v1 import search_pb2, search_pb2_grpc

    from encoder.tokenizer import check_characters
    from ingest.documents import named_tenant
    from services.cli.calling import call_error, open_channel
    from services.cli.hits import found_by_service

    modes = {
        Mode.DENSE: search_pb2.SEARCH_MODE_DENSE,
        Mode.SPARSE: search_pb2.SEARCH_MODE_SPARSE,
        Mode.HYBRID: search_pb2.SEARCH_MODE_HYBRID,
    }
    check_top_k(top_k)
    check_characters("query", query)
    request = search_pb2.SearchRequest(query=query, mode=modes[mode], top_k=top_k, tenant=named_tenant(tenant))
    async with open_channel(settings.search_target) as channel:
        stub = search_pb2_grpc.SearchServiceStub(channel)
        try:
            response = await stub.Search(request, timeout=settings.command_timeout_s)
        except grpc.aio.AioRpcError as error:
            raise call_error(error, "search service", settings.search_target) from None
    return found_by_service(response)


async def _search_in_process(
    settings: CommandSettings, data_dir: Path, query: str, mode: Mode, top_k: int, tenant: str
) -> Found:
    from encoder.errors import NotFound
    from encoder.tokenizer import Tokenizer
    from ingest.documents import named_tenant
    from ingest.index.data_directory import read_manifest
    from services.cli.hits import found_in_process
    from services.fusion import FusionWeights
    from services.in_process import load_encoder, open_parts
    from services.results import SearchMode
    from services.searcher import Searcher

    if read_manifest(data_dir) is None:
        raise NotFound(f"{data_dir} holds no index; fill it with `mamba-search ingest PATH --data-dir {data_dir}`.")
    fusion = FusionWeights.load(settings.model)
    encoder = await load_encoder(settings)
    try:
        tokenizer = Tokenizer.load(settings.model)
        async with open_parts(data_dir, encoder, tokenizer, settings.chunk_rules()) as parts:
            searcher = Searcher(parts.encoder, parts.index, parts.tokenizer, fusion)
            return found_in_process(
                await searcher.search(query, SearchMode(mode.value), top_k, tenant=named_tenant(tenant))
            )
    finally:
        await encoder.close()


def _show(found: Found, query: str, excerpt_chars: int | None) -> None:
    from rich.console import Console

    console = Console(highlight=False)
    if not found.hits:
        console.print("Nothing found.")
    for hit in found.hits:
        console.print(_heading(hit))
        console.print(_passage(hit, query, excerpt_chars, console))
        console.print()
    passages = "passage" if len(found.hits) == 1 else "passages"
    console.print(f"{len(found.hits)} {passages} in {found.total_time_ms:.0f} ms", style="dim")


def _heading(hit: FoundPassage) -> Text:
    from rich.text import Text

    from services.cli.marking import one_line

    text = Text(f"{hit.rank:>2}. ", style="bold")
    text.append(one_line(hit.title or hit.document_id, NAME_CHARS), style="bold cyan")
    text.append(f"  score {hit.score:.4g}", style="dim")
    percent = 100 * hit.char_start / hit.document_chars if hit.document_chars else 0.0
    place = f"lines {hit.line_start:,}-{hit.line_end:,}, characters {hit.char_start:,}-{hit.char_end:,} of "
    place += f"{hit.document_chars:,} ({percent:.0f}%)"
    name = one_line(hit.source or hit.document_id, NAME_CHARS)
    text.append(f"\n{INDENT}{name}, {place}", style="dim")
    if hit.headings:
        text.append(f"\n{INDENT}{one_line(' › '.join(hit.headings), NAME_CHARS)}", style="dim")
    return text


def _passage(hit: FoundPassage, query: str, excerpt_chars: int | None, console: Console) -> Text:
    from rich.text import Text

    from services.cli.marking import take_excerpt

    excerpt = take_excerpt(hit.text, query, excerpt_chars)
    text = Text(excerpt.text)
    for mark in excerpt.marks:
        text.stylize("bold yellow", mark.start, mark.end)
    whole = Text("… " if excerpt.cut_before else "") + text + Text(" …" if excerpt.cut_after else "")
    lines = whole.wrap(console, max(console.width - len(INDENT), 1))
    for line in lines:
        line.rstrip()
    return Text("\n").join(Text(INDENT) + line for line in lines)


def check_top_k(top_k: int) -> None:
    """Refuse what a request cannot carry: the service would read 0 as its default."""
    from encoder.errors import InvalidInput
    from services.searcher import TOP_K_MAX

    if not 1 <= top_k <= TOP_K_MAX:
        raise InvalidInput("top_k", f"top_k is {top_k}; 1 to {TOP_K_MAX} are allowed.")
