"""What the device can do at most, measured, and how fast the model could be read if nothing else cost anything.

Measured: how many bytes a copy reads and writes in a second; how many operations a second products of matrices reach,
of a large square and of the model's own shapes at as many rows as a pass has tokens, in 16 bits and in 8. Of several
calls the fastest counts.

Of one token, in all L layers:

    products_s = L · Σ 2 k n / rate(k, n)     over the products with weights: (rows, k) by (k, n)
    traffic_s  = L · 2 · bytes / copy rate    each activation between two kernels read once and written once

The activations of a layer, Mamba-2: the residual (d, float32), what in_proj reads (d) and writes (w), what out_proj
reads (e), 16 bits each; in FP8, what products read has 8, and the residual 16. Mamba-1 has those around x_proj and
dt_proj, too. What a kernel may keep on the chip (the convolution's output, states, decays) counts for nothing, and so
do the products of the scan: how many there are is a choice.

    ceiling = 1 / (products_s + traffic_s)       one after the other, as kernels run
    roofline = 1 / max(products_s, traffic_s)    both at once, one hidden behind the other entirely

The products' own reading and writing is in both terms, so that kernels which hide it may come above the first.
Letters as in ``encoder/mamba.py``; w = 2 e + 2 g n + h is the width of in_proj's output (Mamba-1: 2 e).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from encoder.benchmarking.results import Ceilings, MatrixRate
from encoder.benchmarking.timing import failure, least_seconds, release
from encoder.model_config import ModelConfig

_ROUNDS = 10
_SQUARE = {"cuda": 8192, "cpu": 512}
_COPY_BYTES = {"cuda": 1 << 32, "cpu": 1 << 26}
_FP8_MULTIPLE = 16  # torch._scaled_mm takes no other widths


class Product(NamedTuple):
    """A layer's product with weights: ``(rows, k)`` by ``(k, n)``."""

    what: str
    k: int
    n: int


def products_of(config: ModelConfig) -> list[Product]:
    """List the products of one layer."""
    d, e, n = config.d_model, config.d_inner, config.d_state
    if config.architecture == "mamba1":
        rank = config.time_step_rank
        return [
            Product("in_proj", d, 2 * e),
            Product("x_proj", e, rank + 2 * n),
            Product("dt_proj", rank, e),
            Product("out_proj", e, d),
        ]
    return [Product("in_proj", d, 2 * e + 2 * config.n_groups * n + config.n_heads), Product("out_proj", e, d)]


def bytes_per_token(config: ModelConfig, *, fp8: bool = False) -> int:
    """Count the bytes of one read and one write of each activation, for a token in all layers."""
    inputs = 1 if fp8 else 2
    widths = sum(product.k * inputs + product.n * 2 for product in products_of(config)[:-1])
    last = products_of(config)[-1]  # what it gives is added to the residual at once
    residual = 2 if fp8 else 4
    return config.n_layers * 2 * (config.d_model * residual + widths + last.k * inputs)


def measure_ceilings(config: ModelConfig, device: torch.device, dtype: torch.dtype, rows: int) -> Ceilings:
    """Measure them, the model's products with ``rows`` rows; FP8 where torch has it for the device."""
    copied = _copy_rate(device)
    side = _SQUARE[device.type]
    square = _rate("square", side, side, side, device, dtype)
    products = products_of(config)
    rates = [_rate(product.what, rows, product.k, product.n, device, dtype) for product in products]
    release(device)
    traffic, traffic_fp8 = bytes_per_token(config), bytes_per_token(config, fp8=True)
    return Ceilings(
        copy_bytes_per_s=copied,
        rates=[square, *rates],
        bytes_per_token=traffic,
        bytes_per_token_fp8=traffic_fp8,
        flops_per_token=config.n_layers * sum(2 * product.k * product.n for product in products),
        products_s_per_token=_products_s(config, [rate.flops_per_s for rate in rates]),
        products_s_per_token_fp8=_products_s(config, [rate.fp8_flops_per_s for rate in rates]),
        traffic_s_per_token=traffic / copied,
        traffic_s_per_token_fp8=traffic_fp8 / copied,
    )


def _products_s(config: ModelConfig, rates: list[float | None]) -> float | None:
    total = 0.0
    for product, rate in zip(products_of(config), rates, strict=True):
        if rate is None:
            return None
        total += 2 * product.k * product.n / rate
    return config.n_layers * total


def _copy_rate(device: torch.device) -> float:
    """Give the bytes a second that a copy reads and writes."""
    size = _COPY_BYTES[device.type]
    source, target = (torch.empty(size, dtype=torch.uint8, device=device).zero_() for _ in range(2))
    return 2 * size / least_seconds(lambda: target.copy_(source), device, _ROUNDS)


def _rate(what: str, m: int, k: int, n: int, device: torch.device, dtype: torch.dtype) -> MatrixRate:
    flops, missing = _flops(_product(m, k, n, device, dtype), m, k, n, device)
    wide = n + -n % _FP8_MULTIPLE
    eight, eight_missing = (
        _flops(_fp8_product(m, k, wide, device), m, k, n, device) if device.type == "cuda" else (None, "no CUDA device")
    )
    return MatrixRate(
        what=what, m=m, k=k, n=n, flops_per_s=flops, fp8_flops_per_s=eight, fp8_missing=eight_missing or missing
    )


def _flops(
    make: Callable[[], Callable[[], Tensor]], m: int, k: int, n: int, device: torch.device
) -> tuple[float | None, str]:
    """Time a product; its operations a second, or why there are none."""
    try:
        seconds = least_seconds(make(), device, _ROUNDS)
    except Exception as error:  # noqa: BLE001 - what torch raises for a device without the product is its own affair
        release(device)
        return None, failure(error)
    return 2 * m * k * n / seconds, ""


def _product(m: int, k: int, n: int, device: torch.device, dtype: torch.dtype) -> Callable[[], Callable[[], Tensor]]:
    def make() -> Callable[[], Tensor]:
        left, right = torch.randn(m, k, device=device, dtype=dtype), torch.randn(n, k, device=device, dtype=dtype)
        out = torch.empty(m, n, device=device, dtype=dtype)
        return lambda: torch.mm(left, right.t(), out=out)

    return make


def _fp8_product(m: int, k: int, n: int, device: torch.device) -> Callable[[], Callable[[], Tensor]]:
    def make() -> Callable[[], Tensor]:
        eight = torch.float8_e4m3fn
        left, right = (torch.randn(size, k, device=device).to(eight) for size in (m, n))
        one = torch.ones((), device=device)
        return lambda: torch._scaled_mm(
            left, right.t(), scale_a=one, scale_b=one, out_dtype=torch.bfloat16, use_fast_accum=True
        )

    return make
