"""What ``mamba-search up`` will start, and whether it can: told in one sentence before anything runs."""

from __future__ import annotations

import secrets
from collections import Counter
from pathlib import Path

from encoder.client import joint_fingerprint
from encoder.errors import FingerprintMismatch, InvalidInput
from encoder.fingerprint import index_fingerprint
from encoder.tokenizer import Tokenizer
from ingest.chunk_making import make_chunk_making
from ingest.index.data_directory import DataDirectory, check_not_a_file, read_manifest
from services.encoding.model_folder import check_model
from services.machine.children import Part
from services.machine.local_machine import check_port, free_port, target_of
from services.observing.logs import resolved
from services.settings import UpSettings

# Nobody waits for the next chunk as somebody does for an answer.
INGEST_NICENESS = 10


def check(settings: UpSettings) -> None:
    """Refuse what would fail later.

    :class:`encoder.errors.CheckpointError` for a model folder; :class:`encoder.errors.InUse` for a port or a data
    directory that another process has; :class:`encoder.errors.FingerprintMismatch` where another model made the data,
    or queries and passages become embeddings of different lengths.
    """
    addresses = {name: (host, port) for name, host, port in (*_addresses(settings), *_metrics_addresses(settings))}
    most_common, count = Counter(port for _, port in addresses.values()).most_common(1)[0]
    if count > 1:
        names = " and ".join(name for name, (_, port) in addresses.items() if port == most_common)
        raise InvalidInput(names, f"{names} are both {most_common}; give each a port of its own.")
    for name, (host, port) in addresses.items():
        check_port(name, host, port)
    check_not_a_file(settings.data_dir)  # logs go there in any case
    fingerprint, dimension = _made_by(settings)
    if settings.qdrant_url is None:
        held = DataDirectory.hold(settings.data_dir)
        try:
            if read_manifest(settings.data_dir) is not None:
                held.bind(fingerprint=fingerprint, dimension=dimension)
        finally:
            held.release()


def parts_of(settings: UpSettings, ray_dir: Path) -> tuple[list[Part], dict[str, str]]:
    """List the parts to start, in the order in which they depend on one another, and their common environment."""
    shared = settings.query_model.absolute() == settings.passage_model.absolute()
    applications = ("encoder", "encoder") if shared else ("query-encoder", "passage-encoder")
    targets = {name.removesuffix("_port"): target_of(host, port) for name, host, port in _addresses(settings)}
    health_ports = _health_ports(settings)
    health_targets = (
        {
            "search": target_of(settings.search_host, health_ports["search_health_port"]),
            "ingest": target_of(settings.ingest_host, health_ports["ingest_health_port"]),
        }
        if health_ports
        else {}
    )
    parts = [
        Part("encoder", "services.encoder_service", targets["encoder"], applications),
        Part("search", "services.search_service", targets["search"], health_target=health_targets.get("search")),
        Part(
            "ingest",
            "services.ingest_service",
            targets["ingest"],
            health_target=health_targets.get("ingest"),
            niceness=INGEST_NICENESS,
        ),
    ]
    told: dict[str, object] = {
        "encoder_target": targets["encoder"],
        "encoder_query_application": applications[0],
        "encoder_passage_application": applications[1],
        "encoder_token": settings.shown_token() or secrets.token_hex(32),
        "ray_dir": ray_dir,
        # Their logs are files, but for whom is known here: a person at a terminal, or a machine.
        "log_format": resolved(settings.log_format),
        "ingest_target": targets["ingest"],
        **health_ports,
    }
    if "index" in targets:
        parts.insert(0, Part("index", "services.index_owner", targets["index"]))
        told["index_target"] = targets["index"]
        if settings.index_token is None:
            told["index_token"] = secrets.token_urlsafe(32)
    return parts, settings.child_environment(told)


def page_address(settings: UpSettings) -> str | None:
    """Say where the search page is, as this machine reaches it; None where there is none."""
    if not settings.http_port:
        return None
    scheme = "https" if settings.tls_cert else "http"
    return f"{scheme}://{target_of(settings.http_host, settings.http_port)}/"


def _health_ports(settings: UpSettings) -> dict[str, int]:
    """Choose ports where doors that encrypt tell their health to this process, which has no certificate to show."""
    if settings.tls_cert is None:
        return {}
    return {
        "search_health_port": settings.search_health_port or free_port(),
        "ingest_health_port": settings.ingest_health_port or free_port(),
    }


def _addresses(settings: UpSettings) -> list[tuple[str, str, int]]:
    addresses = [
        ("encoder_port", settings.encoder_host, settings.encoder_port),
        ("search_port", settings.search_host, settings.search_port),
        ("ingest_port", settings.ingest_host, settings.ingest_port),
    ]
    if settings.http_port:
        addresses.append(("http_port", settings.http_host, settings.http_port))
    if settings.qdrant_url is None:
        addresses.append(("index_port", settings.index_host, settings.index_port))
    return addresses


def _metrics_addresses(settings: UpSettings) -> list[tuple[str, str, int]]:
    ports = {
        "encoder_metrics_port": settings.encoder_metrics_port,
        "search_metrics_port": settings.search_metrics_port,
        "ingest_metrics_port": settings.ingest_metrics_port,
        "index_metrics_port": 0 if settings.qdrant_url else settings.index_metrics_port,
    }
    return [(name, settings.metrics_host, port) for name, port in ports.items() if port]


def _made_by(settings: UpSettings) -> tuple[str, int]:
    """Give what an index of these models is marked with: fingerprint and dimension. Reads both folders whole."""
    query_config, query_model = check_model(settings.query_model)
    config, passage_model = check_model(settings.passage_model)
    if query_config.embedding_dim != config.embedding_dim:
        raise FingerprintMismatch(
            f"query_model {settings.query_model} makes embeddings of length {query_config.embedding_dim}, "
            f"passage_model {settings.passage_model} of length {config.embedding_dim}; name two models that belong "
            "together."
        )
    tokenizer = Tokenizer.load(settings.passage_model)
    chunks = make_chunk_making(settings.chunk_rules(), tokenizer).fingerprint
    return index_fingerprint(joint_fingerprint(query_model, passage_model), chunks), config.embedding_dim
