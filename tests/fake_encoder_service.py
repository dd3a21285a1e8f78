"""The encoder service on the port given, with a fake encoder in its replica: the start of a process for tests.

A query that begins with "slowly" takes a second; one that begins with "crash" raises something unforeseen; one that
begins with "wedge" is never read, nor any after it. A batch of passages that begin with "slowly" takes a tenth of a
second, and so does a piece of a document that holds the token SLOW_TOKEN. The passage READS is answered with a count of
tokens that is one more than such batches read so far.

    python -m tests.fake_encoder_service [MODEL_FOLDER]

With a model's folder, that model is a third application, "local-encoder".
"""

import asyncio
import signal
import sys
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from encoder.document_slices import TokenIds
from encoder.interface import DocumentReading, StreamingEncoder, TokenRow
from services.encoder_service import serve_until
from services.encoding.factory import EncoderFactory
from services.settings import EncoderSettings
from tests.fakes import FakeEncoder, FakeReading
from tests.float32_encoder import Float32EncoderFactory

SLOW_TOKEN = 7
SLOWLY, CRASH, WEDGE = -3, -4, -5  # in place of a row's first token
READS = "slices read"


class MoodyEncoder(FakeEncoder):
    reads = 0

    async def query_rows(self, queries: Sequence[str]) -> list[TokenRow]:
        rows = await super().query_rows(queries)
        return [_marked(text, row) for text, row in zip(queries, rows, strict=True)]

    async def passage_rows(self, passages: Sequence[str]) -> list[TokenRow]:
        rows = await super().passage_rows(passages)
        if list(passages) == [READS]:
            return [np.append(np.full(self.reads, rows[0][0]), rows[0][-1:])]
        return [_marked(text, row) for text, row in zip(passages, rows, strict=True)]

    async def embed_queries(self, rows: Sequence[TokenRow]) -> NDArray[np.float32]:
        if any(row[0] == SLOWLY for row in rows):
            await asyncio.sleep(1)
        if any(row[0] == CRASH for row in rows):
            raise RuntimeError(str(rows))
        if any(row[0] == WEDGE for row in rows):
            await asyncio.Event().wait()
        return await super().embed_queries(rows)

    async def embed_passages(self, rows: Sequence[TokenRow]) -> NDArray[np.float32]:
        if any(row[0] == SLOWLY for row in rows):
            self.reads += 1
            await asyncio.sleep(0.1)
        return await super().embed_passages(rows)

    async def open_document(self, *, state: bytes | None = None, keep_state: bool = False) -> DocumentReading:
        return MoodyReading(self, state, keep_state=keep_state)


def _marked(text: str, row: TokenRow) -> TokenRow:
    """Let a text's first word reach those who see its tokens only."""
    mark = {"slowly": SLOWLY, "crash": CRASH, "wedge": WEDGE}.get(text.split()[0])
    return row if mark is None else np.append(np.int32(mark), row[1:])


class MoodyReading(FakeReading):
    def __init__(self, encoder: MoodyEncoder, state: bytes | None, *, keep_state: bool) -> None:
        super().__init__(encoder._info, state, keep_state=keep_state)
        self._encoder = encoder

    async def read(self, token_ids: TokenIds, chunk_ends: TokenIds) -> NDArray[np.float32]:
        if SLOW_TOKEN in np.asarray(token_ids):
            self._encoder.reads += 1
            await asyncio.sleep(0.1)
        return await super().read(token_ids, chunk_ends)


@dataclass(frozen=True)
class MoodyEncoderFactory:
    fingerprint: str

    def __call__(self) -> StreamingEncoder:
        return MoodyEncoder(fingerprint=self.fingerprint)


def main() -> None:
    settings = EncoderSettings.load()
    applications: dict[str, tuple[str, EncoderFactory]] = {
        "query-encoder": ("QueryEncoder", MoodyEncoderFactory("q")),
        "passage-encoder": ("PassageEncoder", MoodyEncoderFactory("p")),
    }
    if sys.argv[1:]:
        applications["local-encoder"] = ("LocalEncoder", Float32EncoderFactory(Path(sys.argv[1])))
    stop = threading.Event()
    work = (stop, settings, applications, lambda: print("ready", flush=True))  # noqa: T201 - the test waits for it
    thread = threading.Thread(target=serve_until, args=work)
    signal.signal(signal.SIGTERM, lambda *_: (signal.alarm(0), stop.set()))
    thread.start()
    thread.join()


if __name__ == "__main__":
    main()
