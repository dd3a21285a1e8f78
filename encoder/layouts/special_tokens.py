"""What a tokenizer wraps a text in, found out by asking it; and whether a tokenizer fits a model."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import tokenizers

from encoder.errors import CheckpointError

_PROBE = "a"


class SpecialTokens(NamedTuple):
    """What stands before and after every text."""

    bos_token: str | None
    eos_token: str | None


def read_special_tokens(path: Path) -> SpecialTokens:
    """Encode a text with and without special tokens: what the post-processor of a ``tokenizer.json`` adds shows.

    :class:`CheckpointError` where the file cannot be read, or adds more than one token on a side.
    """
    try:
        pipeline = tokenizers.Tokenizer.from_file(str(path))
    except Exception as error:
        raise CheckpointError(f"{path} is not a tokenizer: {error}.") from error
    pipeline.no_padding()
    pipeline.no_truncation()
    try:
        bare = pipeline.encode(_PROBE, add_special_tokens=False).tokens
        wrapped = pipeline.encode(_PROBE, add_special_tokens=True).tokens
    except Exception as error:
        raise CheckpointError(f"{path} cannot tokenize a text: {error}.") from error
    start = next(
        (start for start in range(len(wrapped) - len(bare) + 1) if wrapped[start : start + len(bare)] == bare), None
    )
    if start is None:
        raise CheckpointError(f"{path}: post_processor changes the tokens of a text; only wrapping it is supported.")
    before, after = wrapped[:start], wrapped[start + len(bare) :]
    if len(before) > 1 or len(after) > 1:
        raise CheckpointError(
            f"{path}: post_processor wraps a text in {before} and {after}; at most one token on each side is supported."
        )
    return SpecialTokens(before[0] if before else None, after[0] if after else None)
