"""``mamba-search ask``: a question in, an answer from the passages that are found for it, with citations."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Sequence
from contextlib import aclosing
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from services.cli.modes import Mode
from services.settings import AskSettings

if TYPE_CHECKING:
    from services.asking.passages import Cited, NumberedPassage


def ask(
    question: Annotated[str, typer.Argument(help="What to answer, in natural language.")],
    llm_url: Annotated[
        str | None, typer.Option(help="Address of an OpenAI-compatible chat API. Default: http://localhost:11434/v1.")
    ] = None,
    llm_model: Annotated[
        str | None, typer.Option(help="Name of the model that answers. Default: codestral-mamba.")
    ] = None,
    context_tokens: Annotated[
        int | None, typer.Option(help="Tokens of passages to answer from. Default: 3000.")
    ] = None,
    mode: Annotated[
        Mode, typer.Option(help="Find passages by embeddings (dense), by words (sparse: BM25) or by both.")
    ] = Mode.HYBRID,
    json_output: Annotated[
        bool, typer.Option("--json", help="Print one JSON object, when the answer is whole.")
    ] = False,
    tenant: Annotated[str, typer.Option(help="Whose documents to answer from.")] = "default",
    target: Annotated[
        str | None, typer.Option(help="Ask the search service at HOST:PORT. Default: 127.0.0.1:50051.")
    ] = None,
    data_dir: Annotated[
        Path | None, typer.Option(help="Ask no service: search the index in this directory, in this process.")
    ] = None,
) -> None:
    """Answer a question from what is in the index, by a language model, with citations."""
    given = {
        "llm_url": llm_url,
        "llm_model": llm_model,
        "llm_context_tokens": context_tokens,
        "search_target": target,
    }
    settings = AskSettings.load({name: value for name, value in given.items() if value is not None})
    asyncio.run(_answer(settings, question, mode, tenant, data_dir, as_json=json_output))


async def _answer(
    settings: AskSettings, question: str, mode: Mode, tenant: str, data_dir: Path | None, *, as_json: bool
) -> None:
    from encoder.errors import NotFound
    from services.asking.passages import find_cited
    from services.asking.prompt import make_messages
    from services.cli.ask_passages import retrieve

    passages = await retrieve(settings, data_dir, question, mode, tenant)
    if not passages:
        raise NotFound(
            "Nothing was found that could answer this; ingest documents first, or allow longer passages with "
            "--context-tokens."
        )
    answer, end = await _stream(settings, make_messages(question, passages), show=not as_json)
    cited = find_cited(answer, passages)
    if as_json:
        row = {
            "question": question,
            "model": settings.llm_model,
            "answer": answer,
            "end": end,
            "citations": [_row(passage) for passage in cited.passages],
            "passages": [_row(passage) for passage in passages],
        }
        sys.stdout.write(json.dumps(row, ensure_ascii=False) + "\n")
    else:
        _show_sources(cited, passages)
    for warning in _warnings(settings, cited, end):
        sys.stderr.write(f"mamba-search: {warning}\n")


async def _stream(settings: AskSettings, messages: Sequence[dict[str, str]], *, show: bool) -> tuple[str, str]:
    """Have the model answer, and show it as it comes; give all of it, and why it ended."""
    from services.asking.chat import ChatModel

    model = ChatModel(settings)
    shown, end = "", ""
    try:
        async with aclosing(model.answer(messages)) as parts:
            async for part in parts:
                text = _printable(part.text)
                shown, end = shown + text, part.end or end
                if show:
                    sys.stdout.write(text)
                    sys.stdout.flush()
    finally:
        await model.close()
        if show and shown:
            sys.stdout.write("\n")
    return shown, end


def _printable(text: str) -> str:
    """Take out what could steer a terminal: the model repeats what documents say."""
    return "".join(char for char in text if char.isprintable() or char in "\n\t")


def _show_sources(cited: Cited, passages: Sequence[NumberedPassage]) -> None:
    from services.cli.marking import one_line

    sys.stdout.write("\n" if cited.passages else "\nThe answer cites nothing. It was given:\n")
    for passage in cited.passages or passages:
        name = f"  {one_line(passage.name)}" if passage.name else ""
        sys.stdout.write(f"[{passage.number}] {one_line(passage.place)}{name}\n")


def _warnings(settings: AskSettings, cited: Cited, end: str) -> list[str]:
    warnings = []
    if end == "length":
        warnings.append(
            f"the answer was cut at {settings.llm_answer_tokens_max} tokens; allow more with "
            "MAMBASEARCH_LLM_ANSWER_TOKENS_MAX."
        )
    elif end not in ("", "stop"):
        warnings.append(f"the model server ended the answer: {end[:80]!r}.")
    if cited.unknown:
        numbers = ", ".join(f"[{number}]" for number in cited.unknown[:10])
        warnings.append(f"the answer cites {numbers}, which it was not given: do not trust that.")
    return warnings


def _row(passage: NumberedPassage) -> dict[str, object]:
    return {
        "number": passage.number,
        "document_id": passage.document_id,
        "title": passage.title,
        "headings": list(passage.headings),
        "line_start": passage.line_start,
        "line_end": passage.line_end,
    }
