"""Our own kernels for Mamba on an NVIDIA GPU, in Triton: what they cover. Importing this needs no Triton."""

from __future__ import annotations

import mmap
import tempfile
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import torch

from encoder.model_config import ModelConfig

_TRITON_MIN = (3, 6)  # whose Gluon divides warps among tasks as ours asks it to
_TOKENS_MAX = 131_072
_INDEX_MAX = 2**31 - 1
_CAPABILITY_MIN = (9, 0)  # of devices that copy whole tiles: tensor descriptors are slow elsewhere
_SIDE_MIN, _SIDE_MAX = 16, 128  # of a head's state, which tensor cores multiply and registers must hold
_PLACES_MIN, _PLACES_MAX = 4, 32  # of a channel's state in Mamba-1, which one thread holds in registers
_COLUMN_MULTIPLE = 16  # of d_model, so that rows are read in steps of 16 bytes and more
_TAPS_MAX = 4
_WIDTH_MAX = 16_384  # of a row that one program norms


def missing(config: ModelConfig, device: torch.device, dtype: torch.dtype) -> str:
    """Say why a model cannot run on these kernels on a device; nothing if it can."""
    if config.architecture == "transformer" or not config.selective or config.bidirectional:
        return "they are for selective Mamba that reads one way"
    found = triton_version()
    if found is None:
        return "Triton is not installed"
    if found < _TRITON_MIN:
        return "Triton {}.{} is needed, not {}.{}".format(*_TRITON_MIN, *found)
    # What out_proj reads is not normed yet, and can be beyond a float16.
    if dtype != torch.bfloat16:
        return f"they multiply bfloat16, not {dtype}"
    capability = torch.cuda.get_device_capability(device)
    if capability < _CAPABILITY_MIN:
        return "compute capability {}.{} is needed, not {}.{}".format(*_CAPABILITY_MIN, *capability)
    if config.d_conv > _TAPS_MAX:
        return f"they convolve at most {_TAPS_MAX} taps, not {config.d_conv}"
    if config.d_model % _COLUMN_MULTIPLE:
        return f"d_model must be a multiple of {_COLUMN_MULTIPLE}, not {config.d_model}"
    if config.architecture == "mamba1":
        sides, least, most = {"d_state": config.d_state}, _PLACES_MIN, _PLACES_MAX
    else:
        sides = {"head_dim": config.d_inner // config.n_heads, "d_state": config.d_state}
        least, most = _SIDE_MIN, _SIDE_MAX
    for name, side in sides.items():
        if not least <= side <= most or side & (side - 1):
            return f"{name} must be a power of two from {least} to {most}, not {side}"
    if max(config.d_model, config.d_inner // config.n_groups) > _WIDTH_MAX:
        return f"d_model and a group's channels must be at most {_WIDTH_MAX}"
    return cache_problem(triton_cache())


def cache_problem(folder: Path) -> str:
    """Say why Triton cannot keep what it compiles in a folder, and load it from there; nothing if it can."""
    said = f"Triton compiles into {folder} (TRITON_CACHE_DIR), "
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder) as file:
            file.write(b"code")
            file.flush()
            try:
                mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ | mmap.PROT_EXEC).close()
            except PermissionError:
                return f"{said}from where no code can be loaded (is it mounted noexec?)"
    except OSError as error:
        return f"{said}which cannot be written ({error.strerror})"
    return ""


def triton_cache() -> Path:
    """Say where Triton, which must be installed, keeps what it compiles."""
    from triton import knobs

    return Path(knobs.cache.dir)


def tokens_per_call_max(config: ModelConfig) -> int:
    """Give how many tokens one forward pass may read before a library's 32-bit index could overflow."""
    projected = 2 * config.d_inner
    if config.architecture == "mamba2":
        projected += 2 * config.n_groups * config.d_state + config.n_heads
    return min(_TOKENS_MAX, _INDEX_MAX // projected)


def triton_version() -> tuple[int, int] | None:
    """Give Triton's version, if it is installed."""
    try:
        major, minor = version("triton").split(".")[:2]
    except PackageNotFoundError:
        return None
    return int(major), int(minor)
