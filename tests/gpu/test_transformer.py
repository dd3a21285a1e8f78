"""On an NVIDIA GPU: the Transformer of the experiments says what it says on a CPU, compiled and not."""

from pathlib import Path

import pytest
import torch

from encoder.model import EncoderModel
from encoder.model_config import ModelConfig
from encoder.text_encoder import TextEncoder
from encoder.training.optimizing import compile_blocks
from tests.tiny_model import save_tiny_model, tiny_config

if not torch.cuda.is_available():
    pytest.skip("no CUDA device", allow_module_level=True)

SIZES = {"bidirectional": True, "d_state": 0, "d_model": 128, "n_layers": 3, "head_dim": 64, "pooling": "mean"}
COSINE_MIN = 0.999  # bfloat16, rounded in other places


@pytest.fixture
def config() -> ModelConfig:
    return tiny_config(architecture="transformer", **SIZES)


def test_texts_of_many_lengths(tmp_path: Path) -> None:
    folder = save_tiny_model(tmp_path / "model", architecture="transformer", **SIZES)
    texts = ["a short text", "of middling length, " * 20, "x", "much longer. " * 600, "of middling length, " * 20]
    found, expected = (
        TextEncoder.load(folder, device=device).encode_passages(texts).embeddings for device in ("cuda", "cpu")
    )
    assert (found * expected).sum(axis=1).min() >= COSINE_MIN


def test_padded_rows_and_their_gradient(config: ModelConfig) -> None:
    torch.manual_seed(0)
    model = EncoderModel(config)
    tokens, ends = torch.randint(0, 100, (64, 128)), torch.randint(0, 128, (64,))
    target = torch.randn(64, config.embedding_dim)
    gradients, embeddings = {}, {}
    for name, device, dtype in (("cpu", "cpu", torch.float32), ("cuda", "cuda", torch.bfloat16)):
        model.to(device).zero_grad()
        if device == "cuda":
            compile_blocks([model])
        found = model(tokens.to(device), ends.to(device), dtype)
        (found * target.to(device)).sum().backward()
        embeddings[name] = found.detach().cpu()
        gradients[name] = torch.cat([each.grad.cpu().flatten() for each in model.parameters() if each.grad is not None])
    assert torch.cosine_similarity(embeddings["cuda"], embeddings["cpu"]).min() >= COSINE_MIN
    assert torch.cosine_similarity(gradients["cuda"], gradients["cpu"], dim=0) >= 0.99
