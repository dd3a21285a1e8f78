"""A query into its embedding: the encoder's, or the caller's own. Knows no index."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from encoder.errors import InvalidInput
from encoder.interface import Encoder
from encoder.tokenizer import Tokenizer
from services.search.requests import QUERY_TOKENS_MAX, SearchRequest, check_embedding
from services.search.results import SearchMode


@dataclass(frozen=True, slots=True)
class EncodedQuery:
    """A query as the dense half asks for it, and what it cost."""

    embedding: NDArray[np.float32]  # (d,) of length 1; empty where there is none
    tokens: int = 0  # as the encoder read them; 0 where it was not asked
    time_s: float = 0.0
    queue_time_s: float = 0.0
    tokenize_time_s: float = 0.0


NOT_ENCODED = EncodedQuery(np.empty(0, dtype=np.float32))


def begin_encoding(
    request: SearchRequest, encoder: Encoder, tokenizer: Tokenizer, dimension: int
) -> asyncio.Future[EncodedQuery]:
    """Begin to encode a query, or take the embedding that comes with it; the words alone need neither.

    The encoder counts the tokens that it reads. Where it is not asked, they are counted here, so that no text is
    tokenized twice: :class:`InvalidInput` for too many, or for an embedding that is none of this index.
    """
    if request.scored_by is not SearchMode.SPARSE and request.embedding is None:
        return asyncio.ensure_future(_encode(request.query, encoder))
    check_tokens(request.query, tokenizer)
    embedding = request.embedding
    return already(NOT_ENCODED if embedding is None else EncodedQuery(check_embedding(embedding, dimension)))


def already(encoded: EncodedQuery) -> asyncio.Future[EncodedQuery]:
    """Give what is known in the form of what is still to come."""
    known: asyncio.Future[EncodedQuery] = asyncio.get_running_loop().create_future()
    known.set_result(encoded)
    return known


def check_tokens(query: str, tokenizer: Tokenizer) -> None:
    """Refuse a query of too many tokens: :class:`InvalidInput` names ``query``."""
    tokens = tokenizer.count(query) + 1  # the end-of-sequence token
    if tokens > QUERY_TOKENS_MAX:
        raise InvalidInput("query", f"query has {tokens} tokens; the limit is {QUERY_TOKENS_MAX}. Shorten it.")


async def _encode(query: str, encoder: Encoder) -> EncodedQuery:
    started = time.perf_counter()
    try:
        encoded = await encoder.encode_queries([query])
    except InvalidInput as error:
        raise InvalidInput("query", str(error).replace("queries[0]", "query")) from None
    return EncodedQuery(
        encoded.embeddings[0],
        encoded.token_counts[0],
        time.perf_counter() - started,
        encoded.queue_time_s,
        encoded.tokenize_time_s,
    )
