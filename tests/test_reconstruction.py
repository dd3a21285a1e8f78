"""Texts put together again from the chunks that were cut from them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ingest.bulk.documents import NewDocument, cut_document
from ingest.chunking import Chunker
from ingest.documents import Document
from ingest.index.interface import StoredChunk
from ingest.index.memory import MemoryIndex
from ingest.reconstruction import join_chunks, read_document
from ingest.slots import Slot
from tests.indexes import DIMENSION, axis, make_chunk
from tests.pipelining import make_chunker

DEMO = Path(__file__).parent.parent / "demo" / "documents"


def stored(cut: NewDocument) -> list[StoredChunk]:
    return [Slot(cut.record.key, "", generation=1).stored(chunk) for chunk in cut.chunks]


def check_places(text: str, chunks: list[StoredChunk], rebuilt: str) -> None:
    """Every chunk stands where it stood, on the line that it stood on, and between them is white space."""
    assert len(rebuilt) == len(text)
    for chunk in chunks:
        assert rebuilt[chunk.char_start : chunk.char_end] == chunk.text
        assert rebuilt.count("\n", 0, chunk.char_start) + 1 == chunk.line_start
    assert rebuilt.split() == text.split()


@pytest.mark.parametrize("path", sorted(DEMO.glob("*")), ids=lambda path: path.name)
@pytest.mark.parametrize("overlap", [0, 6])
def test_real_documents(path: Path, overlap: int) -> None:
    text = path.read_text(encoding="utf-8")
    chunker = Chunker(make_chunker()._tokenizer, tokens_max=32, overlap_tokens=overlap)
    cut = cut_document(Document(path.name, text), chunker)
    chunks = stored(cut)
    assert len(chunks) > 100
    check_places(text, chunks, join_chunks(chunks, len(text)))


@settings(max_examples=60, deadline=None)
@given(st.lists(st.sampled_from(["word ", "Two words. ", "\n", "\n\n", "    ", "# Title\n", "a-b", "\t"]), min_size=1))
def test_texts_with_gaps_of_all_kinds(parts: list[str]) -> None:
    text = "".join(parts)
    if not text.strip():
        return
    chunks = stored(cut_document(Document("d", text), make_chunker()))
    check_places(text, chunks, join_chunks(chunks, len(text)))


def test_code_keeps_its_indents_where_chunks_begin() -> None:
    text = "def first():\n    return 1\n\n\nclass Second:\n    def third(self):\n        return 3\n"
    code = Document("d.py", text, metadata={"language": "python"})
    chunks = stored(cut_document(code, make_chunker()))
    assert len(chunks) > 1
    assert join_chunks(chunks, len(text)) == text


async def test_a_document_of_which_chunks_are_missing_is_not_read() -> None:
    index = MemoryIndex(dimension=DIMENSION, fingerprint="f")
    document = Document("d", " ".join(f"Sentence {number} stands here." for number in range(40)), title="T")
    cut = cut_document(document, make_chunker())
    chunks = [replace(make_chunk("d", 0, "x"), chunk=chunk, embedding=axis(0)) for chunk in stored(cut)]
    await index.upsert_chunks(chunks)
    assert await read_document(index, cut.record) == document
    await index.delete_chunks(cut.record.key, generation=1)
    await index.upsert_chunks(chunks[1:])
    assert await read_document(index, cut.record) is None
