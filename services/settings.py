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
from services.asking.settings import LlmSettings
from services.door.listening import is_loopback
from services.door.settings import DoorSettings, InsecureSettings
from services.http.settings import HttpSettings
from services.reading_settings import PREFIX, Target
from services.setting_groups import (
    CallerSettings,
    ChunkSettings,
    DataSettings,
    DeviceSettings,
    EncoderTargetSettings,
    EncoderTokenSettings,
    IndexTargetSettings,
    IndexTokenSettings,
    IngestTargetSettings,
    JobSettings,
    ObservingSettings,
    PassageModelSettings,
    QdrantSettings,
    QueryEncoderSettings,
    QueryModelSettings,
    StateSettings,
)

# Unix sockets lie 66 characters below Ray's directory; the longest path a socket may have is 107.
RAY_DIR_CHARS_MAX = 40
# What `mamba-search up` tells the parts that it starts.
UP_DECIDES = ("encoder_target", "encoder_query_application", "encoder_passage_application", "index_target")


class BackendSettings(EncoderTargetSettings, IndexTargetSettings, IndexTokenSettings, QdrantSettings, ChunkSettings):
    """What search and ingestion both lean on."""


class EncoderSettings(
    QueryModelSettings, PassageModelSettings, DeviceSettings, EncoderTokenSettings, ObservingSettings
):
    """The encoder service. One model for both roles makes one deployment; two models make two."""

    encoder_host: Literal["127.0.0.1", "0.0.0.0"] = Field(  # noqa: S104 - the choice is the operator's
        "127.0.0.1",
        description="Address to listen on: 127.0.0.1, or 0.0.0.0 for all (no encryption; encoder_token must be set).",
    )
    encoder_port: int = Field(9000, ge=1, le=65535, description="Port of the encoder service.")
    encoder_metrics_port: int = Field(
        0,
        ge=0,
        le=65535,
        description="Port of the encoder's replicas on a machine for Prometheus, one for all of them; 0: none.",
    )
    encoder_num_replicas: int = Field(
        1, ge=1, le=1024, description="Copies of each model; where encoder_max_replicas is given, the fewest."
    )
    encoder_max_replicas: int | None = Field(
        None,
        ge=1,
        le=1024,
        description="Most copies of each model, of which as many run as the waiting tokens ask for. Default: no more "
        "than encoder_num_replicas.",
    )
    encoder_tokens_per_replica: int = Field(
        65_536,
        ge=256,
        description="Tokens that wait in each replica, as a mean of 30 seconds, above which there are to be more.",
    )
    encoder_num_gpus: float | None = Field(
        None,
        ge=0,
        le=64,
        description="GPUs of each replica; 0.5 shares one. Default: those of the machine, shared evenly, at most one.",
    )
    encoder_batch_tokens: int | None = Field(
        None,
        ge=64,
        le=1_048_576,
        description="Tokens that are read together, of several requests; what is longer is read in pieces of as many. "
        "Others wait for the end of a batch, on a GPU of two at most. Default: 2048 on a CPU, 65536 on a GPU.",
    )
    encoder_max_queued_requests: int = Field(
        128,
        ge=1,
        le=10_000,
        description="Requests for queries that may wait in a replica, and as many for passages; one more is refused.",
    )
    encoder_max_queued_tokens: int = Field(
        524_288,
        ge=1024,
        description="Tokens of queries that may wait in a replica, and as many of passages; a request that would make "
        "them more is refused, unless nothing else waits.",
    )
    encoder_max_ongoing_requests: int = Field(
        320,
        ge=4,
        le=30_000,
        description="Requests that Ray Serve hands to a replica at once, those about to be refused included.",
    )
    encoder_documents_max: int = Field(
        8,
        ge=1,
        le=1024,
        description="Documents that a replica reads at once, each with its state in memory; one more is refused.",
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
        least = 2 * self.encoder_max_queued_requests + self.encoder_documents_max + 4
        if self.encoder_max_ongoing_requests < least:
            raise ValueError(
                f"encoder_max_ongoing_requests is {self.encoder_max_ongoing_requests}; it must be at least "
                f"2 * encoder_max_queued_requests + encoder_documents_max + 4 = {least}"
            )
        return self

    @pydantic.model_validator(mode="after")
    def _check_replicas(self) -> Self:
        if self.encoder_max_replicas is not None and self.encoder_max_replicas < self.encoder_num_replicas:
            raise ValueError(
                f"encoder_max_replicas is {self.encoder_max_replicas}; it must be at least encoder_num_replicas, which "
                f"is {self.encoder_num_replicas}"
            )
        return self

    @pydantic.model_validator(mode="after")
    def _check_open_door(self) -> Self:
        if self.encoder_host != "127.0.0.1" and self.encoder_token is None:
            raise ValueError(
                f"encoder_host is {self.encoder_host} without encoder_token, so that anybody could use the encoder; "
                "set both, or listen on 127.0.0.1"
            )
        return self


class SearchDoorSettings(DoorSettings, ObservingSettings):
    """The door of the search service."""

    search_host: str = Field("127.0.0.1", min_length=1, description="Address that the search service listens on.")
    search_port: int = Field(50051, ge=1, le=65535, description="Port of the search service.")
    search_metrics_port: int = Field(
        0, ge=0, le=65535, description="Port of the search service for Prometheus; 0: none."
    )
    search_health_port: int = Field(
        0,
        ge=0,
        le=65535,
        description="Port where the search service tells its health alone, without encryption: for probes that speak "
        "no TLS. 0: none.",
    )
    search_timeout_s: float = Field(
        30.0, gt=0, le=600, description="Longest time for one search; a client's earlier deadline wins."
    )
    search_concurrency_max: int = Field(
        256, ge=1, le=10_000, description="Searches answered at once; one more is refused with RESOURCE_EXHAUSTED."
    )
    search_stream_idle_s: float = Field(
        300.0, gt=0, le=86_400, description="How long a stream of searches may be open without a search."
    )
    search_stream_send_s: float = Field(
        30.0, gt=0, le=3600, description="How long the client of such a stream may leave an answer untaken."
    )

    @pydantic.model_validator(mode="after")
    def _check_search_address(self) -> Self:
        self.check_address("search_host", self.search_host)
        return self


class HttpDoorSettings(DoorSettings, HttpSettings):
    """The door of the search service for HTTP."""

    @pydantic.model_validator(mode="after")
    def _check_http_address(self) -> Self:
        if self.http_port:
            self.check_address("http_host", self.http_host)
        return self


class SearchSettings(SearchDoorSettings, HttpDoorSettings, QueryModelSettings, QueryEncoderSettings, BackendSettings):
    """The search service."""


class IngestDoorSettings(DoorSettings, StateSettings, ObservingSettings):
    """The door of the ingestion worker."""

    ingest_host: str = Field("127.0.0.1", min_length=1, description="Address that the ingestion worker listens on.")
    ingest_port: int = Field(50052, ge=1, le=65535, description="Port of the ingestion worker.")
    ingest_metrics_port: int = Field(
        0, ge=0, le=65535, description="Port of the ingestion worker for Prometheus; 0: none."
    )
    ingest_health_port: int = Field(
        0, ge=0, le=65535, description="The same of the ingestion worker: port for its health alone. 0: none."
    )
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

    @pydantic.model_validator(mode="after")
    def _check_ingest_address(self) -> Self:
        self.check_address("ingest_host", self.ingest_host)
        return self


class IngestSettings(IngestDoorSettings, JobSettings, PassageModelSettings, BackendSettings, DataSettings):
    """The ingestion worker."""


class IndexOwnerSettings(DataSettings, IndexTokenSettings, InsecureSettings, ObservingSettings):
    """The index owner: the one process that opens the embedded engine."""

    index_host: str = Field("127.0.0.1", min_length=1, description="Address that the index owner listens on.")
    index_port: int = Field(50053, ge=1, le=65535, description="Port of the index owner.")
    index_metrics_port: int = Field(0, ge=0, le=65535, description="Port of the index owner for Prometheus; 0: none.")

    @pydantic.model_validator(mode="after")
    def _check_index_address(self) -> Self:
        if not self.allow_insecure and not is_loopback(self.index_host):
            raise ValueError(
                f"index_host is {self.index_host}, which others reach, and the index owner encrypts nothing: listen on "
                "127.0.0.1, or set allow_insecure to do so all the same"
            )
        return self


class UpSettings(
    EncoderSettings,
    QueryEncoderSettings,
    SearchDoorSettings,
    HttpDoorSettings,
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


class CommandModelSettings(DeviceSettings, ChunkSettings, EncoderTokenSettings):
    """Which model commands run, where, and how."""

    model: Path = Field(
        DEFAULT_MODEL_FOLDER, description="Folder or hub id of the model that commands run. Default: the one shipped."
    )


class CommandSettings(CommandModelSettings, CallerSettings, IngestTargetSettings, StateSettings):
    """The commands of ``mamba-search`` that ask a service, or do its work in their own process."""

    search_target: Target = Field("127.0.0.1:50051", description="Host and port of the search service.")
    command_timeout_s: float = Field(
        60.0, gt=0, le=3600, description="Longest wait of a command for one answer of a service."
    )


class AskSettings(CommandSettings, LlmSettings):
    """``mamba-search ask``."""


class BulkSettings(CommandModelSettings, QdrantSettings):
    """The commands that fill a whole index: ``mamba-search bulk-load`` and ``reindex``."""
