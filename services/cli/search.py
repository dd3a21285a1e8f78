"""``mamba-search search``: a question in, the best passages out."""

from __future__ import annotations

import asyncio
import json
import sys
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

from services.cli.given import command_settings
from services.cli.modes import Mode
from services.cli.search_calls import DataDir, MinScore, Target, Tenant, Where, call, check_count, filter_message
from services.cli.showing import EXCERPT_CHARS, show_document, show_hit

if TYPE_CHECKING:
    from mambasearch.v1 import search_pb2

    from services.cli.hits import Found


def search(
    query: Annotated[str, typer.Argument(help="What to look for, in natural language.")],
    mode: Annotated[
        Mode, typer.Option(help="Score by embeddings (dense), by words (sparse: BM25) or by both.")
    ] = Mode.HYBRID,
    top_k: Annotated[int, typer.Option("--top-k", "-k", help="How many passages to show, 1 to 200.")] = 5,
    where: Where = None,
    group: Annotated[bool, typer.Option("--group", help="Group passages by document; --top-k counts those.")] = False,
    diversity: Annotated[
        float | None, typer.Option(help="How much passages are to differ from each other: 0 (not) to 1 (only that).")
    ] = None,
    min_score: MinScore = None,
    explain: Annotated[bool, typer.Option("--explain", help="Say how each score came to be.")] = False,
    page: Annotated[str, typer.Option(help="Go on after an earlier answer: what that named for the next page.")] = "",
    json_output: Annotated[bool, typer.Option("--json", help="Print one JSON object, passages whole.")] = False,
    tenant: Tenant = "default",
    full: Annotated[bool, typer.Option("--full", help="Show passages whole, not only their best part.")] = False,
    target: Target = None,
    data_dir: DataDir = None,
) -> None:
    """Find the passages that answer a question best."""
    from mambasearch.v1 import search_pb2

    from encoder.tokenizer import check_characters
    from ingest.documents import named_tenant
    from services.cli.hits import found_by
    from services.search.requests import TOP_K_MAX

    settings = command_settings({"search_target": target} if target else {})
    check_count("top_k", top_k, TOP_K_MAX)
    check_characters("query", query)
    request = search_pb2.SearchRequest(
        query=query,
        mode=f"SEARCH_MODE_{mode.name}",
        top_k=top_k,
        tenant=named_tenant(tenant),
        filter=filter_message(where),
        group_by_document=search_pb2.Grouping() if group else None,
        diversity=None if diversity is None else diversity_message(diversity),
        min_score=min_score,
        page_token=page,
        explain=explain,
    )
    found = found_by(asyncio.run(call(settings, data_dir, "Search", request)))
    if json_output:
        row = {"query": query, "mode": mode.value} | asdict(found)
        sys.stdout.write(json.dumps(row, ensure_ascii=False) + "\n")
    else:
        _show(found, query, None if full else EXCERPT_CHARS)


def diversity_message(diversity: float) -> search_pb2.Diversity:
    """Write how much hits are to differ; :class:`InvalidInput` for what is not 0 to 1."""
    from mambasearch.v1 import search_pb2

    from encoder.errors import InvalidInput

    if not 0 <= diversity <= 1:
        raise InvalidInput("diversity", f"diversity is {diversity}; 0 to 1 are allowed.")
    return search_pb2.Diversity(mmr_lambda=1 - diversity)


def _show(found: Found, query: str, excerpt_chars: int | None) -> None:
    from rich.console import Console

    console = Console(highlight=False)
    if not found.hits and not found.groups:
        console.print("Nothing found.")
    for hit in found.hits:
        show_hit(hit, query, excerpt_chars, console)
    for document in found.groups:
        show_document(document, query, excerpt_chars, console)
    count, name = (len(found.groups), "document") if found.groups else (len(found.hits), "passage")
    total_ms = found.timings["total_time_ms"]
    console.print(f"{count} {name}{'' if count == 1 else 's'} in {total_ms:.0f} ms", style="dim")
    if found.next_page_token:
        console.print(f"more: --page {found.next_page_token}", style="dim", soft_wrap=True)
    if found.depth_reached:
        console.print("There may be more; pages go no deeper. Narrow the search with --where.", style="dim")
