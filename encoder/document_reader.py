"""A document of any length in one pass, piece by piece with the model's state carried on: memory does not grow.

After each chunk stands an end-of-sequence token, whose hidden state is the chunk's embedding; the next chunk is read on
from there, so that every embedding knows all that came before it. Knows no text and no gRPC.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from encoder.cores import Cores
from encoder.document_slices import find_wrong_end, integers
from encoder.document_state import pack_state, unpack_state
from encoder.errors import InvalidInput
from encoder.mixers import LayerState
from encoder.model import EncoderModel
from encoder.packing import to_device


@dataclass(frozen=True, slots=True)
class ReadingRules:
    """How a model reads documents."""

    start_ids: tuple[int, ...]  # before a document's first token: begin-of-sequence token, passage prompt
    end_id: int | None  # after each chunk
    dtype: torch.dtype  # of the matrix products
    piece_tokens: int  # read by one call of the backbone
    fingerprint: str  # of the model, for states


class _Piece(NamedTuple):
    """Some of a document's tokens, and how far the layers have come with them."""

    token_ids: NDArray[np.int64]  # (l,)
    chunk_ends: NDArray[np.int64]  # (n,), places in the piece
    residual: Tensor | None = None  # (1, l, d)


class DocumentReader:
    """One document under way. Fulfils :class:`encoder.interface.DocumentReading`, but for being synchronous."""

    def __init__(
        self,
        model: EncoderModel,
        rules: ReadingRules,
        cores: Cores,
        *,
        state: bytes | None = None,
        keep_state: bool = False,
    ) -> None:
        """Begin a document, or continue one from the ``state`` that :meth:`finish` gave; errors as in ``interface``."""
        if model.config.bidirectional:
            raise InvalidInput(
                "document", f"{model.config.name} is bidirectional and cannot read a document in pieces."
            )
        self._model = model
        self._rules = rules
        self._device = model.backbone.embedding.weight.device
        self._states = unpack_state(state, rules.fingerprint, model.config, self._device)
        self._fresh = self._states[0] is None
        self._cores = cores
        self._keep_state = keep_state
        self._takes_mean = model.config.pooling == "mean"
        self._before_last_chunk: list[LayerState | None] = []
        self._chunk_sum = torch.zeros(model.config.d_model, device=self._device)  # for mean pooling: of the open chunk
        self._chunk_tokens = 0
        self.token_count = 0

    def read(
        self, token_ids: Sequence[int] | NDArray[np.integer], chunk_ends: Sequence[int] | NDArray[np.integer]
    ) -> NDArray[np.float32]:
        """Read on, as :meth:`encoder.interface.DocumentReading.read` says; ends must rise and lie in the stretch."""
        tokens, ends = self._with_special_tokens(integers("token_ids", token_ids), integers("chunk_ends", chunk_ends))
        if not self._keep_state:
            return self._read_pieces(tokens, ends)
        # The state is wanted before the last chunk, and this stretch may hold it: cut where its last chunk starts.
        starts = ends[:-1] if len(ends) and ends[-1] == len(tokens) else ends
        cut = int(starts[-1]) if len(starts) else 0
        first = self._read_pieces(tokens[:cut], ends[ends <= cut])
        if self._chunk_tokens == 0 and cut < len(tokens):
            self._before_last_chunk = list(self._states)
        return np.concatenate([first, self._read_pieces(tokens[cut:], ends[ends > cut] - cut)])

    def finish(self) -> bytes | None:
        """End the document; gives the state before its last chunk where it was to be kept."""
        if self._chunk_tokens or not self.token_count:
            raise InvalidInput("chunk_ends", "The document does not end where its last chunk ends; give that end, too.")
        return pack_state(self._before_last_chunk, self._rules.fingerprint) if self._keep_state else None

    def _with_special_tokens(
        self, token_ids: NDArray[np.int64], ends: NDArray[np.int64]
    ) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        check_ids("token_ids", token_ids, self._model.config.vocabulary_size)
        _check_ends(ends, token_ids.size)
        if self._rules.end_id is not None:
            token_ids = np.insert(token_ids, ends, self._rules.end_id)
            ends = ends + np.arange(1, len(ends) + 1)
        if self.token_count == 0 and self._fresh:
            token_ids = np.concatenate([np.array(self._rules.start_ids, np.int64), token_ids])
            ends = ends + len(self._rules.start_ids)
        return token_ids, ends

    def _read_pieces(self, tokens: NDArray[np.int64], ends: NDArray[np.int64]) -> NDArray[np.float32]:
        size, layers, stages = self._rules.piece_tokens, self._model.config.n_layers, self._cores.count
        starts = range(0, len(tokens), size)
        inside = np.split(ends, np.searchsorted(ends, starts[1:], side="right"))  # the ends of each piece
        pieces = [
            _Piece(tokens[start : start + size], found - start) for start, found in zip(starts, inside, strict=False)
        ]
        bounds = [layers * stage // stages for stage in range(stages + 1)]
        parts = [partial(self._read_layers, range(*pair)) for pair in pairwise(bounds)]
        # Made at once: small tensors, left standing one by one, would keep the memory between them from being reused.
        embeddings = torch.empty(len(ends), self._model.config.embedding_dim, device=self._device)
        filled = 0
        for part in self._cores.run_stages(pieces, parts):
            embeddings[filled : filled + len(part)] = part
            filled += len(part)
        self.token_count += len(tokens)
        result: NDArray[np.float32] = embeddings.cpu().numpy()  # a GPU is waited for here alone
        return result

    @torch.inference_mode()
    def _read_layers(self, layers: range, piece: _Piece) -> _Piece | Tensor:
        """Let some of the layers read a piece; after the last ones give the embeddings ``(n, d)`` of its chunks."""
        backbone, n_layers, dtype = self._model.backbone, self._model.config.n_layers, self._rules.dtype
        # Where the mean of a chunk's hidden states is wanted, all are.
        places = None if self._takes_mean else to_device(torch.from_numpy(piece.chunk_ends - 1), self._device)
        if len(layers) == n_layers:
            hidden = backbone.hidden_on(self._on_device(piece), self._states, dtype, places)
        else:
            residual = backbone.enter(self._on_device(piece)) if piece.residual is None else piece.residual
            residual = backbone.read_layers(layers, residual, dtype, self._states)
            if layers.stop < n_layers:
                return _Piece(piece.token_ids, piece.chunk_ends, residual)
            hidden = backbone.norm_f(residual[0] if places is None else residual[0, places])
        return self._model.finish(self._pool(hidden, len(piece.token_ids), piece.chunk_ends.tolist()))

    def _on_device(self, piece: _Piece) -> Tensor:
        return to_device(torch.from_numpy(piece.token_ids)[None], self._device)

    def _pool(self, hidden: Tensor, length: int, ends: list[int]) -> Tensor:
        """Pool the chunks that end in a piece of ``length`` tokens: ``(n, d)``; remember the one that does not.

        ``hidden`` are the states at the ends, ``(n, d)``, or for mean pooling all, ``(l, d)``.
        """
        bounds = [0, *ends]
        tokens_before = self._chunk_tokens
        self._chunk_tokens = length - bounds[-1] + (0 if ends else tokens_before)
        if not self._takes_mean:
            return hidden
        sums = [hidden[start:end].sum(0) for start, end in pairwise([*bounds, length])]
        sums[0] = sums[0] + self._chunk_sum
        self._chunk_sum = sums.pop()
        counts = [end - start for start, end in pairwise([-tokens_before, *ends])]
        return torch.stack(sums) / to_device(torch.tensor(counts), self._device)[:, None] if sums else hidden[:0]


def _check_ends(ends: NDArray[np.int64], length: int) -> None:
    wrong = find_wrong_end(ends, length)
    if wrong is not None:
        place, floor = wrong
        name = f"chunk_ends[{place}]"
        raise InvalidInput(
            name, f"{name} is {ends[place]}; it must be above {floor} and at most {length}, the tokens given."
        )


def check_ids(field: str, token_ids: NDArray[np.int64], vocabulary_size: int) -> None:
    """Refuse ids that the model has no embedding for; :class:`InvalidInput` names the first by its place."""
    wrong = np.flatnonzero((token_ids < 0) | (token_ids >= vocabulary_size))
    if wrong.size:
        name = f"{field}[{wrong[0]}]"
        raise InvalidInput(
            name, f"{name} is {token_ids[wrong[0]]}; the model's vocabulary has the ids 0 to {vocabulary_size - 1}."
        )
