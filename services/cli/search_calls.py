"""How commands search: they ask a search service, or do the same in this process on a data directory."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from mambasearch.v1 import filter_pb2

    from services.search.searcher import Searcher
    from services.settings import CommandSettings

Tenant = Annotated[str, typer.Option(help="Whose documents to search.")]
Where = Annotated[
    list[str] | None,
    typer.Option(
        "--where",
        "--filter",
        help="Only documents for which FIELD=VALUE, !=, <, <=, > or >= holds, on metadata, title, source, ingested_at; "
        "document_id^=PREFIX; FIELD alone where it must exist. May be repeated: all must hold.",
    ),
]
MinScore = Annotated[float | None, typer.Option(help="Least cosine similarity, -1 to 1; not in mode sparse.")]
Target = Annotated[str | None, typer.Option(help="Ask the search service at HOST:PORT. Default: 127.0.0.1:50051.")]
DataDir = Annotated[
    Path | None, typer.Option(help="Ask no service: search the index in this directory, in this process.")
]


def filter_message(where: list[str] | None) -> filter_pb2.Filter | None:
    """Make the filter of conditions that must all hold; None of none."""
    from ingest.index.filter_messages import filter_to_message
    from services.cli.where import filter_of

    found = filter_of(where or [])
    return None if found is None else filter_to_message(found)


def check_count(name: str, value: int, most: int) -> None:
    """Refuse what a request cannot carry: the service would read 0 as its default."""
    from encoder.errors import InvalidInput

    if not 1 <= value <= most:
        raise InvalidInput(name, f"{name} is {value}; 1 to {most} are allowed.")


async def call(settings: CommandSettings, data_dir: Path | None, method: str, request: Any) -> Any:  # noqa: ANN401 - of any method
    """Make one call of ``SearchService``, wherever it is answered."""
    if data_dir:
        return await _in_process(settings, data_dir, method, request)
    import grpc
    from mambasearch.v1 import search_pb2_grpc

    from services.cli.calling import call_error, open_channel

    async with open_channel(settings.search_target, settings) as channel:
        stub = search_pb2_grpc.SearchServiceStub(channel)
        try:
            return await getattr(stub, method)(request, timeout=settings.command_timeout_s)
        except grpc.aio.AioRpcError as error:
            raise call_error(error, "search service", settings.search_target) from None


async def _in_process(settings: CommandSettings, data_dir: Path, method: str, request: Any) -> Any:  # noqa: ANN401
    from encoder.errors import NotFound
    from encoder.tokenizer import Tokenizer
    from ingest.index.data_directory import read_manifest
    from services.in_process import load_encoder, open_parts
    from services.search.fusion import FusionWeights
    from services.search.searcher import Searcher

    if read_manifest(data_dir) is None:
        raise NotFound(f"{data_dir} holds no index; fill it with `mamba-search ingest PATH --data-dir {data_dir}`.")
    fusion = FusionWeights.load(settings.model)
    encoder = await load_encoder(settings)
    try:
        tokenizer = Tokenizer.load(settings.model)
        async with open_parts(data_dir, encoder, tokenizer, settings.chunk_rules()) as parts:
            searcher = Searcher(parts.encoder, parts.index, parts.tokenizer, fusion)
            return await _answer(searcher, method, request)
    finally:
        await encoder.close()


async def _answer(searcher: Searcher, method: str, request: Any) -> Any:  # noqa: ANN401
    from services.search import answer_messages as answers
    from services.search import request_messages as requests

    match method:
        case "Search":
            found = await searcher.search(requests.search_from_message(request))
            return answers.search_to_message(found, None)
        case "Retrieve":
            passages = await searcher.retrieve(requests.retrieve_from_message(request))
            return answers.retrieve_to_message(passages, None)
        case _:
            documents = await searcher.similar_documents(requests.similar_from_message(request))
            return answers.similar_to_message(documents, None)
