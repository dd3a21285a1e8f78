"""Which code computes a model's blocks: what the fused kernels cover, and what is said where they do not."""

import mmap
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from encoder.kernels import choosing, fused, upstream
from encoder.kernels.choosing import prepare
from encoder.model import EncoderModel
from encoder.model_config import ModelConfig
from tests.tiny_model import tiny_config

CUDA = torch.device("cuda")
MAMBA1 = {"architecture": "mamba1", "head_dim": None, "d_state": 16}
HOPPER, AMPERE = (9, 0), (8, 0)


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[[tuple[int, int]], None]:
    """Let the machine seem to have a GPU of some compute capability, and Triton."""

    def have(capability: tuple[int, int]) -> None:
        monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: capability)
        monkeypatch.setattr(fused, "triton_version", lambda: (3, 6))
        monkeypatch.setattr(fused, "triton_cache", lambda: tmp_path)

    return have


def why_not(dtype: torch.dtype = torch.bfloat16, **changes: Any) -> str:
    config = tiny_config(**({"d_model": 64, "head_dim": 32, "d_state": 32} | changes))
    return fused.missing(config, CUDA, dtype)


def test_what_the_fused_kernels_cover(gpu: Callable[[tuple[int, int]], None]) -> None:
    gpu(HOPPER)
    assert why_not() == ""
    assert why_not(n_groups=2) == ""
    assert why_not(d_conv=3) == ""
    assert why_not(**MAMBA1) == ""


@pytest.mark.parametrize(
    ("words", "changes"),
    [
        ("d_state must be a power of two from 16 to 128, not 24", {"d_state": 24}),
        ("d_state must be a power of two from 16 to 128, not 256", {"d_state": 256}),
        ("head_dim must be a power of two from 16 to 128, not 8", {"head_dim": 8}),
        ("d_state must be a power of two from 4 to 32, not 64", MAMBA1 | {"d_state": 64}),
        ("d_model must be a multiple of 16, not 56", MAMBA1 | {"d_model": 56}),
        ("they convolve at most 4 taps, not 5", {"d_conv": 5}),
        ("reads one way", {"bidirectional": True}),
        ("selective", {"selective": False}),
        ("not torch.float32", {"dtype": torch.float32}),
        ("not torch.float16", {"dtype": torch.float16}),
    ],
)
def test_what_they_do_not_cover(gpu: Callable[[tuple[int, int]], None], words: str, changes: dict[str, Any]) -> None:
    gpu(HOPPER)
    assert words in why_not(**changes)


def test_older_gpus_and_machines_without_triton(
    gpu: Callable[[tuple[int, int]], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    gpu(AMPERE)
    assert why_not() == "compute capability 9.0 is needed, not 8.0"
    monkeypatch.setattr(fused, "triton_version", lambda: (3, 5))
    assert why_not() == "Triton 3.6 is needed, not 3.5"
    monkeypatch.setattr(fused, "triton_version", lambda: None)
    assert why_not() == "Triton is not installed"


def test_where_triton_cannot_keep_what_it_compiles(
    gpu: Callable[[tuple[int, int]], None], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    gpu(HOPPER)
    file = tmp_path / "file"
    file.touch()
    monkeypatch.setattr(fused, "triton_cache", lambda: file / "cache")
    assert (
        why_not() == f"Triton compiles into {file}/cache (TRITON_CACHE_DIR), which cannot be written (Not a directory)"
    )
    monkeypatch.setattr(fused, "triton_cache", lambda: tmp_path / "cache")
    assert why_not() == ""

    def refuse(*_: object, **__: object) -> None:
        raise PermissionError

    monkeypatch.setattr(mmap, "mmap", refuse)  # as on a file system that is mounted noexec
    assert "from where no code can be loaded" in why_not()


def test_the_reasons_are_told_and_the_next_best_is_taken(
    gpu: Callable[[tuple[int, int]], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    gpu(AMPERE)
    monkeypatch.setattr(upstream, "missing", lambda _: "no such package")
    model = EncoderModel(tiny_config())
    path, reasons = choosing._prepare_on_gpu(model, torch.bfloat16, "auto", eight_bits=False)
    assert path.name == "plain torch"
    assert reasons == [
        "fused kernels cannot: compute capability 9.0 is needed, not 8.0",
        "mamba_ssm cannot: no such package",
    ]
    for kernels in ("fused", "mamba_ssm"):
        with pytest.raises(ValueError, match=f"^{'fused kernels' if kernels == 'fused' else kernels} cannot: "):
            choosing._prepare_on_gpu(model, torch.bfloat16, kernels, eight_bits=False)
    assert choosing._prepare_on_gpu(model, torch.bfloat16, "torch", eight_bits=False)[1] == []


@pytest.mark.parametrize("kernels", ["fused", "mamba_ssm"])
def test_a_cpu_is_refused_what_it_cannot_run(kernels: choosing.Kernels) -> None:
    with pytest.raises(ValueError, match="run on CUDA devices, not on cpu"):
        prepare(EncoderModel(tiny_config()), torch.float32, kernels=kernels)


def test_a_cpu_can_be_told_to_compute_in_plain_torch() -> None:
    assert prepare(EncoderModel(tiny_config()), torch.float32, kernels="torch").name == "plain torch"
    assert prepare(EncoderModel(tiny_config()), torch.float32).name == "factored scan"


@pytest.mark.parametrize("size", ["mamba-130m", "mamba2-130m", "codestral-7b"])
def test_calls_are_bounded_by_what_32_bits_can_count(size: str) -> None:
    from encoder.sizes import SIZES

    config: ModelConfig = SIZES[size]
    width = 2 * config.d_inner
    if config.architecture == "mamba2":
        width += 2 * config.n_groups * config.d_state + config.n_heads
    assert 0 < fused.tokens_per_call_max(config) * width < 2**31


@pytest.mark.parametrize(
    ("d_model", "tokens"),
    [(384, 131_072), (768, 131_072), (1024, 131_072), (1536, 32_768), (2048, 32_768), (2560, 16_384), (4096, 8192)],
)
def test_wider_models_read_fewer_tokens_at_once(d_model: int, tokens: int) -> None:
    """A device has as much to do, and Codestral Mamba's 7B fits beside what it works in."""
    assert choosing._tokens_fused(d_model) == tokens
