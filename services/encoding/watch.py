"""Whether the encoder service still answers: asked from outside, through its own door. Knows no Ray."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable
from typing import Any

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from encoder.errors import Unavailable

# Serve needs up to 20 s to find a replica wedged (encoder_service); another is there, with its model loaded, well
# within this time.
SILENCE_MAX_S = 120.0
PERIOD_S = 5.0
TIMEOUT_S = 10.0


def watch(
    target: str,
    applications: Iterable[str],
    stop: threading.Event,
    *,
    silence_max_s: float = SILENCE_MAX_S,
    period_s: float = PERIOD_S,
) -> None:
    """Return at ``stop``; :class:`Unavailable` when an application has not answered for ``silence_max_s``.

    Serve replaces a replica that ended or is wedged; Ray does not start its own processes again, and tells nobody.
    """
    with grpc.insecure_channel(target) as channel:
        stub: Any = health_pb2_grpc.HealthStub(channel)
        answered = dict.fromkeys(applications, time.monotonic())
        while not stop.wait(period_s):
            for name in answered:
                try:
                    stub.Check(health_pb2.HealthCheckRequest(), metadata=(("application", name),), timeout=TIMEOUT_S)
                except grpc.RpcError as error:
                    # A full queue refuses health checks too.
                    if error.code() is not grpc.StatusCode.RESOURCE_EXHAUSTED:
                        continue
                answered[name] = time.monotonic()
            silent = [name for name, at in answered.items() if time.monotonic() - at > silence_max_s]
            if silent:
                raise Unavailable(f"Ray Serve's {' and '.join(silent)} gave no answer for {silence_max_s:.0f} s.")
