"""The process that cuts documents: ``python -m ingest.cutting.child MODEL TOKENS_MAX OVERLAP_TOKENS``.

It reads requests from its standard input and ends with it.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import IO, cast

from encoder.errors import InvalidInput
from encoder.tokenizer import Tokenizer
from ingest.chunking import Chunker
from ingest.cutting.cutter import CutRequest, cut
from ingest.cutting.messages import READY, pack, receive, send
from ingest.priority import lower_priority


def serve(chunker: Chunker, requests: IO[bytes], replies: IO[bytes]) -> None:
    """Say that it is ready, and answer one request after another, until the other side is gone."""
    send(replies, READY)
    while True:
        try:
            asked = cast("list[CutRequest]", receive(requests))
        except EOFError:
            return
        found = [cut(chunker, request) for request in asked]
        send(replies, [(each.field, str(each)) if isinstance(each, InvalidInput) else pack(each) for each in found])


def main(model: str, tokens_max: str, overlap_tokens: str) -> None:
    """Load the tokenizer, then serve; with the priority of the process that started this one."""
    lower_priority()
    chunker = Chunker(Tokenizer.load(Path(model)), int(tokens_max), int(overlap_tokens))
    serve(chunker, sys.stdin.buffer, sys.stdout.buffer)


if __name__ == "__main__":
    main(*sys.argv[1:])
