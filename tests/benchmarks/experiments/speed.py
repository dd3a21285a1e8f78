"""Inference by length: tokens a second of Mamba and of the Transformer of its size, in one process.

    python -m tests.benchmarks.experiments.speed --results build/paper-speed.jsonl

Both have the sizes of ``runs.py`` and weights at random (``--models`` takes trained folders), and go through
``TextEncoder``, so that each takes the fastest path that this project has for it: on a GPU mamba_ssm's kernels, and
torch's flash attention; neither is compiled further. Texts have equal lengths, so that nothing is padded, and as many
are read at once as fill ``--tokens``: on a CPU at least one for each core. Rounds alternate, and the median counts. A
line per length and model goes to the end of ``--results``.
"""

from __future__ import annotations

import argparse
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import torch

from encoder.checkpoint import save_model
from encoder.model import EncoderModel
from encoder.model_config import DEFAULT_MODEL_FOLDER
from encoder.text_encoder import TextEncoder
from encoder.tokenizer import TOKENIZER_FILE
from tests.benchmarks.experiments.quality import add_row
from tests.benchmarks.experiments.runs import config_of

MODELS = ("mamba", "transformer")
LENGTHS_CPU = (512, 2048, 8192)
LENGTHS_GPU = (512, 2048, 8192, 32_768, 131_072)
TOKENS_OF_CORE, TOKENS_GPU = 8192, 131_072


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--results", type=Path, required=True, help="JSON lines, added at the end")
    parser.add_argument("--models", type=Path, nargs=2, help="folders of a Mamba and a Transformer; default: random")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--lengths", type=int, nargs="+", help="tokens; default: up to 8K on a CPU, 128K on a GPU")
    parser.add_argument("--tokens", type=int, help="read at once; default: 8,192 a core of a CPU, 131,072 on a GPU")
    parser.add_argument("--rounds", type=int, default=5)
    given = parser.parse_args(arguments)
    on_gpu = given.device != "cpu"
    lengths = given.lengths or (LENGTHS_GPU if on_gpu else LENGTHS_CPU)
    at_once = given.tokens or (TOKENS_GPU if on_gpu else TOKENS_OF_CORE * torch.get_num_threads())
    with tempfile.TemporaryDirectory() as folder:
        folders = given.models or [random_model(name, Path(folder) / name) for name in MODELS]
        encoders = [TextEncoder.load(path, device=given.device) for path in folders]
    device = torch.cuda.get_device_name() if on_gpu else f"CPU, {torch.get_num_threads()} threads"
    for length in lengths:
        rows = max(1, at_once // length)
        times = measure(encoders, rows, length, given.rounds)
        medians = [statistics.median(each) for each in times]
        for name, encoder, median, each in zip(MODELS, encoders, medians, times, strict=True):
            row = {
                "experiment": "speed",
                "system": name,
                "device": device,
                "path": encoder.path.name,
                "length": length,
                "rows": rows,
                "tokens_per_s": round(rows * length / median),
                "fastest": round(rows * length / min(each)),
                "slowest": round(rows * length / max(each)),
            }
            add_row(given.results, row)
        print(f"{length:,} tokens: Mamba is {medians[1] / medians[0]:.2f} times as fast", file=sys.stderr, flush=True)
    return 0


def random_model(name: str, folder: Path) -> Path:
    """Write a model of a run's size, weights at random."""
    config = config_of(name, Path("runs"), []).model.fresh
    assert config is not None  # all of these runs begin with a fresh model
    torch.manual_seed(0)
    save_model(folder, EncoderModel(config))
    shutil.copyfile(DEFAULT_MODEL_FOLDER / TOKENIZER_FILE, folder / TOKENIZER_FILE)
    return folder


def measure(encoders: Sequence[TextEncoder], rows: int, length: int, rounds: int) -> list[list[float]]:
    """Seconds that each model takes for the same rows, in alternating rounds; the first of them does not count."""
    generator = torch.Generator().manual_seed(length)
    # The end-of-sequence token is the last of a text's tokens.
    ids = torch.randint(1000, 30_000, (rows, length - 1), generator=generator).tolist()
    times: list[list[float]] = [[] for _ in encoders]
    for number in range(rounds + 1):
        for encoder, collected in zip(encoders, times, strict=True):
            started = time.perf_counter()
            encoder.encode_tokenized_passages(ids)
            if number:
                collected.append(time.perf_counter() - started)
    return times


if __name__ == "__main__":
    sys.exit(main())
