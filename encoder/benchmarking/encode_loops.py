"""Texts to embeddings as users have them made: our ``TextEncoder`` beside sentence-transformers' ``encode``.

Both read the same texts in the same process, in turn, tokenization included, in the same dtype. Ours caches the tokens
of words it has met, as it does in use; no text comes twice in a round. Of several batch sizes the fastest is taken of
sentence-transformers. Beside these figures stand bare passes of both models over token ids that are on the device.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any, NamedTuple

import torch

from encoder.benchmarking.contenders import read_rows
from encoder.benchmarking.measuring import Limits, Say
from encoder.benchmarking.models import ModelSource
from encoder.benchmarking.results import Texts
from encoder.benchmarking.texts import read_texts
from encoder.benchmarking.timing import failure, random_batch, seconds_of, times_until
from encoder.evaluation.sentence_transformers_encoder import load_sentence_transformer
from encoder.text_encoder import BATCH_SIZE_MAX, TextEncoder
from encoder.tokenizer import Tokenizer

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

BATCH_SIZES = (32, 256, 1024)
TOKENS = 250  # of a text at most; special tokens come on top
BARE_TOKENS = 256
_ROUNDS = 3


class _Loop(NamedTuple):
    """One way to encode all texts."""

    about: Texts
    encode: Callable[[Sequence[str]], object]
    bare: Callable[[], object]


def measure_texts(
    source: ModelSource,
    folder: Path | None,
    device: torch.device,
    dtype: torch.dtype,
    *,
    count: int,
    batch_tokens: int,
    limits: Limits,
    say: Say,
) -> Iterator[Texts]:
    """Encode ``count`` texts of about 250 tokens with a model of ours and with that of a sentence-transformers folder.

    Errors as :func:`~encoder.evaluation.sentence_transformers_encoder.load_sentence_transformer`.
    """
    other = None if folder is None else load_sentence_transformer(folder, str(device)).to(dtype)
    tokenizer = source.tokenizer if folder is None else Tokenizer.load(folder)
    texts = read_texts(tokenizer, count, TOKENS)
    tokens = sum(map(len, tokenizer.encode_batch(texts)))
    rows = max(1, batch_tokens // BARE_TOKENS)
    loops = [_ours(source, device, dtype, rows)]
    if folder is None or other is None:
        yield Texts(ours=False, model="sentence-transformers", skipped="no folder was given (--sentence-transformers)")
    else:
        loops += _theirs(other, folder.resolve().name, device, rows)
    times: list[list[float]] = [[] for _ in loops]
    for number in range(_ROUNDS + 1):
        for loop, taken in zip(loops, times, strict=True):
            part = texts if number else texts[:BATCH_SIZE_MAX]  # the first round warms up
            seconds = seconds_of(lambda loop=loop, part=part: loop.encode(part), device)  # type: ignore[misc]
            say(f"{loop.about.model}, batches of {loop.about.batch_size}: {len(part) / seconds:,.0f} texts/s")
            if number:
                taken.append(seconds)
    for loop, taken in zip(loops, times, strict=True):
        found = {
            "texts": len(texts),
            "tokens": tokens,
            "texts_per_s": len(texts) / median(taken),
            "tokens_per_s": tokens / median(taken),
            "bare_tokens_per_s": _bare_speed(loop, rows * BARE_TOKENS, device, limits, say),
        }
        yield loop.about.model_copy(update=found)


def _bare_speed(loop: _Loop, tokens: int, device: torch.device, limits: Limits, say: Say) -> float | None:
    try:
        times = times_until(loop.bare, device, rounds=limits.rounds, seconds=limits.seconds)
    except Exception as error:  # noqa: BLE001 - one figure less; the others stand
        say(f"{loop.about.model}, bare: {failure(error)}")
        return None
    return tokens / median(times)


def _ours(source: ModelSource, device: torch.device, dtype: torch.dtype, rows: int) -> _Loop:
    on_cpu = device.type == "cpu"
    encoder = TextEncoder(
        source.build(device, dtype),
        source.tokenizer,
        source.fingerprint,
        dtype,
        half_weights=on_cpu and dtype == torch.float32,
        eight_bits=on_cpu,
    )
    batch = random_batch(rows, BARE_TOKENS, source.config.vocabulary_size, device)

    def encode(texts: Sequence[str]) -> None:
        for start in range(0, len(texts), BATCH_SIZE_MAX):
            encoder.encode_passages(texts[start : start + BATCH_SIZE_MAX])

    about = Texts(ours=True, model=f"{source.config.name}, {encoder.path.name}", batch_size=BATCH_SIZE_MAX)
    return _Loop(about, encode, lambda: read_rows(encoder, dtype, batch))


def _theirs(model: SentenceTransformer, name: str, device: torch.device, rows: int) -> Iterator[_Loop]:
    batch = random_batch(rows, BARE_TOKENS, len(model.tokenizer), device)
    transformer: Any = model[0].auto_model

    @torch.inference_mode()
    def bare() -> object:
        return transformer(input_ids=batch.tokens)

    for batch_size in BATCH_SIZES:

        def encode(texts: Sequence[str], batch_size: int = batch_size) -> object:
            return model.encode(list(texts), batch_size=batch_size, normalize_embeddings=True, show_progress_bar=False)

        yield _Loop(Texts(ours=False, model=name, batch_size=batch_size), encode, bare)
