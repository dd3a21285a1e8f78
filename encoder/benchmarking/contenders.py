"""Makes whoever is measured: our paths through ``TextEncoder``, and other encoders of like size (``others.py``)."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from encoder.benchmarking.models import ModelSource
from encoder.benchmarking.others import Other, Skipped, make_other
from encoder.benchmarking.results import OURS, System
from encoder.benchmarking.timing import Batch, Reading, failure, held_bytes, release
from encoder.kernels.choosing import Kernels
from encoder.text_encoder import TextEncoder

_KERNELS: dict[System, Kernels] = {
    System.FUSED: "fused",
    System.FUSED_FP8: "fused",
    System.MAMBA_SSM: "mamba_ssm",
    System.CPU: "auto",
    System.TORCH: "torch",
}


@dataclass(frozen=True, slots=True)
class Contender:
    """Somebody ready to read, or the reason why not (then ``read`` is None)."""

    system: System
    read: Reading | None = None
    linear: bool = False  # in the length of a text, for certain
    encoder: TextEncoder | None = None  # of ours
    about: str = ""
    parameters: int | None = None
    skipped: str = ""
    kept_bytes: int = 0  # of the device, between passes
    seconds: float = 0.0  # to make it


def make_contenders(
    systems: Sequence[System],
    source: ModelSource,
    device: torch.device,
    dtype: torch.dtype,
    tokens_max: int,
) -> Iterator[Contender]:
    """Make one after the other; ``tokens_max`` are those of the longest text. Whatever cannot be made says why."""
    for system in systems:
        started, before = time.perf_counter(), held_bytes(device)
        try:
            if system in OURS:
                made = _make_ours(system, source, device, dtype)
            else:
                made = _of(system, make_other(system, source.config, device, dtype, tokens_max))
        except Skipped as error:
            made = Contender(system, skipped=str(error))
        except Exception as error:  # noqa: BLE001 - other packages raise what they like
            made = Contender(system, skipped=failure(error))
        if made.skipped:
            release(device)
        kept = held_bytes(device) - before
        yield replace(made, kept_bytes=kept, seconds=time.perf_counter() - started)


def read_rows(encoder: TextEncoder, dtype: torch.dtype, batch: Batch) -> Tensor:
    """Embed texts of one length as the encoder does: packed, or in pieces where one is longer than a pack.

    A pack that a CUDA graph takes is read by it, from ids on the CPU.

    Returns ``(n, d)`` float32; texts in pieces leave the device on the way.
    """
    rows, length = batch.ids.shape
    if length > encoder.path.pack_tokens and encoder.reads_in_pieces:
        return torch.from_numpy(np.concatenate([encoder.open_row().read(row, [length]) for row in batch.ids]))
    at_once = max(1, encoder.path.pack_tokens // length)
    one_call = encoder.path.one_call
    embeddings = []
    with torch.inference_mode():
        for start in range(0, rows, at_once):
            tokens = batch.tokens[start : start + at_once]
            lengths = [length] * len(tokens)
            if one_call is not None and one_call.takes(lengths):
                found = one_call.embed([torch.from_numpy(row) for row in batch.ids[start : start + at_once]])
            else:
                found = encoder.model.embed_packed(tokens.reshape(1, -1), lengths, dtype)
            embeddings.append(found)
    return torch.cat(embeddings)


def _make_ours(system: System, source: ModelSource, device: torch.device, dtype: torch.dtype) -> Contender:
    if system is System.CPU and device.type != "cpu":
        return Contender(system, skipped="for CPUs only")
    try:
        encoder = TextEncoder(
            source.build(device, dtype),
            source.tokenizer,
            source.fingerprint,
            dtype,
            half_weights=system is System.CPU and dtype == torch.float32,
            eight_bits=system in (System.FUSED_FP8, System.CPU),
            kernels=_KERNELS[system],
        )
    except ValueError as error:
        return Contender(system, skipped=str(error))

    def read(batch: Batch) -> Tensor:
        return read_rows(encoder, dtype, batch)

    about = f"{encoder.path.name}, packs of {encoder.path.pack_tokens:,} tokens"
    linear = source.config.architecture != "transformer"
    return Contender(system, read, linear, encoder, about, parameters=source.parameters)


def _of(system: System, other: Other) -> Contender:
    model = other.model

    def read(batch: Batch) -> Tensor:
        with torch.inference_mode():
            return other.pool(model, batch.tokens)

    parameters = sum(parameter.numel() for parameter in model.parameters())
    return Contender(system, read, other.linear, about=other.about, parameters=parameters)
