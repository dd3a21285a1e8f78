"""Which model answers questions, and within which limits."""

from __future__ import annotations

import ipaddress
from pathlib import Path
from typing import Self
from urllib.parse import urlsplit

import pydantic
from pydantic import Field, SecretStr

from encoder.errors import InvalidInput
from services.reading_settings import Settings

KEY_FILE_BYTES_MAX = 8192


class LlmSettings(Settings):
    """A language model behind an OpenAI-compatible chat API."""

    llm_url: str = Field(
        "http://localhost:11434/v1",
        pattern=r"^https?://[^\s/?#@]+(/[^\s?#]*)?$",
        description="Address of the chat API that `ask` asks, without /chat/completions. Default: Ollama's.",
    )
    llm_model: str = Field(
        "codestral-mamba", min_length=1, max_length=200, description="Name of the model there that answers."
    )
    llm_api_key: SecretStr | None = Field(
        None, min_length=1, max_length=4096, description="Key of that API. Default: none is sent."
    )
    llm_api_key_file: Path | None = Field(None, description="File with that key, in place of it.")
    llm_context_tokens: int = Field(
        3000,
        ge=128,
        le=131_072,
        description="Tokens of passages that the model is given, by the encoder's tokenizer; its own may count more.",
    )
    llm_answer_tokens_max: int = Field(1024, ge=16, le=131_072, description="Longest answer, in the model's tokens.")
    llm_timeout_s: float = Field(
        120.0, gt=0, le=3600, description="Longest silence of the model: before its answer, and within it."
    )
    llm_attempts_max: int = Field(
        3, ge=1, le=10, description="How often it is asked where it is busy or fails, before its answer begins."
    )

    @pydantic.model_validator(mode="after")
    def _check_key(self) -> Self:
        if self.llm_api_key is not None and self.llm_api_key_file is not None:
            raise ValueError("llm_api_key and llm_api_key_file exclude each other; give one of them")
        if self.llm_api_key is None and self.llm_api_key_file is None:
            return self
        parts = urlsplit(self.llm_url)
        if parts.scheme == "http" and not _is_local(parts.hostname or ""):
            raise ValueError(f"llm_url is {self.llm_url}: a key would travel there unencrypted; give an https address")
        return self

    def llm_key(self) -> str | None:
        """Give the key, read from its file where there is one; :class:`InvalidInput` where that cannot be read."""
        if self.llm_api_key is not None:
            return self.llm_api_key.get_secret_value()
        if self.llm_api_key_file is None:
            return None
        try:
            with self.llm_api_key_file.open("rb") as file:
                key = file.read(KEY_FILE_BYTES_MAX + 1).decode("ascii").strip()
        except (OSError, UnicodeDecodeError) as error:
            reason = getattr(error, "strerror", None) or "it is no ASCII text"
            raise InvalidInput(
                "llm_api_key_file", f"llm_api_key_file {self.llm_api_key_file} cannot be read ({reason})."
            ) from None
        if not key.isprintable() or not key or " " in key or len(key) > KEY_FILE_BYTES_MAX:
            raise InvalidInput("llm_api_key_file", f"llm_api_key_file {self.llm_api_key_file} holds no key: one word.")
        return key


def _is_local(host: str) -> bool:
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
