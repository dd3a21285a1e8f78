"""``mamba-search fit-fusion``: how words count beside a model's embeddings, fitted on sets with judgements."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from services.settings import CommandSettings

if TYPE_CHECKING:
    from encoder.evaluation.datasets import EvaluationSet
    from encoder.progress import ReportOf
    from services.search.fusion_fitting import Fitted
    from services.search.fusion_material import Material


def fit_fusion(
    dataset: Annotated[
        list[Path], typer.Option(help="Folder in BEIR layout to fit on, not one to measure with; may be repeated.")
    ],
    model: Annotated[Path | None, typer.Option(help="Model folder. Default: the model that is shipped.")] = None,
    out: Annotated[Path | None, typer.Option(help="File to write. Default: fusion.json in the model's folder.")] = None,
    material: Annotated[
        Path | None,
        typer.Option(help="Folder to keep embeddings in; what is there of this model and a set is not encoded again."),
    ] = None,
    blur: Annotated[
        float | None,
        typer.Option(
            min=0,
            max=2,
            help="How far queries' embeddings are led astray, where the model was trained on the data. Default: until "
            "dense search is on average no better than sparse. 0 fits to the data as it is.",
        ),
    ] = None,
) -> None:
    """Fit how much BM25 counts in hybrid search; print nDCG@10 by set, held out too: by weights of the other sets."""
    from encoder.errors import InvalidInput
    from encoder.evaluation.datasets import load_evaluation_sets
    from encoder.hub import is_hub_id
    from encoder.progress import reporting
    from services.search.fusion import FUSION_FILE
    from services.search.fusion_fitting import fit

    settings = CommandSettings.load({"model": model} if model else {})
    if out is None and is_hub_id(settings.model):
        raise InvalidInput("out", f"{settings.model} is no folder to write {FUSION_FILE} into; give --out FILE.")
    target = out or settings.model / FUSION_FILE
    if not target.parent.is_dir():  # told now rather than after minutes
        raise InvalidInput("out", f"{target} cannot be written (no folder {target.parent}).")
    sets = load_evaluation_sets(dataset)
    with reporting() as report_of:
        materials = asyncio.run(_gather(settings, sets, material, report_of))
        fitted = fit(materials, blur, report_of("fusion"))
    fitted.weights.save(target)
    typer.echo(_describe(fitted, target))


async def _gather(
    settings: CommandSettings, sets: Sequence[EvaluationSet], folder: Path | None, report_of: ReportOf
) -> dict[str, Material]:
    """Take from the folder what is there, and encode the rest; the model is loaded only where something is missing."""
    from encoder.evaluation.results import Chunks
    from encoder.fingerprint import index_fingerprint, model_fingerprint
    from encoder.tokenizer import Tokenizer
    from ingest.chunk_encoding import ChunksAlone
    from ingest.chunking import Chunker
    from services.evaluation.evaluation import System
    from services.in_process import load_encoder
    from services.search.fusion_material import Material, describe, gather

    tokenizer = Tokenizer.load(settings.model)
    chunker = Chunker(tokenizer)
    fingerprint = index_fingerprint(model_fingerprint(settings.model), chunker.fingerprint)
    materials: dict[str, Material] = {}
    system: System | None = None
    try:
        for found in sets:
            about = describe(found, fingerprint)
            path = folder / f"{found.name}.npz" if folder else None
            known = Material.load(path, about) if path else None
            if known is None:
                if system is None:
                    encoder = await load_encoder(settings)
                    system = System(str(settings.model), encoder, tokenizer, chunker, ChunksAlone(), Chunks.ALONE)
                known = await gather(found, system, report_of(found.name))
                if path:
                    known.save(path, about)
            materials[found.name] = known
    finally:
        if system:
            await system.encoder.close()
    return materials


def _describe(fitted: Fitted, target: Path) -> str:
    lines = [f"{'set':<28} {'dense':>7} {'sparse':>7} {'hybrid':>7} {'held out':>8}"]
    for name, found in fitted.sets.items():
        held_out = "" if found.hybrid_held_out is None else f"{found.hybrid_held_out:.4f}"
        lines.append(f"{name:<28} {found.dense:>7.4f} {found.sparse:>7.4f} {found.hybrid:>7.4f} {held_out:>8}")
    rows = list(fitted.sets.values())
    means = [
        sum(values) / len(rows) for values in zip(*((row.dense, row.sparse, row.hybrid) for row in rows), strict=True)
    ]
    lines.append(f"{'mean':<28} " + " ".join(f"{value:>7.4f}" for value in means))
    numbers = fitted.weights.model_dump(exclude={"query"})
    weights = ", ".join(f"{key} {value}" for key, value in numbers.items()) + ", and what a query's embedding says"
    return "\n".join(
        [*lines, f"nDCG@10, with embeddings of queries led astray by {fitted.blur:.3f}", f"{target}: {weights}"]
    )
