"""Whether fast paths compute what plain torch does: cosines with its embeddings in float32 of random texts."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from encoder.benchmarking.contenders import Contender, read_rows
from encoder.benchmarking.models import ModelSource
from encoder.benchmarking.results import Agreement
from encoder.benchmarking.timing import failure, random_batch
from encoder.text_encoder import TextEncoder

_TOKENS = 8192  # of the texts of one length, unless one has more
_TEXTS_MAX = 16


def check(
    contenders: Sequence[Contender], source: ModelSource, device: torch.device, lengths: Sequence[int]
) -> Iterator[Agreement]:
    """Compare at each length; the reference has its weights in float32, unrounded."""
    dtype = torch.float32
    reference = TextEncoder(source.build(device, dtype), source.tokenizer, source.fingerprint, dtype, kernels="torch")
    for length in lengths:
        texts = min(_TEXTS_MAX, max(2, _TOKENS // length))
        batch = random_batch(texts, length, source.config.vocabulary_size, device)
        expected = read_rows(reference, dtype, batch).cpu()
        between = _between(expected)
        for contender in contenders:
            assert contender.read is not None
            row = Agreement(
                system=contender.system, length=length, texts=texts, cosine_min=None, cosine_between=between
            )
            try:
                found = contender.read(batch).float().cpu()
            except Exception as error:  # noqa: BLE001 - a path that fails is told of, and the others are compared
                yield row.model_copy(update={"failed": failure(error)})
                continue
            cosines = torch.nn.functional.cosine_similarity(found, expected, dim=-1)
            # What is not a number agrees with nothing.
            yield row.model_copy(update={"cosine_min": float(cosines.nan_to_num(-1.0).min())})


def _between(embeddings: Tensor) -> float:
    """Give the cosine of the two texts that are most alike."""
    cosines = embeddings @ embeddings.T
    return float(cosines.fill_diagonal_(-1.0).max())
