"""Hidden states against transformers' Mamba-1 and Mamba-2 on the CPU: random weights, float32, in plain torch and fast.

The last line gives the largest difference, as a share of the largest hidden state.
"""

from __future__ import annotations

import sys

import torch
import transformers

from encoder.kernels.choosing import prepare
from encoder.mamba import Mamba
from encoder.model_config import ModelConfig
from encoder.sizes import SIZES
from tests.random_weights import model_of

LENGTHS = (1, 17, 333, 2049)
DIFFERENCE_MAX = 1e-4


def main() -> int:
    worst = 0.0
    for name in ("mamba-130m", "mamba2-130m"):
        config = SIZES[name].model_copy(update={"n_layers": 4, "vocabulary_size": 1000})
        torch.manual_seed(0)
        backbone = Mamba(config).eval().requires_grad_(requires_grad=False)
        upstream = twin(backbone)
        generator = torch.Generator().manual_seed(0)
        tokens = {length: torch.randint(0, 1000, (2, length), generator=generator) for length in LENGTHS}
        expected = {length: hidden_states(upstream, ids) for length, ids in tokens.items()}
        for path in ("as trained", "as served"):
            if path == "as served":
                path += f" ({prepare(model_of(backbone), torch.float32).name})"
            for length, ids in tokens.items():
                with torch.inference_mode():
                    found, _ = backbone(ids, torch.float32)
                difference = float((found - expected[length]).abs().max() / expected[length].abs().max())
                worst = max(worst, difference)
                print(f"{name}, 4 layers, {path}, {length} tokens: {difference:.1e}", flush=True)
    passed = worst <= DIFFERENCE_MAX
    print(
        f"{'PASS' if passed else 'FAIL'}: largest relative difference to transformers {transformers.__version__} "
        f"{worst:.1e} (at most {DIFFERENCE_MAX:.0e})"
    )
    return 0 if passed else 1


def twin(backbone: Mamba) -> torch.nn.Module:
    """The same architecture in transformers, with the same weights."""
    model: torch.nn.Module
    if backbone.config.architecture == "mamba1":
        model = transformers.MambaModel(transformers.MambaConfig(**sizes(backbone.config)))
    else:
        heads = {"head_dim": backbone.config.head_dim, "num_heads": backbone.config.n_heads, "n_groups": 1}
        model = transformers.Mamba2Model(transformers.Mamba2Config(**sizes(backbone.config), **heads))
    model.load_state_dict(
        {name.replace("embedding.", "embeddings.", 1): w for name, w in backbone.state_dict().items()}
    )
    return model.eval()


def sizes(config: ModelConfig) -> dict[str, object]:
    return {
        "vocab_size": config.vocabulary_size,
        "hidden_size": config.d_model,
        "num_hidden_layers": config.n_layers,
        "state_size": config.d_state,
        "expand": config.expand,
        "conv_kernel": config.d_conv,
        "layer_norm_epsilon": config.norm_eps,
    }


@torch.inference_mode()
def hidden_states(model: torch.nn.Module, ids: torch.Tensor) -> torch.Tensor:
    states: torch.Tensor = model(ids, use_cache=False).last_hidden_state
    return states


if __name__ == "__main__":
    sys.exit(main())
