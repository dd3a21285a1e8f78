"""A sentence-transformers model as an :class:`encoder.interface.Encoder`, to measure others as we measure ourselves."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch

from encoder.document_slices import TokenIds
from encoder.errors import CheckpointError, InvalidInput, MambaSearchError
from encoder.interface import Encoded, EncodedDocument, EncoderInfo
from encoder.layouts.sentence_transformers import MODULES_FILE
from encoder.model_config import file_digest

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

BATCH_SIZE_MAX = 1024
_SIDE_BY_SIDE = {"cpu": 32, "cuda": 256}  # texts in one forward pass
_NO_LIMIT = 1 << 20
_FIRST_AFTER_PADDING = ("roberta", "mpnet", "camembert")  # these count positions from behind the padding's id


class SentenceTransformersEncoder:
    """Reads texts of any length that the model has positions for, also where its settings would cut them earlier."""

    def __init__(self, model: SentenceTransformer, name: str, fingerprint: str) -> None:
        tokens_max = _positions(model) or model.max_seq_length or _NO_LIMIT
        model.max_seq_length = tokens_max
        self._model = model
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="sentence-transformers")
        dimension = model.get_embedding_dimension()
        if not dimension:
            raise CheckpointError(f"Model {name} does not say how long its embeddings are.")
        self._info = EncoderInfo(
            model=name,
            fingerprint=fingerprint,
            dimension=dimension,
            query_tokens_max=tokens_max,
            passage_tokens_max=tokens_max,
            batch_size_max=BATCH_SIZE_MAX,
        )

    @classmethod
    def load(cls, folder: Path, *, device: str = "auto", threads: int | None = None) -> SentenceTransformersEncoder:
        """Load a folder that sentence-transformers wrote; :class:`CheckpointError` where it is none.

        :class:`MambaSearchError` where the package is missing.
        """
        if threads:
            torch.set_num_threads(threads)
        model = load_sentence_transformer(folder, device)
        digest = hashlib.sha256()
        for path in sorted(path for path in folder.rglob("*") if path.suffix in (".json", ".safetensors", ".bin")):
            digest.update(path.relative_to(folder).as_posix().encode() + bytes.fromhex(file_digest(path)))
        return cls(model, folder.resolve().name, digest.hexdigest()[:16])

    @property
    def parameters(self) -> int:
        """How many the model has."""
        return sum(parameter.numel() for parameter in self._model.parameters())

    async def info(self) -> EncoderInfo:
        """Say which model encodes, and its limits."""
        return self._info

    async def encode_queries(self, queries: Sequence[str]) -> Encoded:
        """Encode search queries, with the model's prompt for them where it has one."""
        return await self._run("queries", "query", queries)

    async def encode_passages(self, passages: Sequence[str]) -> Encoded:
        """Encode passages, with the model's prompt for documents where it has one."""
        return await self._run("passages", "passage", passages)

    async def encode_tokenized_passages(self, passages: Sequence[TokenIds]) -> Encoded:
        """Refuse: this library reads texts."""
        raise _texts_only(self._info.model, len(passages))

    async def encode_document(
        self,
        token_ids: TokenIds,  # noqa: ARG002
        chunk_ends: TokenIds,
        *,
        state: bytes | None = None,  # noqa: ARG002
        keep_state: bool = False,  # noqa: ARG002
    ) -> EncodedDocument:
        """Refuse: a transformer does not read on from a state."""
        raise _texts_only(self._info.model, len(chunk_ends))

    async def close(self) -> None:
        """Wait for the work under way."""
        await asyncio.to_thread(self._thread.shutdown)

    async def _run(self, field: str, role: str, texts: Sequence[str]) -> Encoded:
        return await asyncio.wrap_future(self._thread.submit(self._encode, field, role, texts))

    def _encode(self, field: str, role: str, texts: Sequence[str]) -> Encoded:
        if not 1 <= len(texts) <= BATCH_SIZE_MAX:
            raise InvalidInput(field, f"{field} holds {len(texts)} texts; 1 to {BATCH_SIZE_MAX} are allowed.")
        encode = self._model.encode_query if role == "query" else self._model.encode_document
        rows = self._model.tokenizer(list(texts), truncation=False, padding=False, verbose=False)["input_ids"]
        limit = self._info.passage_tokens_max
        for number, (text, row) in enumerate(zip(texts, rows, strict=True)):
            if not text.strip():
                raise InvalidInput(f"{field}[{number}]", f"The {role} is empty or only white space.")
            if len(row) > limit:
                raise InvalidInput(
                    f"{field}[{number}]", f"The {role} has {len(row)} tokens; {self._info.model} reads {limit}."
                )
        embeddings = encode(
            list(texts),
            batch_size=_SIDE_BY_SIDE.get(self._model.device.type, 32),
            normalize_embeddings=True,
            convert_to_numpy=True,
            show_progress_bar=False,
        )
        return Encoded(np.asarray(embeddings, np.float32), tuple(map(len, rows)))


def load_sentence_transformer(folder: Path, device: str = "auto") -> SentenceTransformer:
    """Load a folder as it is; errors as for :meth:`SentenceTransformersEncoder.load`."""
    try:
        from sentence_transformers import SentenceTransformer
    except ModuleNotFoundError as error:
        message = f"The package {error.name} is missing; install sentence-transformers to measure its models."
        raise MambaSearchError(message) from error
    if not (folder / MODULES_FILE).is_file():
        raise CheckpointError(f"{folder} has no {MODULES_FILE}; give a folder that sentence-transformers wrote.")
    chosen = ("cuda" if torch.cuda.is_available() else "cpu") if device == "auto" else device
    try:
        return SentenceTransformer(str(folder), device=chosen, local_files_only=True)
    except (OSError, ValueError, KeyError) as error:
        raise CheckpointError(f"{folder} cannot be loaded by sentence-transformers: {error}") from error


def _positions(model: SentenceTransformer) -> int | None:
    """Count the tokens that the transformer has positions for; None where it does not say."""
    config = getattr(getattr(model[0], "auto_model", None), "config", None)
    positions: int | None = getattr(config, "max_position_embeddings", None)
    if config and positions and any(kind in config.model_type for kind in _FIRST_AFTER_PADDING):
        positions -= config.pad_token_id + 1
    return positions


def _texts_only(model: str, count: int) -> InvalidInput:
    return InvalidInput("chunks", f"{model} reads texts, not token ids ({count} given); evaluate it with chunks alone.")
