"""How much memory a long document needs on its way into the index: one of a million tokens, and one of ten million.

    python -m tests.benchmarks.document_memory

Each is read from a file, cut, given vectors by an encoder that costs nothing, and written, in a process of its own.
Texts of more than the limit of 64 MiB are refused, so that what is measured here is nearly the most there is. The last
line is the figure.
"""

from __future__ import annotations

import argparse
import asyncio
import resource
import subprocess
import sys
import tempfile
from pathlib import Path

from encoder.fingerprint import index_fingerprint
from encoder.model_config import DEFAULT_MODEL_FOLDER
from encoder.tokenizer import Tokenizer
from ingest.chunking import Chunker
from ingest.index.embedded import EmbeddedIndex
from ingest.journal import Journal, journal_url
from ingest.loaders import load_documents
from ingest.pipeline import Ingestor
from tests.benchmarks.ingest_speed import DIMENSION, ZeroCostEncoder

TOKENS = (1_000_000, 10_000_000)
BYTES_MAX = 24  # of memory for each byte of text that is more
_SENTENCE = "The keeper of lamp {} looked out at the sea, and all night long the ships went by without a sound. "
_SENTENCE_TOKENS = 22


def write_text(path: Path, tokens: int) -> None:
    """Write a text of about so many tokens, a sentence at a time."""
    with path.open("w") as file:
        for number in range(tokens // _SENTENCE_TOKENS):
            file.write(_SENTENCE.format(number % 1000))
            if number % 8 == 7:
                file.write("\n\n")


async def ingest(path: Path, folder: Path) -> int:
    """Ingest a file; give the tokens of its chunks."""
    encoder = ZeroCostEncoder()
    info = await encoder.info()
    chunker = Chunker(Tokenizer.load(DEFAULT_MODEL_FOLDER))
    fingerprint = index_fingerprint(info.fingerprint, chunker.fingerprint)
    index = await EmbeddedIndex.open(folder, dimension=DIMENSION, fingerprint=fingerprint)
    journal = await Journal.open(journal_url(folder))
    ingestor = Ingestor(encoder, index, chunker, journal)  # type: ignore[arg-type]
    receipts = [receipt async for receipt in ingestor.ingest_all(load_documents([path]))]
    await journal.close()
    await index.close()
    (receipt,) = receipts
    if receipt.error:
        raise receipt.error
    return receipt.token_count


def child(tokens: int) -> None:
    """Ingest one document, and print its tokens, its bytes and the peak of memory in bytes."""
    with tempfile.TemporaryDirectory(prefix="document-memory-") as name:
        path = Path(name) / "long.txt"
        write_text(path, tokens)
        found, size = asyncio.run(ingest(path, Path(name) / "data")), path.stat().st_size
    print(found, size, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tokens", type=int, help="ingest one document of so many in this process")
    given = parser.parse_args()
    if given.tokens:
        child(given.tokens)
        return 0
    rows = []
    for tokens in TOKENS:
        command = [sys.executable, "-m", "tests.benchmarks.document_memory", "--tokens", str(tokens)]
        shown = subprocess.run(command, check=True, capture_output=True, text=True).stdout
        rows.append(tuple(map(int, shown.split())))
        print(
            f"{rows[-1][0]:>12,} tokens, {rows[-1][1] / 1e6:6.1f} MB of text, {rows[-1][2] / 1e6:8.0f} MB of memory",
            flush=True,
        )
    (_, small, least), (_, large, most) = rows
    ratio = (most - least) / (large - small)
    print(
        f"{'PASS' if ratio <= BYTES_MAX else 'FAIL'}: {ratio:.1f} bytes of memory for a byte of text (bar {BYTES_MAX})"
    )
    return 0 if ratio <= BYTES_MAX else 1


if __name__ == "__main__":
    sys.exit(main())
