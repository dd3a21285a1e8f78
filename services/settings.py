"""What each process may be told, and how: one class per process, read once from arguments and environment.

Every field can be given as an environment variable, ``MAMBASEARCH_`` and its name in capitals
(``MAMBASEARCH_SEARCH_PORT=50051``); an argument wins over the environment. A value that does not fit, or a variable
that no process knows, is refused.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import platformdirs
import pydantic
from pydantic import Field
from pydantic_settings import BaseSettings, SettingsConfigDict

from encoder.errors import InvalidInput
from encoder.model_config import DEFAULT_MODEL_FOLDER

PREFIX = "MAMBASEARCH_"
# Unix sockets lie 66 characters below Ray's directory; the longest path a socket may have is 107.
RAY_DIR_CHARS_MAX = 40


# What `mamba-search up` tells the parts that it starts.
UP_DECIDES = ("encoder_target", "encoder_query_application", "encoder_passage_application", "index_target")


_TARGET = re.compile(r"(?:[A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\]):([0-9]{1,5})")
PORT_MAX = 65535


def check_target(value: str) -> str:
    """Give an address back as it is; ValueError where it is not HOST:PORT (an IPv6 host stands in brackets)."""
    found = _TARGET.fullmatch(value)
    if not found or not 1 <= int(found[1]) <= PORT_MAX:
        raise ValueError("HOST:PORT is expected")
    return value


Target = Annotated[str, pydantic.AfterValidator(check_target)]


class Settings(BaseSettings):
    """What every process may be told."""

    model_config = SettingsConfigDict(env_prefix=PREFIX, extra="forbid", frozen=True)

    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = Field(
        "INFO", description="Least severe messages to log. No level logs a text that a user sent."
    )

    @classmethod
    def load(cls, arguments: Mapping[str, object] | None = None) -> Self:
        """Read arguments (field to value) and environment; :class:`InvalidInput` names the first that does not fit."""
        known = {PREFIX + name.upper() for settings in _all_settings(Settings) for name in settings.model_fields}
        for name in sorted(os.environ):  # noqa: TID251 - the one place where it is read
            if name.upper().startswith(PREFIX) and name.upper() not in known:
                raise InvalidInput(name, f"{name} is not a setting of mamba-search; unset it or correct its name.")
        given: dict[str, Any] = dict(arguments or {})
        try:
            return cls(**given)
        except pydantic.ValidationError as error:
            raise _refusal(error, given) from None

    def child_environment(self, others: Mapping[str, object]) -> dict[str, str]:
        """Give the environment of a child process: ours, these settings, and ``others`` (fields of its own class)."""
        values = {**self.model_dump(mode="json", exclude_none=True), **others}
        return {
            **os.environ,  # noqa: TID251 - passed on, not read
            **{PREFIX + name.upper(): str(value) for name, value in values.items()},
        }


def _all_settings(base: type[Settings]) -> list[type[Settings]]:
    return [base, *(found for child in base.__subclasses__() for found in _all_settings(child))]


def _refusal(error: pydantic.ValidationError, arguments: Mapping[str, object]) -> InvalidInput:
    first = error.errors()[0]
    reason = first["msg"].removeprefix("Value error, ").rstrip(".")
    if not first["loc"]:
        return InvalidInput("settings", f"{reason}.")
    field = str(first["loc"][0])
    name = field if field in arguments else PREFIX + field.upper()
    return InvalidInput(field, f"{name} is {str(first['input'])!r}: {reason}.")


class QueryModelSettings(Settings):
    """Which model reads queries."""

    query_model: Path = Field(
        DEFAULT_MODEL_FOLDER, description="Folder or hub id of the model that reads queries. Default: the one shipped."
    )


class PassageModelSettings(Settings):
    """Which model reads passages."""

    passage_model: Path = Field(
        DEFAULT_MODEL_FOLDER, description="Folder or hub id of the model that reads passages. Default: the one shipped."
    )


class DeviceSettings(Settings):
    """Where a model runs."""

    encoder_device: str = Field(
        "auto",
        pattern=r"^(auto|cpu|cuda(:\d+)?)$",
        description="Where models run: auto (a GPU where there is one), cpu, cuda, or cuda:1 and so on.",
    )
    encoder_threads: int | None = Field(
        None, ge=1, le=1024, description="CPU threads of each replica. Default: the machine's cores, shared evenly."
    )


class EncoderTargetSettings(Settings):
    """Where the encoder service is, for those who ask it."""

    encoder_target: Target = Field("127.0.0.1:9000", description="Host and port of the encoder service.")
    encoder_query_application: str = Field(
        "encoder", min_length=1, description="Ray Serve application that encodes queries."
    )
    encoder_passage_application: str = Field(
        "encoder", min_length=1, description="Ray Serve application that encodes passages."
    )
    encoder_timeout_s: float = Field(
        120.0, gt=0, le=3600, description="Longest wait for one request to the encoder service, retries included."
    )


class IndexTargetSettings(Settings):
    """Where the index is, for those who ask it."""

    index_target: Target = Field("127.0.0.1:50053", description="Host and port of the index owner.")


class QdrantSettings(Settings):
    """A Qdrant server in place of the embedded engine."""

    qdrant_url: str | None = Field(
        None, description="Address of a Qdrant server to keep the index in. Default: the embedded engine."
    )
    qdrant_collection: str = Field(
        "mamba-search",
        min_length=1,
        max_length=240,
        description="Alias of the collection on the Qdrant server, or its name. Where there is none, a collection is "
        "made, and this its alias.",
    )


class ChunkSettings(Settings):
    """How the chunks of an index are made."""

    chunk_encoding: Literal["alone", "one-pass"] = Field(
        "alone",
        description="How chunks become embeddings: alone, or one-pass through their document, each knowing what came "
        "before it. An index is made in one way.",
    )


class StateSettings(Settings):
    """How long the encoder's states of documents that may grow are kept."""

    states_bytes_max: int = Field(
        1024**3,
        ge=0,
        description="Bytes of data_dir for the encoder's states of documents that may grow; the least recently used go "
        "first. 0: none are kept, and such documents are read whole in one pass.",
    )
    states_keep_s: float = Field(
        30 * 86_400.0, ge=0, description="How long such a state is kept that nobody uses. 0: none are kept."
    )


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


class JobSettings(Settings):
    """What jobs may do, and whose documents there may be. Lists have commas between their names."""

    ingest_jobs_max: int = Field(2, ge=1, le=64, description="Jobs that an ingestion worker works on at once.")
    ingest_job_attempts_max: int = Field(
        20,
        ge=1,
        le=1000,
        description="Attempts in a row, without progress, after which a job that waits for encoder, index or journal "
        "fails.",
    )
    ingest_folders: str = Field(
        "",
        pattern=r"^(/[^,]*(,/[^,]*)*)?$",
        description="Folders that jobs may read on the worker's machine: absolute paths, with commas between them. "
        "Default: none.",
    )
    ingest_schemes: str = Field(
        "",
        pattern=r"^((https?|s3|gs)(,(https?|s3|gs))*)?$",
        description="What else jobs may read: of https, http, s3 and gs, with commas between them. Default: nothing.",
    )
    ingest_hosts: str = Field(
        "",
        pattern=r"^\S*$",
        description="Hosts and buckets that jobs may read, with commas between them; *.example.org is all below it, * "
        "any. Default: none.",
    )
    ingest_internal_addresses: bool = Field(
        default=False, description="Whether those hosts may be of this machine or of a private network."
    )
    tenants: str = Field(
        "",
        pattern=r"^([A-Za-z0-9_-]{1,64}(,[A-Za-z0-9_-]{1,64})*)?$",
        description="Tenants that there are, with commas between them; documents of others are refused. Default: any.",
    )


class DataSettings(Settings):
    """Where data lives."""

    data_dir: Path = Field(
        Path(platformdirs.user_data_dir("mamba-search", appauthor=False)),
        description="Directory of the index, the journal of ingestion and the logs.",
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
