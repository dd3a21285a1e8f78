"""An encoder behind the encoder service's protocol, observed, without Ray: the start of a process for tests.

python -m tests.observing.encoder PORT fake|default
"""

import asyncio
import sys

import grpc
from mambasearch.v1 import encoder_pb2_grpc

from encoder.model_config import DEFAULT_MODEL_FOLDER
from services.encoder_service import replica_observing
from services.encoding.factory import EncoderFactory, LocalEncoderFactory
from services.encoding.observed import ObservedReplica
from services.encoding.replica import ReplicaRules
from services.encoding.scheduler import Limits
from services.grpc_server import stop_signal
from services.settings import EncoderSettings
from tests.fakes import FakeEncoder
from tests.replica_serving import ReplicaServicer


async def main(port: int, model: str) -> None:
    load: EncoderFactory = FakeEncoder
    if model == "default":
        load = LocalEncoderFactory(DEFAULT_MODEL_FOLDER, "cpu", threads=1, replicas=1)
    replica = ObservedReplica(
        replica_observing(EncoderSettings.load()),
        load,
        lambda: "encoder",
        ReplicaRules(Limits(batch_tokens=2048, requests_max=32, tokens_max=1_000_000, documents_max=2), token=None),
    )
    stop = stop_signal()
    server = grpc.aio.server()
    encoder_pb2_grpc.add_EncoderServiceServicer_to_server(ReplicaServicer(replica), server)
    server.add_insecure_port(f"127.0.0.1:{port}")
    await server.start()
    await stop.wait()
    await server.stop(None)
    replica.__del__()  # as Ray Serve does


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1]), sys.argv[2]))
