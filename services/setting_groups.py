"""Settings that several processes share, in groups: which model, where others are, how an index is made."""

from __future__ import annotations

from pathlib import Path
from typing import Literal, Self

import platformdirs
import pydantic
from pydantic import Field, SecretStr

from encoder.model_config import DEFAULT_MODEL_FOLDER
from ingest.chunk_rules import OVERLAP_TOKENS_MAX, ChunkEncoding, ChunkRules
from ingest.index.server_address import QdrantServer
from services.door.settings import InsecureSettings
from services.reading_settings import Settings, Target

LogFormat = Literal["auto", "text", "json"]
AccessLog = Literal["none", "errors", "all"]


class ObservingSettings(Settings):
    """What a process tells of itself."""

    log_format: LogFormat = Field(
        "auto", description="How messages are logged: text, json, or auto: text on a terminal, JSON elsewhere."
    )
    access_log: AccessLog = Field(
        "errors",
        description="Which calls have a line in the log: none, errors (those that are the service's fault), or all. "
        "Health checks never have.",
    )
    slow_call_s: float | None = Field(
        None,
        gt=0,
        le=3600,
        description="Calls that take so long have a line in the log, without their texts.",
    )
    metrics_host: str = Field(
        "127.0.0.1", min_length=1, description="Address that the ports for metrics listen on. No encryption, no keys."
    )
    otlp_endpoint: str | None = Field(
        None,
        pattern=r"^https?://\S+:\d{1,5}$",
        description="Where traces are sent by OTLP over gRPC, as http://HOST:4317 (https: encrypted). Default: "
        "none are made.",
    )
    trace_ratio: float = Field(
        0.1,
        ge=0,
        le=1,
        description="Share of calls that are traced; of those that come with a trace, its beginning has decided.",
    )


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
    encoder_eight_bits: bool | None = Field(
        None,
        description="Whether the factors of matrix products are rounded to 8 bits, which is faster and changes "
        "embeddings a little: on a CPU those of short texts, on a GPU from Hopper on those of in_proj, and of "
        "Mamba-2's out_proj. Default: on a CPU.",
    )


class QueryEncoderSettings(DeviceSettings):
    """Who embeds queries for the search service."""

    query_encoder: Literal["auto", "service", "local"] = Field(
        "auto",
        description="Who embeds queries: service (the encoder service), local (the search service itself, which loads "
        "query_model), or auto: local where the encoder service is on this machine and runs without a GPU.",
    )


class EncoderTokenSettings(Settings):
    """What the encoder service and those who ask it share."""

    encoder_token: SecretStr | None = Field(
        None,
        min_length=16,
        max_length=1024,
        description="Secret that callers of the encoder service show, 16 characters or more. Default: none, and then "
        "the service listens on 127.0.0.1 only. up makes one for each run.",
    )

    @pydantic.field_validator("encoder_token")
    @classmethod
    def _check_characters(cls, value: SecretStr | None) -> SecretStr | None:
        if value is not None and not all("!" <= character <= "~" for character in value.get_secret_value()):
            raise ValueError("it must be of printable ASCII characters without spaces")
        return value

    def shown_token(self) -> str | None:
        """Give the token in plain text, for those who show it or compare it."""
        return None if self.encoder_token is None else self.encoder_token.get_secret_value()


class EncoderTargetSettings(EncoderTokenSettings):
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


class IngestTargetSettings(Settings):
    """Where the ingestion worker is, for those who ask it."""

    ingest_target: Target = Field("127.0.0.1:50052", description="Host and port of the ingestion worker.")


class IndexTokenSettings(Settings):
    """What the index owner's callers show."""

    index_token: SecretStr | None = Field(
        None,
        min_length=16,
        description="Secret that the index owner's callers must show, the same for it and them. `mamba-search up` "
        "makes one for each run. Default: none is asked for.",
    )


class TrustSettings(InsecureSettings):
    """Whom clients of ours trust, and what certificate they show."""

    use_tls: bool = Field(
        default=False, description="Whether services are asked over TLS; given with tls_ca, it need not be."
    )
    tls_ca: Path | None = Field(
        None, description="File (PEM) of the authorities that vouch for services. Default: the system's."
    )
    tls_client_cert: Path | None = Field(
        None, description="File (PEM) of the certificate that commands show to services that ask for one (mTLS)."
    )
    tls_client_key: Path | None = Field(None, description="File (PEM) of that certificate's private key.")

    @pydantic.model_validator(mode="after")
    def _check_client_certificate(self) -> Self:
        if (self.tls_client_cert is None) != (self.tls_client_key is None):
            raise ValueError("tls_client_cert and tls_client_key belong together; give both or none")
        return self


class CallerSettings(TrustSettings):
    """How commands make themselves known, and whom they trust."""

    api_key: SecretStr | None = Field(
        None, min_length=1, description="API key, or token, that commands show to services. Default: none."
    )
    api_key_file: Path | None = Field(None, description="File that holds the key, in place of api_key.")

    @pydantic.model_validator(mode="after")
    def _check_caller(self) -> Self:
        if self.api_key is not None and self.api_key_file is not None:
            raise ValueError("api_key and api_key_file exclude each other; give one")
        return self


class QdrantSettings(Settings):
    """A Qdrant server in place of the embedded engine."""

    qdrant_url: str | None = Field(
        None, description="Address of a Qdrant server to keep the index in. Default: the embedded engine."
    )
    qdrant_api_key: str | None = Field(
        None,
        min_length=1,
        repr=False,
        description="Key of that server, where it asks for one. It goes in plain text unless the address is https.",
    )
    qdrant_collection: str = Field(
        "mamba-search",
        min_length=1,
        max_length=240,
        description="Alias of the collection on the Qdrant server, or its name. Where there is none, a collection is "
        "made, and this its alias.",
    )

    def qdrant_server(self) -> QdrantServer | None:
        """Give the Qdrant server; None where the index is the embedded engine's."""
        return None if self.qdrant_url is None else QdrantServer(self.qdrant_url, self.qdrant_api_key)


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
