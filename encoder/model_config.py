"""What a model folder's ``config.json`` says, without torch: sizes, limits, pooling, and the fingerprint."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

import pydantic

from encoder.errors import CheckpointError
from encoder.layouts.options import read_json

CONFIG_FILE = "config.json"
WEIGHTS_FILE = "model.safetensors"
# Far above any model known: what is larger is a slip, and would take the memory before the weights are looked at.
_SIZE_MAX, _WIDTH_MAX, _LAYERS_MAX = 2**31 - 1, 2**16, 1024
DEFAULT_MODEL_FOLDER = Path(__file__).parent / "models" / "default"


class ModelConfig(pydantic.BaseModel):
    """The architecture and the encoder's settings, as ``config.json`` holds them. Unknown keys are refused.

    ``head_dim`` and ``n_groups`` belong to Mamba-2, ``dt_rank`` to Mamba-1 (unless given ``d_model / 16``, rounded up).
    ``transformer`` is for research, to compare with: it has ``head_dim`` and ``expand`` (the MLP's), no ``d_state``.
    """

    model_config = pydantic.ConfigDict(extra="forbid", frozen=True)

    name: str
    architecture: Literal["mamba1", "mamba2", "transformer"]
    vocabulary_size: int = pydantic.Field(ge=1, le=_SIZE_MAX)
    d_model: int = pydantic.Field(ge=1, le=_WIDTH_MAX)
    n_layers: int = pydantic.Field(ge=1, le=_LAYERS_MAX)
    d_state: int = pydantic.Field(default=0, ge=0, le=_WIDTH_MAX)
    head_dim: int | None = pydantic.Field(default=None, ge=1, le=_SIZE_MAX)
    expand: int = pydantic.Field(default=2, ge=1, le=64)
    d_conv: int = pydantic.Field(default=4, ge=2, le=_WIDTH_MAX)
    n_groups: int = pydantic.Field(default=1, ge=1, le=_SIZE_MAX)
    dt_rank: int | None = pydantic.Field(default=None, ge=1, le=_WIDTH_MAX)
    norm_eps: float = pydantic.Field(default=1e-5, gt=0, allow_inf_nan=False)
    # For research: False makes time step, B and C constants, so that every layer is a linear time-invariant system.
    selective: bool = True
    # For research: a second mixer in every layer reads from right to left; no document streams then.
    bidirectional: bool = False
    projection_dim: int | None = pydantic.Field(default=None, ge=1, le=_WIDTH_MAX)
    projection_bias: bool = False
    # What the tokenizer's output is wrapped in; a chunk inside a document gets the end token only.
    bos_token: str | None = None
    eos_token: str | None = None
    pooling: Literal["eos", "mean", "last"] = "eos"
    query_prompt: str = ""
    passage_prompt: str = ""
    query_tokens_max: int = pydantic.Field(default=512, ge=1, le=_SIZE_MAX)
    passage_tokens_max: int = pydantic.Field(default=8192, ge=1, le=_SIZE_MAX)

    @pydantic.field_validator("name", "bos_token", "eos_token", "query_prompt", "passage_prompt")
    @classmethod
    def _check_characters(cls, value: str | None) -> str | None:
        if value is not None and any("\ud800" <= character <= "\udfff" for character in value):
            raise ValueError("it is not whole Unicode text; write it in UTF-8")
        return value

    @pydantic.model_validator(mode="after")
    def _check(self) -> ModelConfig:
        if self.architecture == "transformer":
            self._check_transformer()
        elif not self.d_state:
            raise ValueError(f"architecture {self.architecture} needs d_state, 1 or more")
        elif self.architecture == "mamba2":
            self._check_heads()
        elif self.head_dim is not None or self.n_groups != 1:
            raise ValueError("head_dim and n_groups belong to architecture mamba2; leave them out for mamba1")
        if self.architecture != "mamba1" and self.dt_rank is not None:
            raise ValueError(f"dt_rank belongs to architecture mamba1; leave it out for {self.architecture}")
        if self.pooling == "eos" and self.eos_token is None:
            raise ValueError("pooling eos needs an eos_token")
        return self

    def _check_heads(self) -> None:
        if self.head_dim is None:
            raise ValueError("architecture mamba2 needs head_dim")
        if self.d_inner % self.head_dim:
            raise ValueError(f"head_dim {self.head_dim} does not divide expand * d_model = {self.d_inner}")
        if self.n_heads % self.n_groups:
            raise ValueError(f"n_groups {self.n_groups} does not divide the {self.n_heads} heads")

    def _check_transformer(self) -> None:
        if not self.bidirectional:
            raise ValueError("architecture transformer reads both ways; set bidirectional to true")
        if self.d_state or self.n_groups != 1 or not self.selective:
            raise ValueError("d_state, n_groups and selective belong to Mamba; leave them out for transformer")
        if self.head_dim is None or self.head_dim % 2 or self.d_model % self.head_dim:
            raise ValueError(f"architecture transformer needs an even head_dim that divides d_model = {self.d_model}")

    @property
    def d_inner(self) -> int:
        """Width inside a block."""
        return self.expand * self.d_model

    @property
    def n_heads(self) -> int:
        """Heads of a Mamba-2 or Transformer layer."""
        if self.head_dim is None:
            raise ValueError("a Mamba-1 layer has no heads")
        return (self.d_model if self.architecture == "transformer" else self.d_inner) // self.head_dim

    @property
    def time_step_rank(self) -> int:
        """Width of the bottleneck that a Mamba-1 layer's time steps pass through."""
        return self.dt_rank or -(-self.d_model // 16)

    @property
    def embedding_dim(self) -> int:
        """Length of one embedding."""
        return self.projection_dim or self.d_model


def load_model_config(folder: Path) -> ModelConfig:
    """Read the ``config.json`` of a folder in our own layout; :class:`CheckpointError` names file and key at fault."""
    path = folder / CONFIG_FILE
    return check_config(path, read_json(path))


def check_config(path: Path, values: Mapping[str, object]) -> ModelConfig:
    """Make a configuration of what ``path`` says; :class:`CheckpointError` names the file and the key at fault."""
    try:
        return ModelConfig.model_validate(values)
    except pydantic.ValidationError as error:
        first = error.errors()[0]
        says = first["msg"].removeprefix("Value error, ")
        if not first["loc"]:
            raise CheckpointError(f"{path}: {says}.") from error
        key = ".".join(str(part) for part in first["loc"])
        if first["type"] == "missing":
            raise CheckpointError(f"{path}: {key} is missing; give a whole model folder.") from error
        if first["type"] == "extra_forbidden":
            raise CheckpointError(f"{path}: {key} is no key of a model's configuration; take it out.") from error
        raise CheckpointError(f"{path}: {key} is {repr(first['input'])[:100]}; {says}.") from error


def file_digest(path: Path) -> str:
    """SHA-256 of a file, hexadecimal; :class:`CheckpointError` where it cannot be read."""
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read ({error.strerror}); give a whole model folder.") from error
