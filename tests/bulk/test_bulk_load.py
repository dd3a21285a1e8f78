"""A bulk load from files to the alias: on a real Ray, killed, started again, refused for its recall, switched."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from encoder.model_config import load_model_config
from ingest.documents import Document
from ingest.index.collections import Collections, Layout, MadeBy
from ingest.index.interface import DocumentKey
from tests.bulk.loading import Loader, check_whole, loader, make_row, write_lines
from tests.indexes import SERVER_URL

pytestmark = pytest.mark.filterwarnings("ignore:Payload indexes have no effect in the local Qdrant")

FILES = 8
KILLED_AT = 6  # batches that have been encoded


@asynccontextmanager
async def opened(url: str) -> AsyncIterator[Collections]:
    found = await Collections.open(url)
    yield found
    await found.close()


def write_sources(folder: Path) -> list[dict[str, Any]]:
    """Write files of good rows, one of bad ones, and one of Parquet; give the good ones."""
    rows = [make_row(f"{file}-{number}") for file in range(FILES) for number in range(5)]
    for file in range(FILES):
        write_lines(folder / f"{file}.jsonl", rows[5 * file : 5 * file + 5])
    empty, nameless = {"document_id": "empty", "text": " "}, {"text": "nobody"}
    # 0-0 is in the first file already, and longer here.
    bad = ["{broken", empty, nameless, make_row("0-0", sentences=200), make_row("bad") | {"text": "a poison"}]
    write_lines(folder / "bad.jsonl", [*bad, make_row("good")])
    columns = [make_row(f"p{number}") for number in range(10)]
    table = {name: [row[name] for row in columns] for name in ("document_id", "title", "text")}
    pq.write_table(pa.table(table | {"year": range(10)}), folder / "table.parquet", row_group_size=4)
    return [*rows, make_row("good"), *columns]


@pytest.fixture
async def load(model: Path, ray_address: str, ray_environment: dict[str, str]) -> AsyncIterator[Loader]:
    async with loader(model, ray_address, ray_environment, missed=4) as found:
        yield found


async def test_a_load_that_is_killed_goes_on_to_the_switch(load: Loader, tmp_path: Path) -> None:
    rows = await asyncio.to_thread(write_sources, tmp_path / "in")
    checkpoint, new = tmp_path / "checkpoint", f"{load.name}-2"
    arguments = [str(tmp_path / "in"), "--collection", new, "--checkpoint", str(checkpoint), "--alias", load.name]
    arguments += ["--shards", "2", "--quantization", "scalar", "--on-disk"]
    async with opened(load.qdrant_url) as collections:
        made_by = MadeBy(load.fingerprint(), load_model_config(load.model).embedding_dim)
        await collections.create(f"{load.name}-1", made_by, Layout())
        await collections.switch(load.name, f"{load.name}-1")
        batches = 0

        def kill() -> None:
            nonlocal batches
            batches += 1
            if batches == KILLED_AT:
                assert load.process is not None
                load.process.kill()

        load.encoder.before = kill
        assert (await load.run(*arguments))[0] == -9
        finished = await asyncio.to_thread(lambda: list((checkpoint / "parts").glob("*.json")))
        assert len(finished) < FILES + 2
        assert (await collections.aliases())[load.name] == f"{load.name}-1"

        if SERVER_URL is None:  # whose searches miss nothing here
            code, output, errors = await load.run(*arguments)
            assert code == 2, errors
            assert "recall@10 of collection" in errors
            assert "below recall_min, 0.95; nothing was switched" in errors
            assert "Traceback" not in errors
            assert (await collections.aliases())[load.name] == f"{load.name}-1"
        encoded = load.encoder.passages
        code, output, errors = await load.run(*arguments, "--recall-min", "0.5")
        assert code == 1, errors
        assert SERVER_URL is not None or load.encoder.passages == encoded
        assert f"{len(rows)} documents in {new}" in output
        assert "5 refused, recall@10 " in output
        assert f"{load.name} leads to {new}; {load.name}-1 before" in output
        assert (await collections.aliases())[load.name] == new
    await check_documents(load, rows)
    await asyncio.to_thread(check_dead_letters, checkpoint / "dead-letters.jsonl")


async def check_documents(load: Loader, rows: list[dict[str, Any]]) -> None:
    index = await load.open(load.name)
    await check_whole(index, [row["document_id"] for row in rows])
    keys = [DocumentKey("default", name) for name in ("p2", "1-3")]
    records = await index.get_records(keys)
    assert [records[key].metadata for key in keys] == [{"year": 2}, {"kind": "made"}]
    row = next(row for row in rows if row["document_id"] == "1-3")
    assert records[keys[1]].content_hash == Document("1-3", row["text"], row["title"]).content_hash()
    await index.close()


def check_dead_letters(file: Path) -> None:
    letters = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]
    found = sorted((letter["document_id"], letter["stage"]) for letter in letters)
    assert found == [("", "read"), ("", "read"), ("0-0", "check"), ("bad", "encode"), ("empty", "check")]
    reasons = {letter["document_id"]: letter["reason"] for letter in letters}
    assert "is that of " in reasons["0-0"]  # a row, or a part that was finished before
    assert "is poisoned" in reasons["bad"]
    assert all("bad.jsonl" in letter["source"] or letter["document_id"] == "0-0" for letter in letters)
