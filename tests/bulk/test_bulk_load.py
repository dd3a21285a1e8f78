"""Bulk loads, from files to the alias: in a process of their own, on a real Ray, killed and started again."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from ingest.documents import Document
from ingest.index.collections import Collections
from ingest.index.interface import DocumentKey
from tests.bulk.loading import Loader, check_whole, loader, make_row, write_lines

pytestmark = pytest.mark.filterwarnings("ignore:Payload indexes have no effect in the local Qdrant")


@pytest.fixture
async def load(model: Path, ray_address: str, ray_environment: dict[str, str]) -> AsyncIterator[Loader]:
    async with loader(model, ray_address, ray_environment) as found:
        yield found


async def test_rows_become_a_collection_and_bad_ones_dead_letters(load: Loader, tmp_path: Path) -> None:
    rows = [make_row(f"d{number}") for number in range(20)]
    bad = ["{broken", {"document_id": "empty", "text": " "}, {"text": "nobody"}, make_row("d3")]
    write_lines(tmp_path / "in" / "a.jsonl", [*rows[:10], *bad, make_row("poisoned") | {"text": "a poison"}])
    table = {name: [row[name] for row in rows[10:]] for name in ("document_id", "title", "text")}
    pq.write_table(pa.table(table | {"year": range(10)}), tmp_path / "in" / "b.parquet", row_group_size=4)
    checkpoint = tmp_path / "checkpoint"
    arguments = [str(tmp_path / "in"), "--collection", f"{load.name}-a", "--checkpoint", str(checkpoint)]
    arguments += ["--alias", load.name, "--shards", "2", "--quantization", "scalar", "--on-disk"]
    code, output, errors = await load.run(*arguments)
    assert code == 1, errors
    assert f"20 documents in {load.name}-a" in output
    assert "5 refused, recall@10 1.000" in output
    assert f"{load.name} leads to {load.name}-a" in output
    assert "Traceback" not in errors
    index = await load.open(load.name)
    await check_whole(index, [row["document_id"] for row in rows])
    record = (await index.get_records([DocumentKey("default", "d12")]))[DocumentKey("default", "d12")]
    assert record.metadata == {"year": 2}
    expected = Document("d12", rows[12]["text"], rows[12]["title"])
    assert record.content_hash == expected.content_hash()
    await index.close()
    letters = [json.loads(line) for line in (checkpoint / "dead-letters.jsonl").read_text().splitlines()]
    found = {(letter["document_id"], letter["stage"]) for letter in letters}
    assert found == {("", "read"), ("", "read"), ("empty", "check"), ("d3", "check"), ("poisoned", "encode")}
    reasons = {letter["document_id"]: letter["reason"] for letter in letters}
    assert "row 4 of" in reasons["d3"]
    assert "is poisoned" in reasons["poisoned"]
    # Again: nothing is left to do.
    encoded = load.encoder.passages
    code, output, errors = await load.run(*arguments)
    assert (code, load.encoder.passages) == (1, encoded), errors


async def test_what_was_killed_goes_on(load: Loader, tmp_path: Path) -> None:
    names = [f"{part}-{number}" for part in range(8) for number in range(5)]
    for part in range(8):
        write_lines(
            tmp_path / "in" / f"{part}.jsonl", [make_row(name) for name in names if name.startswith(f"{part}-")]
        )
    # In the last file stands what the first one has already.
    write_lines(tmp_path / "in" / "8.jsonl", [make_row("0-0", sentences=200), make_row("8-0")])
    arguments = [str(tmp_path / "in"), "--collection", f"{load.name}-k", "--checkpoint", str(tmp_path / "checkpoint")]
    arguments += ["--alias", load.name]

    batches = 0

    def kill() -> None:
        nonlocal batches
        batches += 1
        if batches == 5:
            assert load.process is not None
            load.process.kill()

    load.encoder.before = kill
    code, _, _ = await load.run(*arguments)
    assert code == -9
    finished = list((tmp_path / "checkpoint" / "parts").glob("*.json"))
    assert len(finished) < 9
    collections = await Collections.open(load.qdrant_url)
    assert load.name not in await collections.aliases()
    await collections.close()
    code, output, errors = await load.run(*arguments)
    assert code == 1, errors
    assert "41 documents" in output
    assert "1 refused" in output
    index = await load.open(load.name)
    await check_whole(index, [*names, "8-0"])
    await index.close()
