"""Other encoders to stand beside ours, with weights at random: those of transformers, and mamba_ssm's own model.

Mambas have our model's width, depth and vocabulary (one of the other generation: state 16 for Mamba-1, 128 for
Mamba-2). An attention layer with its MLP has 12 d² weights, a Mamba layer 6 d²; so BERT is as wide and half as deep,
and ModernBERT as wide and 11/12 as deep. Beside a Mamba of 130M these are BERT-base (12 layers, Devlin et al. 2019,
arXiv 1810.04805) and ModernBERT-base (22 layers, Warner et al. 2024, arXiv 2412.13663).
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from encoder.benchmarking.results import System
from encoder.model_config import ModelConfig

_HEAD = 64
_STATE1, _STATE2 = 16, 128
_CHUNK = 256  # of Mamba-2's scan, as in mamba_ssm


class Skipped(Exception):
    """There is nobody to measure; the text is the reason."""


class Other(NamedTuple):
    """A model, what it is, and how it gives one vector for each row of ``(n, l)`` ids."""

    model: nn.Module
    about: str
    pool: Callable[[nn.Module, Tensor], Tensor]
    linear: bool = False


def make_other(system: System, config: ModelConfig, device: torch.device, dtype: torch.dtype, tokens_max: int) -> Other:
    """Make a model beside ours, of which ``config`` tells; it is to read texts of up to ``tokens_max`` tokens.

    :class:`Skipped` says what is missing; what the packages raise passes through.
    """
    if system is System.MIXER:
        return _mixer(config, device, dtype)
    if importlib.util.find_spec("transformers") is None:
        raise Skipped("the package transformers is not installed")
    with torch.device(device):
        if system in (System.HF_MAMBA, System.HF_MAMBA2):
            other = _transformers_mamba(system, config)
        elif system is System.BERT:
            other = _bert(config, tokens_max)
        else:
            other = _modernbert(config, tokens_max, dtype, flash=system is System.MODERNBERT_FLASH)
    other.model.to(device=device, dtype=dtype).eval().requires_grad_(requires_grad=False)
    return other


def _mixer(config: ModelConfig, device: torch.device, dtype: torch.dtype) -> Other:
    if device.type != "cuda":
        raise Skipped("no CUDA device")
    if importlib.util.find_spec("mamba_ssm") is None:
        raise Skipped("the package mamba_ssm is not installed")
    from mamba_ssm.models.mixer_seq_simple import MixerModel

    layer: dict[str, object] = {"layer": "Mamba1", "d_state": config.d_state}
    if config.architecture == "mamba2":
        layer = {
            "layer": "Mamba2",
            "d_state": config.d_state,
            "headdim": config.head_dim,
            "ngroups": config.n_groups,
            "chunk_size": _CHUNK,
        }
    model = MixerModel(
        d_model=config.d_model,
        n_layer=config.n_layers,
        d_intermediate=0,
        vocab_size=config.vocabulary_size,
        ssm_cfg=layer | {"d_conv": config.d_conv, "expand": config.expand},
        rms_norm=True,
        fused_add_norm=True,
        residual_in_fp32=True,
        device=device,
        dtype=dtype,
    )
    model.eval().requires_grad_(requires_grad=False)
    return Other(model, _shape(config.n_layers, config.d_model), lambda mixer, ids: mixer(ids)[:, -1], linear=True)


def _transformers_mamba(system: System, config: ModelConfig) -> Other:
    import transformers

    own = config.architecture
    sizes: dict[str, Any] = {
        "vocab_size": config.vocabulary_size,
        "hidden_size": config.d_model,
        "num_hidden_layers": config.n_layers,
        "expand": config.expand,
    }
    model: nn.Module
    if system is System.HF_MAMBA:
        state = config.d_state if own == "mamba1" else _STATE1
        model = transformers.MambaModel(transformers.MambaConfig(**sizes, state_size=state))
    else:
        state, head = (config.d_state, config.head_dim) if own == "mamba2" else (_STATE2, _HEAD)
        sizes |= {"num_heads": config.d_inner // (head or _HEAD), "head_dim": head, "n_groups": config.n_groups}
        model = transformers.Mamba2Model(transformers.Mamba2Config(**sizes, state_size=state, chunk_size=_CHUNK))
    return Other(model, _shape(config.n_layers, config.d_model), _last_token)


def _bert(config: ModelConfig, tokens_max: int) -> Other:
    import transformers

    layers = max(1, config.n_layers // 2)
    sizes: dict[str, Any] = {
        "vocab_size": config.vocabulary_size,
        "hidden_size": config.d_model,
        "num_hidden_layers": layers,
        "num_attention_heads": max(1, config.d_model // _HEAD),
        "intermediate_size": 4 * config.d_model,
        "max_position_embeddings": max(512, tokens_max),  # beyond 512 it is about speed only
        "attn_implementation": "sdpa",
    }
    model = transformers.BertModel(transformers.BertConfig(**sizes), add_pooling_layer=False)
    return Other(model, _shape(layers, config.d_model), _first_token)


def _modernbert(config: ModelConfig, tokens_max: int, dtype: torch.dtype, *, flash: bool) -> Other:
    import transformers

    if flash and importlib.util.find_spec("flash_attn") is None:
        raise Skipped("the package flash_attn is not installed")
    layers = max(1, config.n_layers * 11 // 12)
    sizes: dict[str, Any] = {
        "vocab_size": config.vocabulary_size,
        "hidden_size": config.d_model,
        "num_hidden_layers": layers,
        "num_attention_heads": max(1, config.d_model // _HEAD),
        "intermediate_size": config.d_model * 3 // 2,
        "max_position_embeddings": max(8192, tokens_max),
        "attn_implementation": "flash_attention_2" if flash else "sdpa",
        "dtype": dtype,  # flash attention refuses float32 when it is made
    }
    sizes |= dict.fromkeys(["pad_token_id", "bos_token_id", "eos_token_id", "cls_token_id", "sep_token_id"], 0)
    model = transformers.ModernBertModel(transformers.ModernBertConfig(**sizes))
    return Other(model, _shape(layers, config.d_model), _first_token)


def _first_token(model: nn.Module, ids: Tensor) -> Tensor:
    found: Tensor = model(input_ids=ids).last_hidden_state[:, 0]
    return found


def _last_token(model: nn.Module, ids: Tensor) -> Tensor:
    found: Tensor = model(input_ids=ids, use_cache=False).last_hidden_state[:, -1]
    return found


def _shape(layers: int, width: int) -> str:
    return f"{layers} layer{'s' if layers > 1 else ''} of {width}"
