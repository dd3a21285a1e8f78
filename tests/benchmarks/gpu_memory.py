"""Fails unless a document's length leaves the GPU's memory alone: one pass over random ids, with random weights.

    python tests/benchmarks/gpu_memory.py SIZE TOKENS...

SIZE is a name of encoder/sizes.py. A chunk ends after each 256 tokens. The last line is the figure.
"""

import gc
import sys
import time

import numpy as np
import torch

from encoder.model import EncoderModel
from encoder.model_config import DEFAULT_MODEL_FOLDER
from encoder.sizes import SIZES
from encoder.text_encoder import TextEncoder
from encoder.tokenizer import Tokenizer

DIFFERENCE_MAX = 0.10
CHUNK_TOKENS = 256
DTYPE = torch.bfloat16


def random_encoder(size: str) -> TextEncoder:
    config = SIZES[size].model_copy(update={"eos_token": "[SEP]", "pooling": "eos"})
    torch.manual_seed(0)
    torch.set_default_dtype(DTYPE)  # a large model is never in memory in float32
    try:
        with torch.device("cuda"):
            model = EncoderModel(config).eval().requires_grad_(False)
    finally:
        torch.set_default_dtype(torch.float32)
    return TextEncoder(model, Tokenizer.load(DEFAULT_MODEL_FOLDER), "random", DTYPE)


def embed(encoder: TextEncoder, tokens: int) -> float:
    """Embed a document of random ids; give the tokens read in a second."""
    ids = np.random.default_rng(tokens).integers(0, encoder.tokenizer.vocabulary_size, tokens)
    ends = np.append(np.arange(CHUNK_TOKENS, tokens, CHUNK_TOKENS), tokens)
    document = encoder.open_document()
    started = time.perf_counter()
    embeddings = document.read(ids, ends)
    speed = document.token_count / (time.perf_counter() - started)
    assert embeddings.shape == (len(ends), encoder.info.dimension)
    np.testing.assert_allclose(np.linalg.norm(embeddings, axis=1), 1, atol=1e-3)
    return speed


def main(size: str, lengths: list[int]) -> int:
    if not torch.cuda.is_available():
        print("FAIL: there is no GPU here; nothing was measured")
        return 1
    encoder = random_encoder(size)
    started = time.perf_counter()
    embed(encoder, 2 * encoder.path.piece_tokens)  # the first and the later pieces may call different kernels
    kept = torch.cuda.memory_allocated() / 2**20
    print(
        f"{size}, {DTYPE}, on {torch.cuda.get_device_name()} with {encoder.path.name}: {kept:.0f} MiB kept "
        f"(weights, what passes work in), first use took {time.perf_counter() - started:.0f} s",
        flush=True,
    )
    peaks = []
    for tokens in lengths:
        gc.collect()
        torch.cuda.reset_peak_memory_stats()
        speed = embed(encoder, tokens)
        peaks.append(torch.cuda.max_memory_allocated() / 2**20)
        print(f"{tokens:8d} tokens: peak {peaks[-1]:7.1f} MiB, {speed:9,.0f} tokens/s", flush=True)
    difference = max(peaks) / min(peaks) - 1
    verdict = "PASS" if difference < DIFFERENCE_MAX else "FAIL"
    print(
        f"{verdict}: peak memory of {size} differs by {difference:.1%} (under {DIFFERENCE_MAX:.0%}) over documents of "
        f"{min(lengths)} to {max(lengths)} tokens"
    )
    return 0 if verdict == "PASS" else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], [int(tokens) for tokens in sys.argv[2:]]))
