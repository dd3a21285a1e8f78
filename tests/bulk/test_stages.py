"""The stages of a bulk load without Ray: parts of files, bundles of documents, the checkpoint, and what is refused."""

from __future__ import annotations

import io
import itertools
import json
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import BinaryIO

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from encoder.errors import IndexUnavailable, InUse, InvalidInput, Unavailable
from ingest.batch import joined_ray
from ingest.bulk.checkpoint import Checkpoint, PartOutcome, Plan, Totals, make_plan
from ingest.bulk.cutting import Cutter
from ingest.bulk.documents import Bundle, DeadLetter, cut_document
from ingest.bulk.filling import DocumentEncoder, write_documents
from ingest.bulk.parts import Part, plan_parts, read_part
from ingest.bulk.seen import SeenKeys
from ingest.chunk_encoding import ChunksAlone, ChunksInOnePass
from ingest.documents import Document
from ingest.files import FoundFile
from ingest.index.interface import DocumentKey, IndexedChunk
from ingest.index.memory import MemoryIndex
from ingest.loading.kinds import Kind
from ingest.seen import HASH_BYTES, hash_key
from tests.bulk.loading import make_row, write_lines
from tests.pipelining import DIMENSION, MoodyEncoder, fingerprint, make_chunker, make_document


def ids(parts: Sequence[Part]) -> list[str]:
    return [item.document_id for part in parts for item in read_part(part) if isinstance(item, Document)]


@settings(max_examples=40, deadline=None)
@given(st.lists(st.integers(0, 60), min_size=1, max_size=20), st.integers(1, 200), st.booleans())
def test_every_line_is_in_one_part(lengths: list[int], part_bytes: int, ends: bool) -> None:
    rows = [json.dumps({"id": f"d{number}", "text": "x" * (length + 1)}) for number, length in enumerate(lengths)]
    data = "\n".join(rows).encode() + b"\n" * ends
    file = FoundFile("a.jsonl", "a.jsonl", len(data), Kind.JSON_LINES, lambda: io.BytesIO(data))
    parts = [Part(file, at, min(at + part_bytes, len(data))) for at in range(0, len(data), part_bytes)]
    assert ids(parts) == [f"d{number}" for number in range(len(lengths))]


def test_row_groups_are_joined_up_to_a_size_and_rows_keep_their_numbers(tmp_path: Path) -> None:
    table = pa.table({"text": [f"text number {number} " * 20 for number in range(50)]})
    pq.write_table(table, tmp_path / "a.parquet", row_group_size=10)
    parts = plan_parts([str(tmp_path)], part_bytes=500)
    assert [(part.first, part.last) for part in parts] == [(0, 1), (1, 2), (2, 3), (3, 4), (4, 5)]
    assert len(plan_parts([str(tmp_path)])) == 1
    assert ids(parts) == [f"a.parquet:{number}" for number in range(1, 51)]
    assert ids(parts[2:3]) == [f"a.parquet:{number}" for number in range(21, 31)]
    assert len({part.name for part in parts}) == 5


@pytest.mark.parametrize(
    ("name", "data", "reason"),
    [
        ("a.txt", b"words", "is plain text; a bulk load reads Parquet and JSON lines"),
        ("a.parquet", b"PAR1 no more", "is not Parquet that can be read"),
        ("missing.jsonl", None, "cannot be read"),
    ],
)
def test_sources_that_cannot_be_divided_are_refused(tmp_path: Path, name: str, data: bytes | None, reason: str) -> None:
    if data is not None:
        (tmp_path / name).write_bytes(data)
    with pytest.raises(InvalidInput, match=reason) as refusal:
        plan_parts([str(tmp_path / name)])
    assert refusal.value.field == "sources"
    with pytest.raises(InvalidInput, match="is not of a bucket or a folder"):
        plan_parts(["https://example.org/a.jsonl"])


class BrokenOnce(io.BytesIO):
    """A connection that breaks off after some reads."""

    def __init__(self, data: bytes, reads: int) -> None:
        super().__init__(data)
        self._reads = reads

    def readline(self, size: int | None = -1, /) -> bytes:
        self._reads -= 1
        if self._reads < 0:
            raise OSError(5, "connection lost")
        return super().readline(-1 if size is None else size)


@pytest.mark.parametrize(("opens", "whole"), [([2, 3, 99], True), ([2, 3, 1], False)])
def test_a_file_that_breaks_off_is_opened_again(monkeypatch: pytest.MonkeyPatch, opens: list[int], whole: bool) -> None:
    monkeypatch.setattr("ingest.bulk.parts.REOPEN_DELAYS_S", (0.0, 0.0))
    data = "".join(json.dumps({"id": f"d{number}", "text": "x"}) + "\n" for number in range(6)).encode()
    reads = iter(opens)

    def open_it() -> BinaryIO:
        return BrokenOnce(data, next(reads))

    part = Part(FoundFile("a.jsonl", "a.jsonl", len(data), Kind.JSON_LINES, open_it), 0, len(data))
    bundles = list(Cutter(make_chunker(), no_claims).cut(0, part))
    assert ids_of(bundles) == [f"d{number}" for number in range(6 if whole else 3)]
    assert ("connection lost" in bundles[-1].failure) is not whole
    assert not any(bundle.dead for bundle in bundles)


def no_claims(claims: Sequence[tuple[bytes, str]]) -> list[str]:
    return [""] * len(claims)


def ids_of(bundles: Sequence[Bundle]) -> list[str]:
    return [document.record.document_id for bundle in bundles for document in bundle.documents]


def test_bundles_hold_whole_documents_and_each_id_once(tmp_path: Path) -> None:
    rows = [make_row(f"d{number % 7}", sentences=10 + number) for number in range(10)]
    write_lines(tmp_path / "a.jsonl", rows)
    write_lines(tmp_path / "b.jsonl", [make_row("d2"), make_row("e"), {"text": "no id"}])
    parts = plan_parts([str(tmp_path)])
    seen = SeenKeys()
    cutter = Cutter(make_chunker(), seen.claim, bundle_tokens=150)
    first = list(cutter.cut(0, parts[0]))
    assert len(first) > 2
    assert [(bundle.number, bundle.last) for bundle in first] == [
        (number, number == len(first) - 1) for number in range(len(first))
    ]
    assert ids_of(first) == [f"d{number}" for number in range(7)]
    dead = [letter for bundle in first for letter in bundle.dead]
    assert [(letter.document_id, letter.stage) for letter in dead] == [
        ("d0", "check"),
        ("d1", "check"),
        ("d2", "check"),
    ]
    assert "row 1 of" in dead[0].reason
    # Read again, as after the loss of a machine, the part is the same.
    assert ids_of(list(cutter.cut(0, parts[0]))) == ids_of(first)
    second = list(cutter.cut(1, parts[1]))
    assert ids_of(second) == ["e"]
    assert [letter.stage for letter in second[0].dead] == ["read", "check"]
    assert "has no document_id" in second[0].dead[0].reason
    # Of a load that goes on, the finished parts' documents are known.
    again = SeenKeys()
    again.add(key for bundle in first for key in bundle.hashes)
    assert ids_of(list(Cutter(make_chunker(), again.claim).cut(1, parts[1]))) == ["e"]
    seen.close()
    again.close()


def test_hashes_tell_tenants_apart() -> None:
    hashes = {hash_key(DocumentKey(tenant, name)) for tenant, name in itertools.product(("a", "b"), ("c", "d"))}
    assert {len(one) for one in hashes} == {HASH_BYTES}
    assert len(hashes) == 4


async def test_a_document_at_fault_is_found_in_its_batch() -> None:
    encoder = MoodyEncoder()
    documents = [cut_document(make_document(f"d{number}", 30), make_chunker()) for number in range(5)]
    documents.insert(2, cut_document(make_document("bad", 30, word="poison"), make_chunker()))
    await DocumentEncoder(encoder, ChunksAlone()).encode(documents)
    assert [document.record.document_id for document in documents if document.error] == ["bad"]
    assert "bad cannot be encoded" in str(documents[2].error)
    for document in documents:
        if document.error is None:
            assert document.embeddings is not None
            expected = await encoder.encode_passages([f"{document.title}\n{chunk.text}" for chunk in document.chunks])
            assert (document.embeddings == expected.embeddings).all()


async def test_documents_of_any_length_are_encoded_in_batches_and_in_one_pass() -> None:
    encoder = MoodyEncoder()
    documents = [
        cut_document(make_document("long", 2000), make_chunker()),
        cut_document(make_document("s"), make_chunker()),
    ]
    await DocumentEncoder(encoder, ChunksAlone(), batch_tokens_max=4000).encode(documents)
    assert len(encoder.batches) > 5
    assert max(map(len, encoder.batches)) < 1024
    whole = [replace(document, embeddings=None) for document in documents]
    await DocumentEncoder(encoder, ChunksInOnePass(make_chunker()._tokenizer)).encode(whole)
    for document in (*documents, *whole):
        assert document.embeddings is not None
        assert document.embeddings.shape == (len(document.chunks), DIMENSION)


class Forgetful(MemoryIndex):
    """Loses the first chunk of so many batches."""

    losses = 0

    async def upsert_chunks(self, chunks: Sequence[IndexedChunk]) -> None:
        self.losses -= 1
        await super().upsert_chunks(chunks if self.losses < 0 else chunks[1:])


async def test_what_is_written_is_counted_and_written_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ingest.bulk.filling.RETRY_DELAYS_S", (0.0,))
    index = Forgetful(dimension=DIMENSION, fingerprint=fingerprint())
    documents = [cut_document(make_document(f"d{number}", 40), make_chunker()) for number in range(3)]
    longer = cut_document(make_document("d1", 90), make_chunker())
    encoder = DocumentEncoder(MoodyEncoder(), ChunksAlone())
    await encoder.encode([*documents, longer])
    await write_documents(index, [longer])  # left by an attempt that read another row of this id
    index.losses = 1
    assert await write_documents(index, documents) == 0
    for document in documents:
        record = document.record
        assert await index.get_records([record.key]) == {record.key: record}
        assert await index.count_chunks(record.key, 1) == record.chunk_count == len(document.chunks)
    index.losses = 1000
    lost = replace(longer, record=replace(longer.record, document_id="lost"))
    with pytest.raises(IndexUnavailable, match=r"lost: .* chunks of it are in the index"):
        await write_documents(index, [lost])
    assert await index.get_records([lost.record.key]) == {}
    # A newer version that is there stays, and nothing of the older one.
    index.losses = 0
    newer = replace(longer, record=replace(longer.record, generation=2))
    assert await write_documents(index, [newer]) == 0
    assert await write_documents(index, [documents[1]]) == 1
    assert await index.count_chunks(longer.record.key, 1) == 0
    assert (await index.get_records([longer.record.key]))[longer.record.key].generation == 2


def test_a_checkpoint_goes_on_with_the_same_plan_only(tmp_path: Path) -> None:
    write_lines(tmp_path / "a.jsonl", [make_row("a"), make_row("b")])
    parts = plan_parts([str(tmp_path / "a.jsonl")], part_bytes=100)
    assert len(parts) > 3
    plan = make_plan("c", "f", 8, parts)
    checkpoint, is_new = Checkpoint.open(tmp_path / "checkpoint", plan)
    assert is_new
    with pytest.raises(InUse, match="is running"):
        Checkpoint.open(tmp_path / "checkpoint", plan)
    checkpoint.begin()
    letters = [DeadLetter("a:2", "é\ud800", "check", "too bad")]
    outcome = PartOutcome(
        Totals(documents=2, chunks=5, tokens=9, dead=1), [b"a" * HASH_BYTES, b"b" * HASH_BYTES], letters
    )
    checkpoint.finish(2, outcome)
    checkpoint.finish(0, PartOutcome(Totals(documents=1, chunks=1, tokens=1), [b"c" * HASH_BYTES]))
    checkpoint.close()
    (tmp_path / "checkpoint" / "parts" / "1.keys").write_bytes(b"of a part that was not finished")
    checkpoint, is_new = Checkpoint.open(tmp_path / "checkpoint", plan)
    assert not is_new
    assert checkpoint.finished() == {0: Totals(documents=1, chunks=1, tokens=1), 2: outcome.totals}
    assert list(checkpoint.hashes()) == [b"c" * HASH_BYTES, *outcome.hashes]
    lines = checkpoint.gather_dead_letters().read_text(encoding="utf-8").splitlines()
    assert [json.loads(line)["reason"] for line in lines] == ["too bad"]
    checkpoint.close()
    for other in (plan.model_copy(update={"fingerprint": "g"}), make_plan("c", "f", 8, parts[:-1])):
        with pytest.raises(InvalidInput, match=r"of a load with other (fingerprint|parts)") as refusal:
            Checkpoint.open(tmp_path / "checkpoint", other)
        assert refusal.value.field == "checkpoint"
    (tmp_path / "checkpoint" / "plan.json").write_text("{")
    with pytest.raises(InvalidInput, match="is no plan"):
        Checkpoint.open(tmp_path / "checkpoint", plan)
    with pytest.raises(InvalidInput, match="cannot be written"):
        Checkpoint.open(tmp_path / "a.jsonl", Plan(collection="c", fingerprint="f", dimension=8, parts=()))


def test_what_a_stage_raised_is_found_in_what_ray_made_of_it() -> None:
    """In a process of its own, as Ray's import warns."""
    code = """
from ray.exceptions import RayTaskError
from encoder.errors import FingerprintMismatch, InvalidInput
from ingest.batch import _cause
for error in (FingerprintMismatch("Two models."), InvalidInput("text", "It is empty.")):
    found = _cause(RayTaskError("stage", "Traceback of many lines", error).as_instanceof_cause())
    print(type(found).__name__, found)
print(type(_cause(RayTaskError("stage", "lines", KeyError("x")))).__name__)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=60)
    assert done.stdout.splitlines() == ["FingerprintMismatch Two models.", "InvalidInput It is empty.", "Unavailable"]


def test_a_ray_that_is_away_is_told_of_at_once() -> None:
    with pytest.raises(Unavailable, match=r"Ray at 127\.0\.0\.1:1 cannot be reached"), joined_ray("127.0.0.1:1"):
        raise AssertionError
