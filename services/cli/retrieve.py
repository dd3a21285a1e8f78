"""``mamba-search retrieve``: a question in, a text block for a language model's prompt out."""

from __future__ import annotations

import asyncio
import sys
from enum import StrEnum
from typing import Annotated

import typer

from services.cli.given import command_settings
from services.cli.modes import Mode
from services.cli.search_calls import DataDir, MinScore, Target, Tenant, Where, call, check_count, filter_message


class Order(StrEnum):
    """In which order passages stand."""

    SCORE = "score"
    DOCUMENT = "document"


def retrieve(
    query: Annotated[str, typer.Argument(help="What to look for, in natural language.")],
    mode: Annotated[
        Mode, typer.Option(help="Score by embeddings (dense), by words (sparse: BM25) or by both.")
    ] = Mode.HYBRID,
    token_budget: Annotated[int, typer.Option(help="Most tokens of the text, citations included.")] = 2048,
    top_k: Annotated[int, typer.Option("--top-k", "-k", help="Most chunks to consider, 1 to 200.")] = 50,
    neighbours: Annotated[int, typer.Option(help="Chunks to read before and after each that was found, 0 to 5.")] = 0,
    order: Annotated[Order, typer.Option(help="Best passages first, or as they stand in documents.")] = Order.SCORE,
    where: Where = None,
    diversity: Annotated[
        float | None, typer.Option(help="How much passages are to differ from each other: 0 (not) to 1 (only that).")
    ] = None,
    min_score: MinScore = None,
    json_output: Annotated[bool, typer.Option("--json", help="Print one JSON object, passages and all.")] = False,
    tenant: Tenant = "default",
    target: Target = None,
    data_dir: DataDir = None,
) -> None:
    """Put passages that answer a question together as one text with citations, within a budget of tokens."""
    from mambasearch.v1 import search_pb2

    from encoder.errors import InvalidInput
    from encoder.tokenizer import check_characters
    from ingest.documents import named_tenant
    from services.cli.search import diversity_message
    from services.cli.worker_calls import to_json
    from services.search.requests import NEIGHBOURS_MAX, TOKEN_BUDGET_MAX, TOP_K_MAX

    settings = command_settings({"search_target": target} if target else {})
    check_count("top_k", top_k, TOP_K_MAX)
    check_count("token_budget", token_budget, TOKEN_BUDGET_MAX)
    if not 0 <= neighbours <= NEIGHBOURS_MAX:
        raise InvalidInput("neighbours", f"neighbours is {neighbours}; 0 to {NEIGHBOURS_MAX} are allowed.")
    check_characters("query", query)
    request = search_pb2.RetrieveRequest(
        query=query,
        mode=f"SEARCH_MODE_{mode.name}",
        token_budget=token_budget,
        top_k=top_k,
        tenant=named_tenant(tenant),
        filter=filter_message(where),
        diversity=None if diversity is None else diversity_message(diversity),
        min_score=min_score,
        neighbours=neighbours,
        order=f"PASSAGE_ORDER_{order.name}",
    )
    found = asyncio.run(call(settings, data_dir, "Retrieve", request))
    if json_output:
        sys.stdout.write(to_json(found) + "\n")
        return
    if found.context:
        sys.stdout.write(found.context + "\n")
    passages = "passage" if len(found.passages) == 1 else "passages"
    total = f"{found.context_tokens:,} of {token_budget:,} tokens"
    sys.stderr.write(f"{len(found.passages)} {passages}, {total}, {found.timings.total_time_ms:.0f} ms\n")
