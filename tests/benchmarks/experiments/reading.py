"""The ways in which a model may read a long document, on many documents at once: a GPU reads rows side by side."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from encoder.evaluation.results import Chunks
from encoder.mixers import LayerState
from encoder.text_encoder import TextEncoder, preferred_dtype
from tests.benchmarks.experiments.quality import Embeddings, Ids, embed_passages


def can_read(encoder: TextEncoder, way: Chunks, tokens: int) -> bool:
    """Say whether a model can read documents of a length so."""
    config = encoder.model.config
    if not config.bidirectional or way is Chunks.ALONE:
        return True
    return way is Chunks.DOCUMENT and tokens < config.passage_tokens_max


def read_whole(encoder: TextEncoder, documents: Sequence[tuple[Ids, Ids]], way: Chunks) -> list[Embeddings]:
    """Embed documents, each ``ids (l,)`` and ``chunk_ends (n,)``, with one vector each or one a chunk."""
    if way is Chunks.DOCUMENT:
        documents = [(ids, np.array([len(ids)])) for ids, _ in documents]
        if encoder.model.config.bidirectional:
            return list(embed_passages(encoder, [ids.tolist() for ids, _ in documents])[:, None])
    order = sorted(range(len(documents)), key=lambda number: len(documents[number][0]))
    rows = max(1, encoder.path.pack_tokens // encoder.path.piece_tokens)
    found: dict[int, Embeddings] = {}
    for start in range(0, len(order), rows):
        numbers = order[start : start + rows]
        read = _read_side_by_side(encoder, [documents[number] for number in numbers])
        found.update(zip(numbers, read, strict=True))
    return [found[number] for number in range(len(documents))]


@torch.inference_mode()
def _read_side_by_side(encoder: TextEncoder, documents: Sequence[tuple[Ids, Ids]]) -> list[Embeddings]:
    """Read documents as rows, piece by piece; what stands right of a row's end is not seen by what is before it."""
    rows, ends = zip(*(_with_special_tokens(encoder, *document) for document in documents), strict=True)
    tokens = np.zeros((len(rows), max(map(len, rows))), np.int64)
    for row, ids in zip(tokens, rows, strict=True):
        row[: len(ids)] = ids
    places = np.stack([np.repeat(np.arange(len(ends)), [len(each) for each in ends]), np.concatenate(ends) - 1], axis=1)
    embeddings = np.empty((len(places), encoder.info.dimension), np.float32)
    states: list[LayerState | None] | None = None
    dtype = preferred_dtype(encoder.device)
    for start in range(0, tokens.shape[1], encoder.path.piece_tokens):
        stop = min(start + encoder.path.piece_tokens, tokens.shape[1])
        inside = (start <= places[:, 1]) & (places[:, 1] < stop)
        piece = torch.from_numpy(np.ascontiguousarray(tokens[:, start:stop])).to(encoder.device)
        here = torch.from_numpy(places[inside] - [0, start]).to(encoder.device)
        found, states = encoder.model.embed_places(piece, here, dtype, states)
        embeddings[inside] = found.cpu().numpy()
    return np.split(embeddings, np.cumsum([len(each) for each in ends])[:-1])


def _with_special_tokens(encoder: TextEncoder, ids: Ids, ends: Ids) -> tuple[Ids, Ids]:
    """Set what :class:`encoder.document_reader.DocumentReader` sets: a start, and an end after each chunk."""
    config, tokenizer = encoder.model.config, encoder.tokenizer
    if config.eos_token is not None:
        ids = np.insert(ids, ends, tokenizer.token_id(config.eos_token))
        ends = ends + np.arange(1, len(ends) + 1)
    bos = [] if config.bos_token is None else [tokenizer.token_id(config.bos_token)]
    start = [*bos, *tokenizer.encode(config.passage_prompt)]
    return np.concatenate([np.array(start, np.int64), ids]), ends + len(start)
