"""How far an ingestion is, by what was read and by the receipts, and by the pipeline where it runs in this process."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ingest.documents import Document
    from ingest.expected import Expected
    from ingest.receipts import LoadError, Progress, Receipt


@dataclass(frozen=True, slots=True)
class Stage:
    """How far one stage is."""

    name: str
    done: int
    total: int | None  # a guess until all is read; None where nothing is known
    unit: str  # documents, chunks


@dataclass(slots=True)
class Tally:
    """Counts. Of a service only the receipts are known, so that there the stages between are not."""

    expected: Expected | None = None
    read: int = 0  # documents, those that cannot be read included
    bytes_read: int = 0  # of their texts, as UTF-8
    bytes_done: int = 0  # of texts with a receipt
    ingested: int = 0
    updated: int = 0
    unchanged: int = 0
    superseded: int = 0
    rejected: int = 0
    deleted: int = 0
    chunks: int = 0
    tokens: int = 0
    progress: Progress | None = None  # the pipeline's, where that is told
    started: float = field(default_factory=time.monotonic)
    _sizes: deque[int] = field(default_factory=deque)  # of documents under way

    def watch(self, items: Iterator[Document | LoadError]) -> Iterator[Document | LoadError]:
        """Pass documents on, and remember their sizes until their receipts come (about in the same order)."""
        from ingest.receipts import LoadError

        for item in items:
            size = 0 if isinstance(item, LoadError) else len(item.text.encode("utf-8", "surrogatepass"))
            self._sizes.append(size)
            self.read += 1
            self.bytes_read += size
            yield item

    def count(self, receipt: Receipt) -> None:
        """Add what became of one document, or of one that could not be read."""
        from ingest.receipts import Outcome

        self.bytes_done += self._sizes.popleft()
        name = receipt.outcome.value
        setattr(self, name, getattr(self, name) + 1)
        if receipt.outcome is Outcome.INGESTED:
            self.chunks += receipt.chunk_count
            self.tokens += receipt.token_count

    def give_up(self) -> None:
        """Forget the documents under way: there will be no receipts for them."""
        self.read -= len(self._sizes)
        self.bytes_read -= sum(self._sizes)
        self._sizes.clear()

    def follow(self, progress: Progress) -> None:
        """Note how far the pipeline is."""
        self.progress = progress

    @property
    def documents(self) -> int:
        """Documents with a receipt of any kind."""
        return self.ingested + self.updated + self.unchanged + self.superseded + self.rejected

    def stages(self) -> list[Stage]:
        """Say how far each stage is, in the order that a document passes them."""
        total = self._documents_expected()
        stages = [Stage("read", self.read, total, "documents")]
        if self.progress:
            cut, bytes_cut = self.progress.chunks_cut, self.progress.bytes_cut
            text_bytes = self.expected.text_bytes if self.expected else None
            chunks = None if text_bytes is None or not bytes_cut else max(cut, cut * text_bytes // bytes_cut)
            stages += [
                Stage("chunk", cut, chunks, "chunks"),
                Stage("encode", self.progress.chunks_encoded, chunks, "chunks"),
                Stage("write", self.progress.chunks, chunks, "chunks"),
            ]
        return [*stages, Stage("committed", self.documents, total, "documents")]

    def share_done(self) -> float | None:
        """Say how much of it all is done, from 0 to 1; None where nobody knows.

        A document under way counts by its chunks that are written, or a single long one would be at 0 until its end.
        """
        if self.expected and self.expected.text_bytes:
            return min(self._bytes_reached() / self.expected.text_bytes, 1.0)
        if self.expected and self.expected.documents:
            return min(self.documents / self.expected.documents, 1.0)
        return None

    def _bytes_reached(self) -> float:
        if self.progress is None:
            return self.bytes_done
        chunks_cut = self.progress.chunks_cut - self.chunks
        written = self.progress.chunks - self.chunks
        under_way = max(self.progress.bytes_cut - self.bytes_done, 0)
        return self.bytes_done + (under_way * min(max(written / chunks_cut, 0), 1) if chunks_cut > 0 else 0)

    def _documents_expected(self) -> int | None:
        if self.expected is None:
            return None
        if self.expected.documents is not None:
            return max(self.expected.documents, self.read)
        if self.expected.text_bytes is None or not self.bytes_read:
            return None
        return max(self.read, self.read * self.expected.text_bytes // self.bytes_read)

    def tokens_per_s(self) -> float:
        """Give the mean speed so far."""
        tokens = max(self.tokens, self.progress.tokens if self.progress else 0)
        return tokens / max(time.monotonic() - self.started, 1e-3)

    def summary(self) -> str:
        """Say everything in one sentence."""
        documents = "document" if self.ingested == 1 else "documents"
        chunks = "chunk" if self.chunks == 1 else "chunks"
        rare = [
            (self.updated, "with new metadata"),
            (self.superseded, "overtaken by newer versions"),
            (self.deleted, "deleted"),
        ]
        others = "".join(f"{count} {what}, " for count, what in rare if count)
        return (
            f"{self.ingested} {documents} ingested ({self.chunks:,} {chunks}, {self.tokens:,} tokens), "
            f"{others}{self.unchanged} unchanged, {self.rejected} refused, in {time.monotonic() - self.started:.1f} s "
            f"({self.tokens_per_s():,.0f} tokens/s)"
        )
