"""Gradients of batches larger than memory: Gao et al. 2021 (arXiv 2101.06983), and long documents read in pieces.

In-batch losses need the embeddings of all texts at once, but not their activations: embed everything without gradients,
take the loss's gradient with respect to the embeddings, then read slice by slice again and pass that on. The model has
no dropout, so that both readings agree, and the result is the gradient of the whole batch.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from encoder.mixers import LayerState
from encoder.model import EncoderModel
from encoder.training.objectives import Losses

Role = Literal["query", "passage"]
LossOf = Callable[[Sequence[Tensor]], Losses]
States = Sequence[LayerState | None]


class Piece(NamedTuple):
    """Rows that are read at once, and where embeddings are taken."""

    tokens: Tensor  # (b, l)
    ends: Tensor  # (b,) last token of each row's text; or (n, 2) row and position of each chunk's


@dataclass(frozen=True, slots=True)
class Reading:
    """What one of the encoders is to read; its embeddings stand in the order of the pieces."""

    role: Role
    pieces: tuple[Piece, ...]
    carried: bool = False  # each piece goes on where the rows of the one before stopped


def read_rows(role: Role, tokens: Tensor, ends: Tensor, slice_tokens: int | None) -> Reading:
    """Make a reading of texts ``tokens (b, l)``, in slices of whole rows where there are more than ``slice_tokens``."""
    rows = len(tokens) if slice_tokens is None else max(1, slice_tokens // tokens.shape[1])
    return Reading(role, tuple(Piece(*piece) for piece in zip(tokens.split(rows), ends.split(rows), strict=True)))


def learn(
    encoders: Mapping[Role, EncoderModel], readings: Sequence[Reading], losses_of: LossOf, dtype: torch.dtype
) -> Losses:
    """Add the gradient of a batch's losses to the encoders' parameters, and return the losses.

    ``losses_of`` takes one tensor ``(n, d)`` a reading. Gradients do not pass from a piece into the states it read on
    from.
    """
    if all(len(reading.pieces) == 1 for reading in readings):
        embeddings = [embed_piece(encoders[reading.role], reading.pieces[0], dtype, None)[0] for reading in readings]
        losses = losses_of(embeddings)
        _backward(losses)
        return losses
    with torch.no_grad():
        found = [_embed(encoders[reading.role], reading, dtype) for reading in readings]
    leaves = [torch.cat(parts).requires_grad_() for parts, _ in found]
    losses = losses_of(leaves)
    _backward(losses)
    for reading, leaf, (parts, states) in zip(readings, leaves, found, strict=True):
        if leaf.grad is None:
            continue  # no loss asked for these
        gradients = leaf.grad.split([len(part) for part in parts])
        for piece, gradient, before in zip(reading.pieces, gradients, states, strict=True):
            if len(gradient):  # a piece in which no chunk ends has none
                again, _ = embed_piece(encoders[reading.role], piece, dtype, before)
                again.backward(gradient)
    return losses


def embed_piece(
    encoder: EncoderModel, piece: Piece, dtype: torch.dtype, states: States | None
) -> tuple[Tensor, States | None]:
    """Embed one piece, ``(n, d)``; with states where its rows are chunks of documents."""
    if not len(piece.tokens):
        return torch.empty(0, encoder.config.embedding_dim, device=piece.tokens.device), None
    if piece.ends.dim() == 1:
        return encoder(piece.tokens, piece.ends, dtype), None
    return encoder.embed_places(piece.tokens, piece.ends, dtype, states)


def _embed(encoder: EncoderModel, reading: Reading, dtype: torch.dtype) -> tuple[list[Tensor], list[States | None]]:
    """Embed all pieces; also give the states that each was read on from."""
    parts: list[Tensor] = []
    befores: list[States | None] = []
    states: States | None = None
    for piece in reading.pieces:
        befores.append(states)
        part, after = embed_piece(encoder, piece, dtype, states)
        parts.append(part)
        states = after if reading.carried else None
    return parts, befores


def _backward(losses: Losses) -> None:
    if losses:  # documents that nothing is asked about may have none
        torch.stack(list(losses.values())).sum().backward()
