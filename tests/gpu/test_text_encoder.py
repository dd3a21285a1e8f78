"""On an NVIDIA GPU: the default model says what it says on a CPU."""

import numpy as np
import pytest
import torch

from encoder.model_config import DEFAULT_MODEL_FOLDER
from encoder.text_encoder import TextEncoder

if not torch.cuda.is_available():
    pytest.skip("no CUDA device", allow_module_level=True)

# Both compute in bfloat16, and round in other places.
COSINE_MIN = 0.999


@pytest.fixture(scope="module")
def on_gpu() -> TextEncoder:
    return TextEncoder.load(DEFAULT_MODEL_FOLDER, device="cuda")


@pytest.fixture(scope="module")
def on_cpu() -> TextEncoder:
    return TextEncoder.load(DEFAULT_MODEL_FOLDER, device="cpu")


def test_passages(on_gpu: TextEncoder, on_cpu: TextEncoder) -> None:
    texts = ["a short text", "of middling length, " * 20, "x", "much longer. " * 600, "of middling length, " * 20]
    found, expected = on_gpu.encode_passages(texts).embeddings, on_cpu.encode_passages(texts).embeddings
    assert (found * expected).sum(axis=1).min() >= COSINE_MIN


def test_a_document(on_gpu: TextEncoder, on_cpu: TextEncoder) -> None:
    """On a CPU in many pieces; and continued from its state."""
    ids = np.random.default_rng(0).integers(1000, 30_000, 17_000)
    ends = np.append(np.arange(250, len(ids), 250), len(ids))
    results = {}
    for name, encoder in (("gpu", on_gpu), ("cpu", on_cpu)):
        document = encoder.open_document(keep_state=True)
        results[name] = document.read(ids, ends)
        again = encoder.open_document(state=document.finish())
        last = again.read(ids[ends[-2] :], [len(ids) - ends[-2]])
        assert float(last[-1] @ results[name][-1]) >= COSINE_MIN
    assert (results["gpu"] * results["cpu"]).sum(axis=1).min() >= COSINE_MIN
