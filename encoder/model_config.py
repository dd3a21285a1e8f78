"""What a model folder's ``config.json`` says, without torch: sizes, limits, pooling, and the fingerprint."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Literal

import pydantic

from encoder.errors import CheckpointError

CONFIG_FILE = "config.json"
WEIGHTS_FILE = "model.safetensors"
DEFAULT_MODEL_FOLDER = Path(__file__).parent / "models" / "default"


class ModelConfig(pydantic.BaseModel):
    """The architecture and the encoder's settings, as ``config.json`` holds them. Unknown keys are refused."""

    model_config = pydantic.ConfigDict(extra="forbid", frozen=True)

    name: str
    architecture: Literal["mamba2"]
    vocabulary_size: int = pydantic.Field(ge=1)
    d_model: int = pydantic.Field(ge=1)
    n_layers: int = pydantic.Field(ge=1)
    d_state: int = pydantic.Field(ge=1)
    head_dim: int = pydantic.Field(ge=1)
    expand: int = pydantic.Field(default=2, ge=1)
    d_conv: int = pydantic.Field(default=4, ge=2)
    n_groups: int = pydantic.Field(default=1, ge=1)
    norm_eps: float = pydantic.Field(default=1e-5, gt=0)
    projection_dim: int | None = pydantic.Field(default=None, ge=1)
    eos_token: str
    pooling: Literal["eos"] = "eos"
    query_prompt: str = ""
    passage_prompt: str = ""
    query_tokens_max: int = pydantic.Field(default=512, ge=1)
    passage_tokens_max: int = pydantic.Field(default=8192, ge=1)

    @pydantic.model_validator(mode="after")
    def _check_heads(self) -> ModelConfig:
        if self.d_inner % self.head_dim:
            raise ValueError(f"head_dim {self.head_dim} does not divide expand * d_model = {self.d_inner}")
        if self.n_heads % self.n_groups:
            raise ValueError(f"n_groups {self.n_groups} does not divide the {self.n_heads} heads")
        return self

    @property
    def d_inner(self) -> int:
        """Width inside a block."""
        return self.expand * self.d_model

    @property
    def n_heads(self) -> int:
        """Heads of the state-space layer."""
        return self.d_inner // self.head_dim

    @property
    def embedding_dim(self) -> int:
        """Length of one embedding."""
        return self.projection_dim or self.d_model


def load_model_config(folder: Path) -> ModelConfig:
    """Read a model folder's ``config.json``; :class:`CheckpointError` names the file and the key at fault."""
    path = folder / CONFIG_FILE
    try:
        raw = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read ({error.strerror}); give a whole model folder.") from error
    except ValueError as error:
        raise CheckpointError(f"{path} is not JSON: {error}.") from error
    try:
        return ModelConfig.model_validate(raw)
    except pydantic.ValidationError as error:
        first = error.errors()[0]
        key = ".".join(str(part) for part in first["loc"]) or "(whole file)"
        raise CheckpointError(f"{path}: {key}: {first['msg']}.") from error


def file_digest(path: Path) -> str:
    """SHA-256 of a file, hexadecimal; :class:`CheckpointError` where it cannot be read."""
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read ({error.strerror}); give a whole model folder.") from error
