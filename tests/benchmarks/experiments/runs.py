"""Mamba against a Transformer, its ablations, and sizes: trained alike from random weights, then measured alike.

    python -m tests.benchmarks.experiments.runs --datasets datasets --results build/paper-runs.jsonl [--only mamba,…]

Runs are ``encoder/training/configs/paper.toml`` with the changes below: same seed, texts, batches and steps. Each has a
folder under ``--runs`` and goes on where it was interrupted. Several of these programs may run at once, one a GPU
(``CUDA_VISIBLE_DEVICES``), over one cache. A line per run and set goes to the end of ``--results``.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple

import ir_measures  # noqa: F401 - evaluation asks for it after minutes of training
import torch

from encoder.checkpoint import build_empty
from encoder.evaluation.datasets import EvaluationSet, load_evaluation_set
from encoder.model_config import DEFAULT_MODEL_FOLDER, load_model_config
from encoder.text_encoder import TextEncoder
from encoder.tokenizer import Tokenizer
from encoder.training.config import TrainConfig, read_config
from encoder.training.logs import LOG_FILE
from encoder.training.loop import train
from tests.benchmarks.experiments.quality import (
    ChunkedDocument,
    add_row,
    chunk_documents,
    embed_passages,
    embed_queries,
    ndcg,
)

_TRANSFORMER = (
    'model.fresh={name = "transformer-27m", architecture = "transformer", bidirectional = true, d_model = 384, '
    'n_layers = 8, head_dim = 64, expand = 3, vocabulary_size = 30528, projection_dim = 384, eos_token = "[SEP]", '
    'passage_tokens_max = 262144, pooling = "POOLING"}'
)

# What each run changes. The first four have 27.0 to 27.2M parameters: a layer more where B, C and time steps are not
# projected, half the layers where each has two mixers.
RUNS: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "mamba": (),
        "transformer": (_TRANSFORMER.replace("POOLING", "mean"),),
        "unselective": ("model.fresh.name=unselective-27m", "model.fresh.selective=false", "model.fresh.n_layers=17"),
        "bidirectional": (
            "model.fresh.name=bidirectional-27m",
            "model.fresh.bidirectional=true",
            "model.fresh.n_layers=8",
        ),
        "mamba-8m": ("model.fresh.name=mamba-8m", "model.fresh.d_model=192", "model.fresh.n_layers=8"),
        "mamba-60m": ("model.fresh.name=mamba-60m", "model.fresh.d_model=640"),
        # With the pooling that they do not have above.
        "mamba-mean": ("model.fresh.name=mamba-mean-27m", "model.fresh.pooling=mean"),
        "transformer-eos": (_TRANSFORMER.replace("POOLING", "eos"),),
        "bidirectional-mean": (
            "model.fresh.name=bidirectional-mean-27m",
            "model.fresh.bidirectional=true",
            "model.fresh.n_layers=8",
            "model.fresh.pooling=mean",
        ),
    }
)
DEFAULT_RUNS = tuple(RUNS)[:8]


class PreparedSet(NamedTuple):
    """An evaluation set, tokenized once for all models."""

    found: EvaluationSet
    documents: Sequence[ChunkedDocument]


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--only", default=",".join(DEFAULT_RUNS), help=f"of {', '.join(RUNS)}; default: the first eight"
    )
    parser.add_argument("--datasets", type=Path, required=True, help="folder of evaluation sets in BEIR layout")
    parser.add_argument("--results", type=Path, required=True, help="JSON lines, added at the end")
    parser.add_argument("--runs", type=Path, default=Path("runs"), help="where models are made")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="changes all runs, last")
    given = parser.parse_args(arguments)
    names = given.only.split(",")
    configs = {name: config_of(name, given.runs, given.set) for name in names}
    sets = prepare_sets(given.datasets)
    for name, config in configs.items():
        torch.compiler.reset()  # shapes of other models would fill the limit of recompilations
        started = time.perf_counter()
        if not train(config):
            return 130  # interrupted; the same command goes on
        print(f"{name}: trained in {time.perf_counter() - started:.0f} s", file=sys.stderr, flush=True)
        for row in evaluate(name, config, sets):
            add_row(given.results, row)
    return 0


def config_of(name: str, runs: Path, changes: Sequence[str]) -> TrainConfig:
    """Give a run's configuration; ``SystemExit`` for a name that is not in ``RUNS``."""
    if name not in RUNS:
        raise SystemExit(f"--only names {name!r}; the runs are {', '.join(RUNS)}.")
    return read_config(Path("paper"), [*RUNS[name], f"out={runs / f'paper-{name}'}", *changes])


def prepare_sets(folder: Path) -> list[PreparedSet]:
    """Read and tokenize all sets in a folder."""
    tokenizer = Tokenizer.load(DEFAULT_MODEL_FOLDER)
    sets = [load_evaluation_set(path) for path in sorted(folder.iterdir()) if path.is_dir()]
    return [PreparedSet(found, chunk_documents(found, tokenizer)) for found in sets]


def evaluate(name: str, config: TrainConfig, sets: Sequence[PreparedSet]) -> list[dict[str, object]]:
    """Measure a trained model on each set, chunks on their own."""
    logged = json.loads((config.out / LOG_FILE).read_text(encoding="utf-8").splitlines()[-1])
    model = load_model_config(config.out)
    encoder = TextEncoder.load(config.out, device=config.device)
    about = {
        "experiment": "runs",
        "run": name,
        "parameters": sum(parameter.numel() for parameter in build_empty(model).parameters()),
        "steps": int(logged["step"]),
        "tokens": int(logged["tokens"]),
        "train_s": logged["spent_s"],
        "seed": config.run.seed,
        "device": torch.cuda.get_device_name() if encoder.device.type == "cuda" else "CPU",
    }
    rows = []
    for found, documents in sets:
        started = time.perf_counter()
        vectors = embed_passages(encoder, [passage for document in documents for passage in document.alone()])
        queries = embed_queries(encoder, list(found.queries.values()))
        quality = ndcg(found, queries, vectors, [len(document.chunks) for document in documents])
        seconds = round(time.perf_counter() - started, 1)
        rows.append({**about, "dataset": found.name, **quality, "evaluate_s": seconds})
    return rows


if __name__ == "__main__":
    sys.exit(main())
