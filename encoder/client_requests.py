"""Long lists cut into requests of bounded size. Knows no gRPC."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TypeVar

from encoder.document_slices import TOKEN_ID_MAX, TokenIds, integers
from encoder.errors import InvalidInput
from encoder.interface import EncoderInfo
from encoder.tokenizer import check_characters

# About 64,000 tokens: half a minute for a replica on a CPU, so that a request ends well within its deadline.
REQUEST_BYTES_MAX = 256 * 1024
REQUEST_TOKENS_MAX = 64 * 1024
# As many passages as have so many tokens: each request costs Ray Serve's proxy and a replica 2 ms and more, whatever it
# holds.
REQUEST_TEXTS_MAX = 256
# One text may be longer than REQUEST_BYTES_MAX; it travels alone, up to this size.
TEXT_BYTES_MAX = 3 * 1024 * 1024

_Item = TypeVar("_Item")


def split_texts(field: str, texts: Sequence[str], info: EncoderInfo) -> list[tuple[int, Sequence[str]]]:
    """Cut a list of texts into requests: each one's first place, and its texts."""
    sizes = []
    for place, text in enumerate(texts):
        check_characters(f"{field}[{place}]", text)
        sizes.append(len(text.encode()))
        if sizes[-1] > TEXT_BYTES_MAX:
            raise InvalidInput(
                f"{field}[{place}]", f"{field}[{place}] has {sizes[-1]} bytes; the limit is {TEXT_BYTES_MAX}. Cut it."
            )
    return list(split(texts, sizes, REQUEST_BYTES_MAX, min(info.batch_size_max, REQUEST_TEXTS_MAX)))


def split_token_rows(field: str, rows: Sequence[TokenIds], info: EncoderInfo) -> list[tuple[int, Sequence[TokenIds]]]:
    """Cut a list of passages in token ids into requests: each one's first place, and its passages."""
    for place, row in enumerate(rows):
        name = f"{field}[{place}]"
        ids = integers(name, row)
        if len(row) > info.passage_tokens_max:
            raise InvalidInput(
                name, f"{name} has {len(row)} tokens; the limit is {info.passage_tokens_max}. Shorten it."
            )
        wrong = ids[(ids < 0) | (ids > TOKEN_ID_MAX)]
        if wrong.size:
            raise InvalidInput(name, f"{name} holds the token id {wrong[0]}; ids are 0 to {TOKEN_ID_MAX}.")
    count_max = min(info.batch_size_max, REQUEST_TEXTS_MAX)
    return list(split(rows, [len(row) for row in rows], REQUEST_TOKENS_MAX, count_max))


def split(
    items: Sequence[_Item], sizes: Sequence[int], size_max: int, count_max: int
) -> Iterator[tuple[int, Sequence[_Item]]]:
    """Cut items into parts, each with its first place: of at most ``count_max``, and of ``size_max`` or of one item."""
    start, size = 0, 0
    for place, item_size in enumerate(sizes):
        if place > start and (place - start >= count_max or size + item_size > size_max):
            yield start, items[start:place]
            start, size = place, 0
        size += item_size
    yield start, items[start:]
