"""Our encoder as mteb's: ``mteb.evaluate(MtebModel.load(folder), tasks)``.

Fulfils ``mteb.models.EncoderProtocol`` (mteb 2: batches of a data loader in, an array out). Queries are read as queries
and everything else as passages, each with its prompt of ``config.json``; prompts that a task suggests are not used.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from mteb.models import ModelMeta
from mteb.models.model_meta import ScoringFunction
from mteb.similarity_functions import cos_sim, pairwise_cos_sim
from mteb.types import PromptType
from numpy.typing import NDArray

from encoder.text_encoder import BATCH_SIZE_MAX, TextEncoder

if TYPE_CHECKING:
    from mteb.abstasks.task_metadata import TaskMetadata

logger = logging.getLogger(__name__)

_ORGANISATION = "mamba-search"  # mteb asks for a name with one


class MtebModel:
    """A :class:`TextEncoder` behind mteb's interface."""

    def __init__(
        self,
        model_name: str,
        revision: str | None = None,
        *,
        device: str | None = None,
        encoder: TextEncoder | None = None,
        **_: Any,  # noqa: ANN401 - the protocol's: what mteb hands to every model
    ) -> None:
        """Load the model folder ``model_name``, as mteb's own command does; or take over an ``encoder``."""
        self._encoder = encoder or TextEncoder.load(Path(model_name), device=device or "auto")
        info, config = self._encoder.info, self._encoder.model.config
        parameters = sum(parameter.numel() for parameter in self._encoder.model.parameters())
        self._meta = ModelMeta(
            loader=None,
            name=f"{_ORGANISATION}/{info.model}",
            revision=revision or info.fingerprint,
            release_date=None,
            languages=None,
            n_parameters=parameters,
            memory_usage_mb=None,
            max_tokens=None,  # passages of any length are read
            embed_dim=info.dimension,
            license=None,
            open_weights=True,
            public_training_code=None,
            public_training_data=None,
            framework=["PyTorch"],
            similarity_fn_name=ScoringFunction.COSINE,
            use_instructions=bool(config.query_prompt or config.passage_prompt),
            training_datasets=None,
        )

    @classmethod
    def load(cls, folder: Path, *, device: str = "auto") -> MtebModel:
        """Load a model folder; errors as :meth:`TextEncoder.load`."""
        return cls(str(folder), encoder=TextEncoder.load(folder, device=device))

    @property
    def mteb_model_meta(self) -> ModelMeta:
        """What mteb notes about a model."""
        return self._meta

    def encode(
        self,
        inputs: Iterable[Mapping[str, Any]],
        *,
        task_metadata: TaskMetadata,  # noqa: ARG002 - the protocol's
        hf_split: str,  # noqa: ARG002
        hf_subset: str,  # noqa: ARG002
        prompt_type: PromptType | None = None,
        **_: Any,  # noqa: ANN401
    ) -> NDArray[np.float32]:
        """Embed the texts of a data loader: ``(n, d)`` float32 in their order.

        A text without words has no direction, and gets zeros. Texts over the limit are read as documents of one chunk,
        in pieces; a query over its limit is cut there, and a warning counts how many were.
        """
        texts = [text for batch in inputs for text in batch["text"]]
        is_query = prompt_type == PromptType.query
        # Neighbours in length share packs, and a call takes so many texts.
        order = sorted((place for place, text in enumerate(texts) if text.strip()), key=lambda place: len(texts[place]))
        embeddings = np.zeros((len(texts), self._encoder.info.dimension), np.float32)
        for start in range(0, len(order), BATCH_SIZE_MAX):
            places = order[start : start + BATCH_SIZE_MAX]
            batch = [texts[place] for place in places]
            embeddings[places] = self._encode_queries(batch) if is_query else self._encode_passages(batch)
        return embeddings

    def similarity(self, embeddings1: Any, embeddings2: Any) -> torch.Tensor:  # noqa: ANN401 - arrays or tensors
        """Cosines of all pairs: ``(n, m)``."""
        return torch.as_tensor(cos_sim(embeddings1, embeddings2))

    def similarity_pairwise(self, embeddings1: Any, embeddings2: Any) -> torch.Tensor:  # noqa: ANN401
        """Cosines of pairs in order: ``(n,)``."""
        return torch.as_tensor(pairwise_cos_sim(embeddings1, embeddings2))

    def _encode_queries(self, queries: Sequence[str]) -> NDArray[np.float32]:
        tokenizer, prompt = self._encoder.tokenizer, self._encoder.model.config.query_prompt
        room = self._encoder.info.query_tokens_max - len(tokenizer.encode(prompt)) - 2  # first and last token
        shortened = []
        for query in queries:
            ends = tokenizer.encode_with_offsets(query).offsets[:, 1]
            shortened.append(query if len(ends) <= room else query[: int(ends[room - 1])])
        cut = sum(short != query for short, query in zip(shortened, queries, strict=True))
        if cut:
            logger.warning("%d queries had over %d tokens and were cut.", cut, room)
        return self._encoder.encode_queries(shortened).embeddings

    def _encode_passages(self, passages: Sequence[str]) -> NDArray[np.float32]:
        config, tokenizer = self._encoder.model.config, self._encoder.tokenizer
        room = config.passage_tokens_max - len(tokenizer.encode(config.passage_prompt)) - 2
        rows = tokenizer.encode_batch(passages)
        embeddings = np.zeros((len(rows), self._encoder.info.dimension), np.float32)
        short = [place for place, row in enumerate(rows) if 0 < len(row) <= room]
        if short:
            embeddings[short] = self._encoder.encode_passages([passages[place] for place in short]).embeddings
        for place, row in enumerate(rows):
            if len(row) > room:
                embeddings[place] = self._encoder.open_document().read(row, [len(row)])[0]
        return embeddings
