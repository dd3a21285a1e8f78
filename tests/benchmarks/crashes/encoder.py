"""A fake encoder behind the encoder service's protocol, without Ray: the start of a process for tests.

python -m tests.benchmarks.crashes.encoder PORT

It refuses passages that hold POISON.
"""

import asyncio
import sys
from collections.abc import Sequence

import grpc
from mambasearch.v1 import encoder_pb2_grpc

from encoder.errors import InvalidInput
from encoder.interface import TokenRow
from services.encoding.replica import EncoderReplica, ReplicaRules
from services.encoding.scheduler import Limits
from tests.benchmarks.crashes.source import POISON
from tests.fakes import FakeEncoder
from tests.replica_serving import ReplicaServicer


class RefusingEncoder(FakeEncoder):
    async def passage_rows(self, passages: Sequence[str]) -> list[TokenRow]:
        for place, passage in enumerate(passages):
            if POISON in passage:
                raise InvalidInput(f"passages[{place}]", f"passages[{place}] is poisoned.")
        return await super().passage_rows(passages)


async def main(port: int) -> None:
    limits = Limits(batch_tokens=65_536, requests_max=32, tokens_max=1_000_000, documents_max=2)
    replica = EncoderReplica(RefusingEncoder, lambda: "encoder", ReplicaRules(limits, None))
    server = grpc.aio.server()
    encoder_pb2_grpc.add_EncoderServiceServicer_to_server(ReplicaServicer(replica), server)
    if server.add_insecure_port(f"127.0.0.1:{port}") != port:
        raise SystemExit(f"port {port} is taken")
    await server.start()
    await server.wait_for_termination()


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1])))
