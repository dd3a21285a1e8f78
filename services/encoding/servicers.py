"""How Ray Serve's gRPC proxy reads messages: what is none reaches the replica as :class:`services.malformed.Malformed`.

Serve replaces the behaviour of each method that these functions register, and keeps how its messages are read. Its
proxy would answer UNKNOWN, before a replica is asked.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import grpc
from grpc_health.v1 import health_pb2_grpc
from mambasearch.v1 import encoder_pb2_grpc

from services.malformed import tolerating


def add_encoder_service(servicer: Any, server: Any) -> None:  # noqa: ANN401 - what Serve gives
    """Register ``EncoderService``."""
    standing_in: Any = _Tolerating(server)
    encoder_pb2_grpc.add_EncoderServiceServicer_to_server(servicer, standing_in)


def add_health_service(servicer: Any, server: Any) -> None:  # noqa: ANN401 - what Serve gives
    """Register ``grpc.health.v1.Health``."""
    standing_in: Any = _Tolerating(server)
    health_pb2_grpc.add_HealthServicer_to_server(servicer, standing_in)


class _Tolerating:
    """Stands for a server while a service is registered."""

    def __init__(self, server: Any) -> None:  # noqa: ANN401 - of grpc, grpc.aio or Serve
        self._server = server

    def add_generic_rpc_handlers(self, generic_rpc_handlers: Sequence[grpc.GenericRpcHandler]) -> None:
        """Leave them: generated code gives the same handlers once more, by name."""

    def add_registered_method_handlers(self, service: str, handlers: Mapping[str, Any]) -> None:
        """Register a service's methods."""
        read = {name: tolerating(handler) for name, handler in handlers.items()}
        self._server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(service, read),))
        self._server.add_registered_method_handlers(service, read)
