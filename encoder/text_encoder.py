"""Texts to embeddings in this process: tokenize, group by length, forward, pool at EOS, normalize. Knows no gRPC."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch

from encoder.checkpoint import load_model
from encoder.errors import CheckpointError, InvalidInput
from encoder.fingerprint import model_fingerprint
from encoder.interface import Encoded, EncoderInfo
from encoder.model import EncoderModel
from encoder.tokenizer import Tokenizer, check_characters

BATCH_SIZE_MAX = 1024
# Right of a row's end stands filler, never read into its embedding; rows of a batch differ by less than this share.
_LENGTH_STEP = 16
_BATCH_TOKENS_CPU = 2048
_BATCH_TOKENS_CUDA = 131072


class TextEncoder:
    """A model and its tokenizer on one device. Not safe for calls from several threads at once."""

    def __init__(self, model: EncoderModel, tokenizer: Tokenizer, fingerprint: str, dtype: torch.dtype) -> None:
        config = model.config
        eos_id = tokenizer.token_id(config.eos_token)
        if eos_id is None:
            raise CheckpointError(f"config.json: eos_token {config.eos_token!r} is not in the tokenizer's vocabulary.")
        if tokenizer.vocabulary_size > config.vocabulary_size:
            raise CheckpointError(
                f"tokenizer.json has {tokenizer.vocabulary_size} tokens; the model's vocabulary_size is "
                f"{config.vocabulary_size}: they belong to different models."
            )
        self.model = model
        self.tokenizer = tokenizer
        self.device = next(model.parameters()).device
        self._eos_id = eos_id
        self._dtype = dtype
        self._batch_tokens = _BATCH_TOKENS_CUDA if self.device.type == "cuda" else _BATCH_TOKENS_CPU
        self.info = EncoderInfo(
            model=config.name,
            fingerprint=fingerprint,
            dimension=config.embedding_dim,
            query_tokens_max=config.query_tokens_max,
            passage_tokens_max=config.passage_tokens_max,
            batch_size_max=BATCH_SIZE_MAX,
        )

    @classmethod
    def load(cls, folder: Path, *, device: str = "auto") -> TextEncoder:
        """Load a model folder onto ``auto`` (a GPU where torch sees one), ``cpu``, ``cuda``, ``cuda:1`` and so on.

        Matrix products run in bfloat16 where the device multiplies it natively, else in float32.
        """
        if device == "auto":
            device = "cuda" if torch.cuda.is_available() else "cpu"
        model = load_model(folder, device)
        return cls(model, Tokenizer.load(folder), model_fingerprint(folder), preferred_dtype(torch.device(device)))

    def encode_queries(self, queries: Sequence[str]) -> Encoded:
        """Embed queries; :class:`InvalidInput` where one is empty or over ``query_tokens_max``."""
        return self._encode("query", queries, self.model.config.query_prompt, self.info.query_tokens_max)

    def encode_passages(self, passages: Sequence[str]) -> Encoded:
        """Embed passages; :class:`InvalidInput` where one is empty or over ``passage_tokens_max``."""
        return self._encode("passage", passages, self.model.config.passage_prompt, self.info.passage_tokens_max)

    def _encode(self, role: str, texts: Sequence[str], prompt: str, tokens_max: int) -> Encoded:
        field = "queries" if role == "query" else "passages"
        if not 1 <= len(texts) <= BATCH_SIZE_MAX:
            raise InvalidInput(field, f"{field} holds {len(texts)} texts; 1 to {BATCH_SIZE_MAX} are allowed.")
        for number, text in enumerate(texts):
            check_characters(f"{field}[{number}]", text)
            if not text.strip():
                raise InvalidInput(f"{field}[{number}]", f"The {role} is empty or only white space.")
        started = time.perf_counter()
        rows = [[*ids, self._eos_id] for ids in self.tokenizer.encode_batch([prompt + text for text in texts])]
        tokenize_time_s = time.perf_counter() - started
        for number, row in enumerate(rows):
            if len(row) > tokens_max:
                raise InvalidInput(
                    f"{field}[{number}]", f"The {role} has {len(row)} tokens; the limit is {tokens_max}. Shorten it."
                )
        embeddings = np.empty((len(rows), self.info.dimension), dtype=np.float32)
        for group in group_by_length([len(row) for row in rows], self._batch_tokens):
            embeddings[group] = self._forward([rows[number] for number in group])
        return Encoded(embeddings, tuple(len(row) for row in rows), tokenize_time_s)

    @torch.inference_mode()
    def _forward(self, rows: list[list[int]]) -> np.ndarray:
        longest = max(map(len, rows))
        width = longest + -longest % _LENGTH_STEP
        tokens = torch.tensor([row + [self._eos_id] * (width - len(row)) for row in rows], device=self.device)
        ends = torch.tensor([len(row) - 1 for row in rows], device=self.device)
        result: np.ndarray = self.model(tokens, ends, self._dtype).cpu().numpy()
        return result


def group_by_length(lengths: Sequence[int], batch_tokens: int) -> Iterator[list[int]]:
    """Sort texts by length and cut them into batches of at most ``batch_tokens``, padding counted, or of one text."""
    group: list[int] = []
    for number in sorted(range(len(lengths)), key=lengths.__getitem__, reverse=True):
        width = lengths[group[0]] if group else lengths[number]
        too_short = lengths[number] + _LENGTH_STEP <= width * 3 // 4
        if group and (too_short or (len(group) + 1) * width > batch_tokens):
            yield group
            group = []
        group.append(number)
    if group:
        yield group


def preferred_dtype(device: torch.device) -> torch.dtype:
    """bfloat16 where the device multiplies it natively, else float32."""
    if device.type == "cuda":
        return torch.bfloat16 if torch.cuda.is_bf16_supported(including_emulation=False) else torch.float32
    capabilities = torch.cpu.get_capabilities()
    native = capabilities.get("avx512_bf16") or capabilities.get("amx_bf16")
    return torch.bfloat16 if native else torch.float32
