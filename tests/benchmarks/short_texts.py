"""CPU time of a query in the layers: torch's usual path, its path of short texts, onnxruntime, in turns, on one thread.

The default model reads questions of the evaluation set that ships, alone and several at once; onnxruntime's figures
hold pooling and projection, too. The median says what a query costs on the machine as it is, the least what it costs
when nothing else disturbs the caches.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import torch

from encoder.checkpoint import load_model
from encoder.interface import TokenRow
from encoder.kernels.onnx_texts import OnnxTexts
from encoder.model_config import DEFAULT_MODEL_FOLDER
from encoder.packing import Packing
from encoder.text_encoder import TextEncoder, preferred_dtype
from tests.benchmarks.load.texts import read_questions


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--questions", type=int, default=320)
    options = parser.parse_args()
    torch.set_num_threads(1)
    encoder = TextEncoder.load(DEFAULT_MODEL_FOLDER, device="cpu", threads=1)
    dtype = preferred_dtype(torch.device("cpu"))
    texts = OnnxTexts.of(load_model(DEFAULT_MODEL_FOLDER, "cpu", dtype))
    rows = encoder.query_rows(read_questions()[: options.questions])
    print("CPU ms a query: median, least")
    print("at once        usual short texts onnxruntime")
    for count in (1, 4, 16):
        packs = [rows[first : first + count] for first in range(0, len(rows) - count + 1, count)]
        measure(encoder, dtype, texts, packs[0])  # what is done once
        ways = zip(*(measure(encoder, dtype, texts, pack) for pack in packs), strict=True)
        figures = [f"{statistics.median(times) / count:6.2f} {min(times) / count:5.2f}" for times in ways]
        print(f"{count:7d} {'  '.join(figures)}", flush=True)


@torch.inference_mode()
def measure(
    encoder: TextEncoder, dtype: torch.dtype, texts: OnnxTexts | None, pack: list[TokenRow]
) -> tuple[float, ...]:
    """Give the milliseconds of CPU time of one pack by each way, that of onnxruntime only where it runs."""
    backbone = encoder.model.backbone
    ordered = sorted(pack, key=len, reverse=True)
    tokens = torch.from_numpy(np.concatenate(ordered, dtype=np.int64))[None]
    packing = Packing.of([len(row) for row in ordered], encoder.model.config.d_conv)
    times = [
        milliseconds(lambda way=way: backbone(tokens, dtype, packing=way))
        for way in (replace(packing, padded=None), packing)
    ]
    if texts is not None:
        tensors = [torch.from_numpy(row) for row in ordered]
        times.append(milliseconds(lambda: texts.embed(tensors)))
    return tuple(times)


def milliseconds(work: Callable[[], object]) -> float:
    started = time.thread_time()
    work()
    return 1000 * (time.thread_time() - started)


if __name__ == "__main__":
    main()
