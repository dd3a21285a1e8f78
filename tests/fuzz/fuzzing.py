"""Malformed messages to every RPC of every service: no crash, no INTERNAL, no memory that grows.

    python -m tests.fuzz.fuzzing --messages 10000

sends as many to each RPC. Fails where a process ends, a call is answered with a status that blames the service, a
service's log holds an incident, memory grows from the middle of the run to its end, or a service no longer does its
work afterwards. The last line has the figures; `--seed` repeats a run.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import re
import sys
import tempfile
import time
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import grpc
from google.protobuf.descriptor import MethodDescriptor
from mambasearch.v1 import encoder_pb2, index_pb2, ingest_pb2, ingest_pb2_grpc, search_pb2, search_pb2_grpc

from tests.fuzz.messages import hostile_bytes
from tests.fuzz.node import APPLICATION, Node, running

FILES = {"encoder": encoder_pb2, "index": index_pb2, "ingest": ingest_pb2, "search": search_pb2}
# These blame the service, or say that it was not there.
BLAMED = {
    grpc.StatusCode.INTERNAL,
    grpc.StatusCode.UNKNOWN,
    grpc.StatusCode.DATA_LOSS,
    grpc.StatusCode.UNIMPLEMENTED,
    grpc.StatusCode.ABORTED,
}
CALLS_AT_ONCE = 16
CALL_TIMEOUT_S = 3.0
STREAM_MESSAGES_MAX = 4
# What grpc.aio's client makes of a stream that the server ended while it still wrote: the server's status is lost.
_ENDED_WHILE_WRITING = "Internal error from Core"
ASKED_AGAIN_MAX = 10
GROWTH_MAX = 1.10
GROWTH_BYTES_MIN = 24 * 1024 * 1024  # less is the allocator's
_SLICES = 8  # of a run; all RPCs come in each
_DOCUMENTS = {"otters": "Otters live in rivers and eat fish.", "tides": "The moon makes the tides of the sea."}


@dataclass
class Findings:
    """What came of a run."""

    sent: int = 0
    codes: Counter[tuple[str, str]] = field(default_factory=Counter)
    problems: list[str] = field(default_factory=list)

    def note(self, rpc: str, code: grpc.StatusCode, details: str, data: Sequence[bytes]) -> None:
        """Count an answer; keep what blames the service, with the bytes that led to it."""
        self.codes[rpc, code.name] += 1
        if code in BLAMED:
            told = f"{rpc}: {code.name} {details[:200]!r} to {len(data)} messages, the first {data[0].hex()[:400]}"
            self.problems.append(told)


def methods_of(part: str) -> list[MethodDescriptor]:
    """List the RPCs of a part's services."""
    services = FILES[part].DESCRIPTOR.services_by_name.values()
    return [method for service in services for method in service.methods]


async def fuzz(node: Node, messages: int, seed: int) -> Findings:
    """Send ``messages`` to each RPC, in slices that hold some of each; look after each slice."""
    findings, memory = Findings(), []
    channels = {part: grpc.aio.insecure_channel(target) for part, target in node.targets.items()}
    known = [*_DOCUMENTS, "default", "otters", APPLICATION, "metadata.kind", "title"]
    try:
        await _do_work(channels)
        for number in range(_SLICES):
            for part in FILES:
                for method in methods_of(part):
                    chance = random.Random(f"{seed}/{number}/{method.full_name}")
                    await _fuzz_method(channels[part], method, -(-messages // _SLICES), chance, known, findings)
                    if ended := node.ended():
                        findings.problems.append(f"{', '.join(ended)} ended after {method.full_name}")
                        return findings
            memory.append({part: node.memory(part) for part in FILES})
        await _do_work(channels)
    except (grpc.aio.AioRpcError, AssertionError) as error:
        findings.problems.append(f"a service no longer does its work: {error}")
    finally:
        for channel in channels.values():
            await channel.close()
    findings.problems += _grown(memory) + _incidents(node)
    return findings


async def _fuzz_method(
    channel: grpc.aio.Channel,
    method: MethodDescriptor,
    count: int,
    chance: random.Random,
    known: Sequence[str],
    findings: Findings,
) -> None:
    left = count
    places = asyncio.Semaphore(CALLS_AT_ONCE)

    async def send(messages: list[bytes]) -> None:
        async with places:
            code, details = await _call(channel, method, messages)
            for _ in range(ASKED_AGAIN_MAX):
                if details != _ENDED_WHILE_WRITING:
                    break
                code, details = await _call(channel, method, messages)
        findings.sent += len(messages)
        findings.note(method.full_name, code, details, messages)

    async with asyncio.TaskGroup() as group:
        while left > 0:
            size = min(left, chance.randint(1, STREAM_MESSAGES_MAX)) if method.client_streaming else 1
            messages = [hostile_bytes(method.input_type, chance, known) for _ in range(size)]
            group.create_task(send(messages))
            left -= size
            await asyncio.sleep(0)


async def _call(
    channel: grpc.aio.Channel, method: MethodDescriptor, messages: list[bytes]
) -> tuple[grpc.StatusCode, str]:
    """Send the bytes as they are; give the status that came back."""
    path = f"/{method.containing_service.full_name}/{method.name}"
    kinds = {False: {False: channel.unary_unary, True: channel.unary_stream}, True: {True: channel.stream_stream}}
    call = kinds[method.client_streaming][method.server_streaming](path, request_serializer=bytes)
    metadata = (("application", APPLICATION),)
    request: object = iter(messages) if method.client_streaming else messages[0]
    answer = call(request, timeout=CALL_TIMEOUT_S, metadata=metadata)
    try:
        if method.server_streaming:
            async for _ in answer:
                pass
        else:
            await answer
    except grpc.aio.AioRpcError as error:
        return error.code(), error.details() or ""
    return grpc.StatusCode.OK, ""


async def _do_work(channels: dict[str, grpc.aio.Channel]) -> None:
    """Ingest documents and find them: what the services are for."""
    ingest = ingest_pb2_grpc.IngestServiceStub(channels["ingest"])

    async def documents() -> AsyncIterator[ingest_pb2.IngestDocumentsRequest]:
        for name, text in _DOCUMENTS.items():
            yield ingest_pb2.IngestDocumentsRequest(document_id=name, title=name, text=text)

    receipts = [receipt async for receipt in ingest.IngestDocuments(documents(), timeout=60)]
    assert receipts, "no document was acknowledged"
    search = search_pb2_grpc.SearchServiceStub(channels["search"])
    for name, text in _DOCUMENTS.items():
        answer = await search.Search(search_pb2.SearchRequest(query=text), timeout=30)
        found = [hit.document_id for hit in answer.hits]
        assert name in found, f"{name} is not among {found}"


def _grown(memory: Sequence[dict[str, int]]) -> list[str]:
    """Compare the middle of the run with its end: what is cached, and what grows to its bound, is there by then."""
    if len(memory) < _SLICES:
        return []
    middle, end = memory[_SLICES // 2 - 1], memory[-1]
    return [
        f"{part} grew from {middle[part] >> 20} to {end[part] >> 20} MiB"
        for part in middle
        if end[part] > max(GROWTH_MAX * middle[part], middle[part] + GROWTH_BYTES_MIN)
    ]


def _incidents(node: Node) -> list[str]:
    found = []
    for part in FILES:
        # Serve's proxy logs a traceback where a caller leaves; its own failures are statuses, which are looked at.
        log = re.sub(r"^.*\(ProxyActor pid=.*\n", "", node.log(part), flags=re.MULTILINE)
        places = list(re.finditer(r"incident |Traceback", log))[:5]
        found += [f"{part} logged {log[place.start() : place.start() + 1500]}" for place in places]
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--messages", type=int, default=10_000, help="messages to each RPC")
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    started = time.monotonic()
    with tempfile.TemporaryDirectory() as folder, running(Path(folder)) as node:
        findings = asyncio.run(fuzz(node, arguments.messages, arguments.seed))
    for (rpc, code), count in sorted(findings.codes.items()):
        print(f"{rpc} {code}: {count}")
    for problem in findings.problems[:40]:
        print(problem)
    rpcs = sum(len(methods_of(part)) for part in FILES)
    print(
        f"{'FAIL' if findings.problems else 'PASS'}: {findings.sent} malformed messages to {rpcs} RPCs in "
        f"{time.monotonic() - started:.0f} s, {len(findings.problems)} problems"
    )
    return 1 if findings.problems else 0


if __name__ == "__main__":
    sys.exit(main())
