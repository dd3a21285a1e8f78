"""Puts documents into an index by hand, one generation at a time."""

from datetime import UTC, datetime

from encoder.interface import Encoder
from encoder.model_config import DEFAULT_MODEL_FOLDER
from encoder.tokenizer import Tokenizer
from ingest.chunking import Chunk, Chunker
from ingest.documents import Document
from ingest.index.interface import DEFAULT_TENANT, DocumentRecord, IndexedChunk, StoredChunk, VectorIndex
from ingest.sparse import sparse_passage


def make_chunker(tokens_max: int = 32) -> Chunker:
    return Chunker(Tokenizer.load(DEFAULT_MODEL_FOLDER), tokens_max=tokens_max)


async def write_chunks(
    index: VectorIndex, encoder: Encoder, chunker: Chunker, document: Document, generation: int
) -> list[Chunk]:
    """Write a generation's chunks, without making it visible."""
    chunks = chunker.chunk(document)
    texts = [chunker.passage(document, chunk) for chunk in chunks]
    encoded = await encoder.encode_passages(texts)
    await index.upsert_chunks(
        [
            IndexedChunk(
                chunk=StoredChunk(
                    tenant=DEFAULT_TENANT,
                    document_id=document.document_id,
                    generation=generation,
                    chunk_index=chunk.chunk_index,
                    char_start=chunk.char_start,
                    char_end=chunk.char_end,
                    line_start=1,
                    line_end=1,
                    headings=(),
                    token_count=chunk.token_count,
                    text=chunk.text,
                ),
                embedding=encoded.embeddings[chunk.chunk_index],
                sparse=sparse_passage(texts[chunk.chunk_index]),
            )
            for chunk in chunks
        ]
    )
    return chunks


async def commit(index: VectorIndex, document: Document, chunks: list[Chunk], generation: int) -> None:
    """Make a generation the visible one."""
    await index.commit_record(
        DocumentRecord(
            tenant=DEFAULT_TENANT,
            document_id=document.document_id,
            title=document.title,
            source=document.source,
            metadata={},
            generation=generation,
            chunk_count=len(chunks),
            token_count=sum(chunk.token_count for chunk in chunks),
            char_count=len(document.text),
            content_hash=document.content_hash(),
            metadata_hash="",
            ingested_at=datetime.now(tz=UTC),
        )
    )


async def put(
    index: VectorIndex, encoder: Encoder, chunker: Chunker, document: Document, generation: int = 1
) -> list[Chunk]:
    """Write a generation and make it visible."""
    chunks = await write_chunks(index, encoder, chunker, document, generation)
    await commit(index, document, chunks, generation)
    return chunks
