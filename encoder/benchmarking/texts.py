"""Real texts of about one length, each another slice of the evaluation set that ships with the project."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from encoder.errors import InvalidInput
from encoder.evaluation.datasets import load_evaluation_set
from encoder.tokenizer import Tokenizer

_SET = Path(__file__).parent.parent / "evaluation" / "datasets" / "squad_xquad_en"


def read_texts(tokenizer: Tokenizer, count: int, tokens: int) -> list[str]:
    """Cut the set's paragraphs, end to end, into ``count`` slices of at most ``tokens`` tokens; see :func:`slices`."""
    documents = load_evaluation_set(_SET).documents
    return slices("\n".join(document.text for document in documents), tokenizer, count, tokens)


def slices(text: str, tokenizer: Tokenizer, count: int, tokens: int) -> list[str]:
    """Cut slices of whole words, as long as fit ``tokens`` tokens, each from another word on: no two are equal.

    They overlap where there are many, so that words come again, as they do in texts of one collection.
    :class:`InvalidInput` where the text has fewer words to begin with.
    """
    offsets = tokenizer.encode_with_offsets(text).offsets  # (l, 2)
    begins = np.array([not start or text[start - 1].isspace() for start in offsets[:, 0]])
    words = np.flatnonzero(begins)
    starts = words[words + tokens <= len(offsets)]
    if count > len(starts):
        raise InvalidInput("texts", f"texts is {count}; at most {len(starts)} of {tokens} tokens can be cut.")
    chosen: Sequence[int] = starts[np.linspace(0, len(starts) - 1, count).astype(np.int64)].tolist()
    bounds = np.append(words, len(offsets))
    found = []
    for start in chosen:
        end = int(bounds[np.searchsorted(bounds, start + tokens, side="right") - 1])
        found.append(text[offsets[start, 0] : offsets[max(end, start + 1) - 1, 1]])
    return found
