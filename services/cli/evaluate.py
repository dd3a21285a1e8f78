"""``mamba-search evaluate``: how good search is, on sets with judgements."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from encoder.evaluation.results import Chunks, EvaluationMode
from services.settings import CommandSettings

if TYPE_CHECKING:
    from encoder.evaluation.datasets import EvaluationSet
    from ingest.index.interface import VectorIndex
    from services.evaluation.evaluation import System
    from services.evaluation.output import EvaluationOutput


@dataclass(frozen=True, slots=True)
class _Model:
    """Which model is measured, and how it reads documents."""

    settings: CommandSettings
    sentence_transformers: Path | None
    system: str | None
    chunks: Chunks
    chunk_tokens: int


def evaluate(
    dataset: Annotated[
        list[Path], typer.Option(help="Folder in BEIR layout (corpus, queries, qrels); may be repeated.")
    ],
    mode: Annotated[
        list[EvaluationMode] | None,
        typer.Option(
            help="How to rank; may be repeated: modes of a set share its index. bm25s is an independent BM25 over the "
            "same passages, rrf fuses it with dense by plain reciprocal rank. Default: hybrid."
        ),
    ] = None,
    chunks: Annotated[
        Chunks,
        typer.Option(help="How chunks are encoded: alone, in one pass through their document, or document as one."),
    ] = Chunks.ALONE,
    chunk_tokens: Annotated[int, typer.Option(min=16, help="Most tokens of a chunk.")] = 256,
    length: Annotated[
        list[int] | None,
        typer.Option(help="Lengthen documents to so many tokens with text of others of the set; may be repeated."),
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Seed of --length.")] = 0,
    model: Annotated[Path | None, typer.Option(help="Model folder. Default: the model that is shipped.")] = None,
    sentence_transformers: Annotated[
        Path | None, typer.Option(help="Measure this sentence-transformers folder in place of a model of ours.")
    ] = None,
    system: Annotated[str | None, typer.Option(help="What results call the model. Default: its own name.")] = None,
    baseline: Annotated[
        Path | None,
        typer.Option(help="Test the difference from this TREC run, or from the run of the same name in this folder."),
    ] = None,
    run_dir: Annotated[Path | None, typer.Option(help="Write what was found into this folder, as TREC runs.")] = None,
    per_query: Annotated[Path | None, typer.Option(help="Write the metrics of every query, as JSON lines.")] = None,
    candidates: Annotated[
        Path | None,
        typer.Option(help="Write every query's documents with their dense and sparse scores and ranks, as JSON lines."),
    ] = None,
    json_output: Annotated[
        bool, typer.Option("--json", help="Print one JSON object per set and mode, and nothing else.")
    ] = False,
    data_dir: Annotated[
        Path | None,
        typer.Option(help="Search the embedded engine, each set's index in a folder here. Default: exact, in memory."),
    ] = None,
) -> None:
    """Measure nDCG@10, MRR@10 and recall with 95 % intervals; a document's score is its best chunk's."""
    from encoder.errors import InvalidInput
    from encoder.evaluation.datasets import load_evaluation_sets
    from services.evaluation.output import EvaluationOutput

    modes = list(dict.fromkeys(mode or [EvaluationMode.HYBRID]))
    if chunks is Chunks.DOCUMENT and modes != [EvaluationMode.DENSE]:
        raise InvalidInput(
            "chunks", "--chunks document leaves no chunks to find by their words; give --mode dense only."
        )
    if model and sentence_transformers:
        raise InvalidInput("model", "--model and --sentence-transformers exclude each other; give one of them.")
    if sentence_transformers and chunks is not Chunks.ALONE:
        raise InvalidInput("chunks", f"--chunks {chunks} needs a model of ours; give --chunks alone.")
    if candidates:
        modes = list(dict.fromkeys([EvaluationMode.DENSE, EvaluationMode.SPARSE, *modes]))
    lengths = list(dict.fromkeys(length or []))
    settings = CommandSettings.load({"model": model} if model else {})
    sets = load_evaluation_sets(dataset)  # all of them first: the work takes minutes
    output = EvaluationOutput.open(
        sets, modes, as_json=json_output, baseline=baseline, run_dir=run_dir, per_query=per_query, candidates=candidates
    )
    chosen = _Model(settings, sentence_transformers, system, chunks, chunk_tokens)
    asyncio.run(_evaluate(chosen, sets, lengths, seed, data_dir, output))


async def _evaluate(
    model: _Model,
    sets: Sequence[EvaluationSet],
    lengths: Sequence[int],
    seed: int,
    data_dir: Path | None,
    output: EvaluationOutput,
) -> None:
    from encoder.evaluation.lengthening import lengthen
    from encoder.progress import reporting
    from services.evaluation.evaluation import evaluate_set

    system = await _load(model)
    try:
        for found in sets:
            # One at a time: lengthened sets are large.
            for tokens in lengths or [0]:
                lengthened = lengthen(found, tokens, system.tokenizer, seed=seed) if tokens else found
                async with _open_index(data_dir, lengthened, system) as index:
                    with reporting() as report_of:
                        report = report_of(lengthened.stem)
                        async for evaluation in evaluate_set(lengthened, output.modes, system, index, report):
                            output.add(lengthened, system, evaluation)
    finally:
        await system.encoder.close()
        output.close()


async def _load(model: _Model) -> System:
    """Load the model, and put together how it reads documents."""
    from encoder.tokenizer import Tokenizer
    from ingest.chunk_encoding import ChunksAlone, ChunksInOnePass
    from ingest.chunking import Chunker
    from services.evaluation.evaluation import System
    from services.evaluation.models import load_sentence_transformers, load_with_parameters
    from services.search.fusion import FusionWeights

    whole_document = 1 << 40  # tokens: no document has as many
    folder = model.sentence_transformers or model.settings.model
    fusion = FusionWeights.load(folder)
    if model.sentence_transformers:
        encoder, parameters = await load_sentence_transformers(model.sentence_transformers, model.settings)
    else:
        encoder, parameters = await load_with_parameters(model.settings)
    tokenizer = Tokenizer.load(folder)
    return System(
        name=model.system or (await encoder.info()).model,
        encoder=encoder,
        tokenizer=tokenizer,
        chunker=Chunker(tokenizer, whole_document if model.chunks is Chunks.DOCUMENT else model.chunk_tokens),
        chunk_encoder=ChunksAlone() if model.chunks is Chunks.ALONE else ChunksInOnePass(tokenizer),
        chunks=model.chunks,
        parameters=parameters,
        fusion=fusion,
    )


@contextlib.asynccontextmanager
async def _open_index(data_dir: Path | None, found: EvaluationSet, system: System) -> AsyncIterator[VectorIndex]:
    from ingest.index.embedded import EmbeddedIndex
    from ingest.index.memory import MemoryIndex

    dimension, fingerprint = await system.index_layout()
    index: VectorIndex
    if data_dir:
        index = await EmbeddedIndex.open(data_dir / found.stem, dimension=dimension, fingerprint=fingerprint)
    else:
        index = MemoryIndex(dimension=dimension, fingerprint=fingerprint)
    try:
        yield index
    finally:
        await index.close()
