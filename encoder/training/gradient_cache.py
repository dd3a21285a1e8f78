"""Gradients of batches larger than memory: Gao et al. 2021 (arXiv 2101.06983), and long documents read in pieces.

In-batch losses need the embeddings of all texts at once, but not their activations: embed everything without gradients,
take the loss's gradient with respect to the embeddings, then read slice by slice again and pass that on. The model has
no dropout, so that both readings agree, and the result is the gradient of the whole batch.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from encoder.mixers import LayerState
from encoder.model import EncoderModel
from encoder.packing import Packing
from encoder.training.objectives import Losses
from encoder.training.rows import TextRows

Role = Literal["query", "passage"]
LossOf = Callable[[Sequence[Tensor]], Losses]
States = Sequence[LayerState | None]


@dataclass(frozen=True, slots=True)
class Reading:
    """What one of the encoders is to read; its embeddings stand in the order of the pieces."""

    role: Role
    pieces: tuple[TextRows, ...]  # each read at once
    carried: bool = False  # each piece goes on where the rows of the one before stopped


def in_slices(role: Role, texts: TextRows, slice_tokens: int | None) -> Reading:
    """Make a reading of texts, in slices of whole rows where there are more than ``slice_tokens``."""
    tokens, ends, sequences = texts
    if slice_tokens is None:
        return Reading(role, (texts,))
    rows = max(1, slice_tokens // tokens.shape[1])
    if sequences is None:
        pieces = zip(tokens.split(rows), ends.split(rows), strict=True)
        return Reading(role, tuple(TextRows(*piece) for piece in pieces))
    packed = []
    for first in range(0, len(tokens), rows):
        inside = (ends[:, 0] >= first) & (ends[:, 0] < first + rows)
        shift = torch.tensor([first, 0], device=ends.device)
        packed.append(TextRows(tokens[first : first + rows], ends[inside] - shift, sequences[first : first + rows]))
    return Reading(role, tuple(packed))


def learn(
    encoders: Mapping[Role, EncoderModel], readings: Sequence[Reading], losses_of: LossOf, dtype: torch.dtype
) -> Losses:
    """Add the gradient of a batch's losses to the encoders' parameters, and return the losses.

    ``losses_of`` takes one tensor ``(n, d)`` a reading. Gradients do not pass from a piece into the states it read on
    from.
    """
    if all(len(reading.pieces) == 1 for reading in readings):
        losses = losses_of(_embed_at_once(encoders, readings, dtype))
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
    encoder: EncoderModel, piece: TextRows, dtype: torch.dtype, states: States | None
) -> tuple[Tensor, States | None]:
    """Embed one piece, ``(n, d)``; with states where its rows are chunks of documents."""
    if not len(piece.tokens):
        return torch.empty(0, encoder.config.embedding_dim, device=piece.tokens.device), None
    if piece.ends.dim() == 1:
        return encoder(piece.tokens, piece.ends, dtype), None
    packing = None if piece.sequences is None else Packing.of_sequences(piece.sequences)
    return encoder.embed_places(piece.tokens, piece.ends, dtype, states, packing)


def _embed_at_once(
    encoders: Mapping[Role, EncoderModel], readings: Sequence[Reading], dtype: torch.dtype
) -> list[Tensor]:
    """Embed readings of one piece each; packed ones for the same encoder stand in one batch."""
    pieces = [reading.pieces[0] for reading in readings]
    shared = len({id(encoders[reading.role]) for reading in readings}) == 1
    marks = [piece.sequences for piece in pieces if piece.sequences is not None]
    alike = len(marks) == len(pieces) and len({piece.tokens.shape[1] for piece in pieces}) == 1
    if len(pieces) == 1 or not shared or not alike:
        return [
            embed_piece(encoders[reading.role], piece, dtype, None)[0]
            for reading, piece in zip(readings, pieces, strict=True)
        ]
    ends, rows = [], 0
    for piece in pieces:
        ends.append(piece.ends + torch.tensor([rows, 0], device=piece.ends.device))
        rows += len(piece.tokens)
    together = TextRows(torch.cat([piece.tokens for piece in pieces]), torch.cat(ends), torch.cat(marks))
    embeddings, _ = embed_piece(encoders[readings[0].role], together, dtype, None)
    return list(embeddings.split([len(piece.ends) for piece in pieces]))


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
