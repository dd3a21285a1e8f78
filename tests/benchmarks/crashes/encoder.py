"""A fake encoder behind the encoder service's protocol, without Ray: the start of a process for tests.

python -m tests.benchmarks.crashes.encoder PORT
"""

import asyncio
import sys

import grpc
from mambasearch.v1 import encoder_pb2_grpc

from services.encoder_replica import EncoderReplica
from tests.fakes import FakeEncoder
from tests.replica_serving import ReplicaServicer


async def main(port: int) -> None:
    replica = EncoderReplica(
        FakeEncoder,
        lambda: "encoder",
        waiting_max=32,
        documents_max=2,
        passages_per_turn=256,
        log_level="WARNING",
        idle_timeout_s=30.0,
    )
    server = grpc.aio.server()
    encoder_pb2_grpc.add_EncoderServiceServicer_to_server(ReplicaServicer(replica), server)
    if server.add_insecure_port(f"127.0.0.1:{port}") != port:
        raise SystemExit(f"port {port} is taken")
    await server.start()
    await server.wait_for_termination()


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1])))
