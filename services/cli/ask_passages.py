"""The passages that `ask` answers from: of the search service, or found in this process on a data directory."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from services.cli.modes import Mode
from services.settings import AskSettings

if TYPE_CHECKING:
    from services.asking.passages import NumberedPassage


async def retrieve(
    settings: AskSettings, data_dir: Path | None, question: str, mode: Mode, tenant: str
) -> list[NumberedPassage]:
    """Find passages that fit ``llm_context_tokens`` together, best first."""
    from mambasearch.v1 import search_pb2

    from encoder.tokenizer import check_characters
    from ingest.documents import named_tenant
    from services.asking.passages import NumberedPassage
    from services.cli.search_calls import call

    check_characters("question", question)
    request = search_pb2.RetrieveRequest(
        query=question,
        mode=f"SEARCH_MODE_{mode.name}",
        token_budget=settings.llm_context_tokens,
        tenant=named_tenant(tenant),
    )
    found = await call(settings, data_dir, "Retrieve", request)
    return [
        NumberedPassage(
            passage.number,
            passage.document_id,
            passage.title,
            tuple(passage.headings),
            passage.line_start,
            passage.line_end,
            passage.text,
        )
        for passage in found.passages
    ]
