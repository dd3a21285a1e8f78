"""Settings that several processes share, in groups: which model, where others are, how an index is made."""

from __future__ import annotations

from pathlib import Path

import platformdirs
from pydantic import Field

from encoder.model_config import DEFAULT_MODEL_FOLDER
from ingest.chunk_rules import OVERLAP_TOKENS_MAX, ChunkEncoding, ChunkRules
from services.reading_settings import Settings, Target


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

    chunk_encoding: ChunkEncoding = Field(
        "alone",
        description="How chunks become embeddings: alone, or one-pass through their document, each knowing what came "
        "before it. An index is made in one way.",
    )
    chunk_overlap_tokens: int = Field(
        0,
        ge=0,
        le=OVERLAP_TOKENS_MAX,
        description="Tokens that a chunk may repeat of the one before it. An index is made in one way.",
    )

    def chunk_rules(self) -> ChunkRules:
        """Say by which rules the chunks of the index are made."""
        return ChunkRules(self.chunk_encoding, self.chunk_overlap_tokens)


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


class DataSettings(Settings):
    """Where data lives."""

    data_dir: Path = Field(
        Path(platformdirs.user_data_dir("mamba-search", appauthor=False)),
        description="Directory of the index, the journal of ingestion and the logs.",
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
