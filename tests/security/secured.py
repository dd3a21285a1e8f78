"""The services behind a door that is shut: callers with keys of their own, over TLS or not."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import pytest
from mambasearch.v1 import ingest_pb2, ingest_pb2_grpc, jobs_pb2, metadata_pb2, search_pb2, search_pb2_grpc

from encoder.interface import Encoder
from ingest.sources.policy import EVERYTHING, SourcePolicy
from services.door import certificates, key_ring
from services.door.key_ring import create_key
from services.door.keys import KeyWishes
from services.door.principal import NO_LIMITS, Limits, Role
from services.door.settings import DoorSettings
from tests.fakes import FakeEncoder
from tests.serving import services_running

SEARCH_SERVICE = search_pb2.DESCRIPTOR.services_by_name["SearchService"]
INGEST_SERVICE = ingest_pb2.DESCRIPTOR.services_by_name["IngestService"]
TIMEOUT_S = 30.0


@dataclass(frozen=True)
class Caller:
    """Calls both services with one key."""

    search_channel: grpc.Channel
    ingest_channel: grpc.Channel
    key: str | None

    @property
    def metadata(self) -> tuple[tuple[str, str], ...]:
        return (("authorization", f"Bearer {self.key}"),) if self.key else ()

    def call(self, method: str, request: Any, metadata: tuple[tuple[str, str], ...] = ()) -> Any:
        """Make a call, and give its answer, or all of them where it is a stream."""
        for service, channel, stubs in (
            (SEARCH_SERVICE, self.search_channel, search_pb2_grpc.SearchServiceStub),
            (INGEST_SERVICE, self.ingest_channel, ingest_pb2_grpc.IngestServiceStub),
        ):
            if method in service.methods_by_name:
                found = service.methods_by_name[method]
                send = getattr(stubs(channel), method)  # type: ignore[no-untyped-call]
                sent = iter(request if isinstance(request, list) else [request]) if found.client_streaming else request
                answer = send(sent, metadata=(*self.metadata, *metadata), timeout=TIMEOUT_S)
                return list(answer) if found.server_streaming else answer
        raise LookupError(method)

    def refusal(self, method: str, request: Any, metadata: tuple[tuple[str, str], ...] = ()) -> tuple[str, str]:
        """Give the code and the words with which a call is refused; OK and "" where it is not."""
        try:
            self.call(method, request, metadata)
        except grpc.RpcError as error:
            return error.code().name, error.details() or ""
        return "OK", ""

    def put(self, document_id: str, text: str, tenant: str = "", **metadata: str) -> Any:
        request = ingest_pb2.IngestDocumentsRequest(document_id=document_id, text=text, tenant=tenant)
        for name, value in metadata.items():
            request.metadata[name].CopyFrom(metadata_pb2.MetadataValue(text=value))
        (answer,) = self.call("IngestDocuments", request)
        return answer

    def found(self, query: str, tenant: str = "") -> list[tuple[str, float]]:
        request = search_pb2.SearchRequest(query=query, mode=search_pb2.SEARCH_MODE_SPARSE, tenant=tenant)
        return [(hit.document_id, hit.score) for hit in self.call("Search", request).hits]

    def job(self, source: str, tenant: str = "", request_id: str = "") -> Any:
        """Have a job read a source, and wait for its end."""
        request = jobs_pb2.CreateIngestJobRequest(sources=[source], tenant=tenant, request_id=request_id)
        made = self.call("CreateIngestJob", request)
        return self.call("WatchJob", jobs_pb2.WatchJobRequest(job_id=made.job_id))[-1]


@dataclass(frozen=True)
class Secured:
    """Services that run, and whom they know."""

    folder: Path
    keys_file: Path
    search: str
    ingest: str
    search_channel: grpc.Channel
    ingest_channel: grpc.Channel

    def caller(
        self,
        *roles: Role,
        tenants: Iterable[str] | None = ("default",),
        limits: Limits = NO_LIMITS,
        expires_at: float | None = None,
    ) -> Caller:
        """Make a key, and who calls with it; ``tenants`` None: all."""
        wishes = KeyWishes(
            name="test",
            roles=roles,
            tenants="*" if tenants is None else tuple(tenants),
            limits=limits,
            expires_at=expires_at,
        )
        return self.with_credential(create_key(self.keys_file, wishes)[1])

    def with_credential(self, key: str | None) -> Caller:
        return Caller(self.search_channel, self.ingest_channel, key)


def open_channel(target: str, credentials: grpc.ChannelCredentials | None) -> grpc.Channel:
    return grpc.insecure_channel(target) if credentials is None else grpc.secure_channel(target, credentials)


@contextmanager
def secured(
    folder: Path,
    *,
    policy: SourcePolicy = EVERYTHING,
    credentials: grpc.ChannelCredentials | None = None,
    make_encoder: Callable[[], Encoder] = FakeEncoder,
    **settings: Any,
) -> Iterator[Secured]:
    """Run search and ingestion with a key file, and what else settings say."""
    keys_file = folder / "keys.json"
    keys_file.write_text('{"keys": []}')
    door = DoorSettings(**{"keys_file": keys_file, **settings})
    with (
        pytest.MonkeyPatch.context() as patch,
        services_running(folder / "data", make_encoder, door=door, policy=policy) as targets,
        open_channel(targets.search, credentials) as search_channel,
        open_channel(targets.ingest, credentials) as ingest_channel,
    ):
        # Keys and certificates that are made in a test count at once.
        patch.setattr(key_ring, "LOOK_PERIOD_S", 0.0)
        patch.setattr(certificates, "LOOK_PERIOD_S", 0.0)
        yield Secured(folder, keys_file, targets.search, targets.ingest, search_channel, ingest_channel)
