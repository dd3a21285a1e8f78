"""What a passage is made of: its title, cut short, a line break, its text. Ingestion and training build it here."""

from __future__ import annotations

from encoder.tokenizer import Tokenizer

TITLE_TOKENS_MAX = 64


def passage_title(tokenizer: Tokenizer, title: str) -> str:
    """Bring a title to one line and cut it after its first 64 tokens."""
    line = " ".join(title.split())
    if not line:
        return line
    offsets = tokenizer.encode_with_offsets(line).offsets
    if len(offsets) <= TITLE_TOKENS_MAX:
        return line
    return line[: int(offsets[TITLE_TOKENS_MAX - 1, 1])]


def join_passage(passage_title: str, text: str) -> str:
    """Join a cut title (it may be empty) and the text of a chunk or document."""
    return f"{passage_title}\n{text}" if passage_title else text
