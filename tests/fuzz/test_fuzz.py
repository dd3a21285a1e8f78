"""Malformed messages to every RPC of the running product: nothing ends, nothing is the services' fault."""

from pathlib import Path

import pytest

from tests.fuzz.fuzzing import FILES, fuzz, methods_of
from tests.fuzz.node import running

MESSAGES = 300  # to each RPC


@pytest.mark.timeout(280)
async def test_malformed_messages_crash_nothing(tmp_path: Path) -> None:
    with running(tmp_path) as node:
        findings = await fuzz(node, MESSAGES, seed=7)
    assert not findings.problems
    rpcs = {method.full_name for part in FILES for method in methods_of(part)}
    assert {rpc for rpc, _ in findings.codes} == rpcs
    assert findings.sent >= MESSAGES * len(rpcs) > 10_000
    # Where all is refused, or all is fine, nothing was tested.
    refused = sum(count for (_, code), count in findings.codes.items() if code == "INVALID_ARGUMENT")
    fine = sum(count for (_, code), count in findings.codes.items() if code == "OK")
    assert min(refused, fine) > findings.sent // 10
