"""What each process may be told: one class per process, of groups that processes share."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Literal, Self

import pydantic
from pydantic import Field

from encoder.errors import InvalidInput
from encoder.model_config import DEFAULT_MODEL_FOLDER
from services.reading_settings import PREFIX, Settings, Target
from services.setting_groups import (
    ChunkSettings,
    DataSettings,
    DeviceSettings,
    EncoderTargetSettings,
    IndexTargetSettings,
    JobSettings,
    PassageModelSettings,
    QdrantSettings,
    QueryModelSettings,
    StateSettings,
)

# Unix sockets lie 66 characters below Ray's directory; the longest path a socket may have is 107.
RAY_DIR_CHARS_MAX = 40
# What `mamba-search up` tells the parts that it starts.
UP_DECIDES = ("encoder_target", "encoder_query_application", "encoder_passage_application", "index_target")


class BackendSettings(EncoderTargetSettings, IndexTargetSettings, QdrantSettings, ChunkSettings):
    """What search and ingestion both lean on."""


class EncoderSettings(QueryModelSettings, PassageModelSettings, DeviceSettings):
    """The encoder service. One model for both roles makes one deployment; two models make two."""

    encoder_host: Literal["127.0.0.1", "0.0.0.0"] = Field(  # noqa: S104 - the choice is the operator's
        "127.0.0.1", description="Address to listen on: 127.0.0.1, or 0.0.0.0 for all (no encryption, no keys)."
    )
    encoder_port: int = Field(9000, ge=1, le=65535, description="Port of the encoder service.")
    encoder_num_replicas: int = Field(1, ge=1, le=1024, description="Copies of each model.")
    encoder_num_gpus: float | None = Field(
        None,
        ge=0,
        le=64,
        description="GPUs of each replica; 0.5 shares one. Default: those of the machine, shared evenly, at most one.",
    )
    encoder_max_queued_requests: int = Field(
        32, ge=1, le=10_000, description="Requests that may wait in a replica for their turn; one more is refused."
    )
    encoder_max_ongoing_requests: int = Field(
        64,
        ge=4,
        le=20_000,
        description="Requests that Ray Serve hands to a replica at once, those about to be refused included.",
    )
    encoder_documents_max: int = Field(
        8,
        ge=1,
        le=1024,
        description="Documents that a replica reads at once, each with its state in memory; one more is refused.",
    )
    encoder_passages_per_turn: int | None = Field(
        None,
        ge=1,
        le=1024,
        description="Passages that a replica encodes before it looks for queries, or as many times 256 tokens of a "
        "document. Default: 8 on a CPU, 256 on a GPU.",
    )
    ray_dir: Path | None = Field(
        None, description="Directory for Ray's sockets and logs, removed at the end. Default: a new temporary one."
    )

    @pydantic.field_validator("ray_dir")
    @classmethod
    def _check_ray_dir(cls, value: Path | None) -> Path | None:
        if value is not None and not (value.is_absolute() and len(str(value)) <= RAY_DIR_CHARS_MAX):
            raise ValueError(f"it must be an absolute path of at most {RAY_DIR_CHARS_MAX} characters")
        return value

    @pydantic.model_validator(mode="after")
    def _check_queue(self) -> Self:
        least = self.encoder_max_queued_requests + self.encoder_documents_max + 2
        if self.encoder_max_ongoing_requests < least:
            raise ValueError(
                f"encoder_max_ongoing_requests is {self.encoder_max_ongoing_requests}; it must be at least "
                f"encoder_max_queued_requests + encoder_documents_max + 2 = {least}"
            )
        return self


class SearchDoorSettings(Settings):
    """The door of the search service."""

    search_host: str = Field("127.0.0.1", min_length=1, description="Address that the search service listens on.")
    search_port: int = Field(50051, ge=1, le=65535, description="Port of the search service.")
    search_timeout_s: float = Field(
        30.0, gt=0, le=600, description="Longest time for one search; a client's earlier deadline wins."
    )
    search_concurrency_max: int = Field(
        256, ge=1, le=10_000, description="Searches answered at once; one more is refused with RESOURCE_EXHAUSTED."
    )


class SearchSettings(SearchDoorSettings, QueryModelSettings, BackendSettings):
    """The search service."""


class IngestDoorSettings(StateSettings):
    """The door of the ingestion worker."""

    ingest_host: str = Field("127.0.0.1", min_length=1, description="Address that the ingestion worker listens on.")
    ingest_port: int = Field(50052, ge=1, le=65535, description="Port of the ingestion worker.")
    ingest_streams_max: int = Field(
        8, ge=1, le=1000, description="Ingestion streams served at once; one more is refused with RESOURCE_EXHAUSTED."
    )
    ingest_batch_tokens: int = Field(
        8192,
        ge=256,
        le=1_048_576,
        description="Tokens that are encoded together; two seconds of work for a CPU. For a GPU, 131072 and more.",
    )
    ingest_cutting_processes: int | None = Field(
        None,
        ge=0,
        le=64,
        description="Processes that cut documents into chunks, started with the first document; 0: the worker does it. "
        "Default: half the machine's cores, at most 4.",
    )
    journal_url: str | None = Field(
        None,
        description="Database of the journal: sqlite:///FILE, or postgresql+psycopg://… for workers on several "
        "machines. Default: a file in data_dir.",
    )
    collect_after_s: float = Field(
        60.0,
        ge=0,
        le=86_400,
        description="How long chunks of a replaced version stay in the index; no search may take longer.",
    )


class IngestSettings(IngestDoorSettings, JobSettings, PassageModelSettings, BackendSettings, DataSettings):
    """The ingestion worker."""


class IndexOwnerSettings(DataSettings):
    """The index owner: the one process that opens the embedded engine."""

    index_host: str = Field("127.0.0.1", min_length=1, description="Address that the index owner listens on.")
    index_port: int = Field(50053, ge=1, le=65535, description="Port of the index owner.")


class UpSettings(
    EncoderSettings,
    SearchDoorSettings,
    IngestDoorSettings,
    JobSettings,
    IndexOwnerSettings,
    QdrantSettings,
    ChunkSettings,
):
    """``mamba-search up``: every part on this machine. Where each answers follows from hosts and ports."""

    @classmethod
    def load(cls, arguments: Mapping[str, object] | None = None) -> Self:
        """Read arguments and environment; refuse addresses of parts, which would not be used."""
        for field in UP_DECIDES:
            name = PREFIX + field.upper()
            if name in os.environ:  # noqa: TID251 - refused, not read
                raise InvalidInput(name, f"{name} is set, but `mamba-search up` starts a part of its own; unset it.")
        return super().load(arguments)

    @pydantic.model_validator(mode="after")
    def _check_collecting(self) -> Self:
        if self.collect_after_s < self.search_timeout_s:
            raise ValueError(
                f"collect_after_s is {self.collect_after_s:g}; it must be at least search_timeout_s, which is "
                f"{self.search_timeout_s:g}"
            )
        return self

    up_timeout_s: float = Field(180.0, gt=0, le=3600, description="Longest wait for all parts to become ready.")
    stop_timeout_s: float = Field(
        20.0, gt=0, le=600, description="Longest wait for one part to stop before it is killed."
    )


class CommandModelSettings(DeviceSettings, ChunkSettings):
    """Which model commands run, where, and how."""

    model: Path = Field(
        DEFAULT_MODEL_FOLDER, description="Folder or hub id of the model that commands run. Default: the one shipped."
    )


class CommandSettings(CommandModelSettings, StateSettings):
    """The commands of ``mamba-search`` that ask a service, or do its work in their own process."""

    search_target: Target = Field("127.0.0.1:50051", description="Host and port of the search service.")
    ingest_target: Target = Field("127.0.0.1:50052", description="Host and port of the ingestion worker.")
    command_timeout_s: float = Field(
        60.0, gt=0, le=3600, description="Longest wait of a command for one answer of a service."
    )


class BulkSettings(CommandModelSettings, QdrantSettings):
    """The commands that fill a whole index: ``mamba-search bulk-load`` and ``reindex``."""
