"""``mamba-search similar``: a document's id in, the documents that are most like it out."""

from __future__ import annotations

import asyncio
import json
import sys
from dataclasses import asdict
from typing import Annotated

import typer

from services.cli.given import command_settings
from services.cli.search_calls import DataDir, MinScore, Target, Tenant, Where, call, check_count, filter_message
from services.cli.showing import EXCERPT_CHARS, show_document


def similar(
    document_id: Annotated[str, typer.Argument(help="The document's id.")],
    top_k: Annotated[int, typer.Option("--top-k", "-k", help="How many documents to show, 1 to 100.")] = 5,
    where: Where = None,
    min_score: MinScore = None,
    json_output: Annotated[bool, typer.Option("--json", help="Print one JSON object, passages whole.")] = False,
    tenant: Tenant = "default",
    target: Target = None,
    data_dir: DataDir = None,
) -> None:
    """Find the documents that are most like one in the index."""
    from mambasearch.v1 import search_pb2
    from rich.console import Console

    from encoder.tokenizer import check_characters
    from ingest.documents import named_tenant
    from services.cli.hits import found_document, timings_of
    from services.search.requests import SIMILAR_TOP_K_MAX

    settings = command_settings({"search_target": target} if target else {})
    check_count("top_k", top_k, SIMILAR_TOP_K_MAX)
    check_characters("document_id", document_id)
    request = search_pb2.SimilarDocumentsRequest(
        document_id=document_id,
        top_k=top_k,
        tenant=named_tenant(tenant),
        filter=filter_message(where),
        min_score=min_score,
    )
    answer = asyncio.run(call(settings, data_dir, "SimilarDocuments", request))
    documents, timings = [found_document(group) for group in answer.documents], timings_of(answer.timings)
    if json_output:
        row = {"document_id": document_id, "documents": [asdict(one) for one in documents], "timings": timings}
        sys.stdout.write(json.dumps(row, ensure_ascii=False) + "\n")
        return
    console = Console(highlight=False)
    if not documents:
        console.print("Nothing found.")
    for document in documents:
        show_document(document, "", EXCERPT_CHARS, console)
    names = "document" if len(documents) == 1 else "documents"
    console.print(f"{len(documents)} {names} in {timings['total_time_ms']:.0f} ms", style="dim")
