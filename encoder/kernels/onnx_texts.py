"""Embeds short texts on a CPU through onnxruntime: one call for all layers, where torch takes 50 calls a layer.

For a query, of a dozen tokens, those calls take longer than what they compute. onnxruntime runs the graph of
``encoder/kernels/onnx_graph.py`` in the thread that asks for it, without the interpreter's lock.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from encoder.kernels.onnx_graph import CAUSAL, EMBEDDINGS, ENDS, RESIDUAL, NotCovered, build_graph
from encoder.model import EncoderModel
from encoder.model_config import ModelConfig
from encoder.packing import SHORT_TOKENS_MAX, rows_of_like_length

_ERRORS_ONLY = 3

logger = logging.getLogger(__name__)


class OnnxTexts:
    """Embeds texts of at most :data:`SHORT_TOKENS_MAX` tokens. Safe for calls from several threads at once."""

    def __init__(self, model: EncoderModel, graph: bytes) -> None:
        """Take :func:`build_graph`'s result; raise whatever onnxruntime raises where it does not know an operator."""
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1  # the caller's: onnxruntime starts none
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        options.enable_mem_pattern = False  # it keeps one for each shape, of which there are thousands
        options.log_severity_level = _ERRORS_ONLY
        self._session: Any = onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
        self._embedding = model.backbone.embedding.weight
        self._dimension = model.config.embedding_dim

    @classmethod
    def of(cls, model: EncoderModel) -> OnnxTexts | None:
        """Open a model on the CPU that no path is prepared for yet. None where torch has to do; the log says why."""
        try:
            check_covered(model.config)
            texts = cls(model, build_graph(model))
        except NotCovered as error:
            reason = str(error)
        except ImportError as error:
            reason = f"{error.name} is not installed"
        except Exception as error:  # noqa: BLE001 - onnxruntime's have no base class but this
            reason = f"onnxruntime refuses the graph: {error}"
        else:
            logger.info("%s reads short texts through onnxruntime", model.config.name)
            return texts
        logger.info("%s reads short texts through torch (%s)", model.config.name, reason)
        return None

    @staticmethod
    def takes(lengths: Sequence[int]) -> bool:
        """Say whether texts of these lengths are all short."""
        return max(lengths) <= SHORT_TOKENS_MAX

    def embed(self, rows: Sequence[Tensor]) -> Tensor:
        """Embed rows of token ids ``(l,)``, which :meth:`takes` accepts: ``(n, d)`` float32, each row of length 1."""
        if len(rows) == 1:
            return self._embed_alike(rows)
        embeddings = torch.empty(len(rows), self._dimension)
        for numbers in rows_of_like_length([len(row) for row in rows]):
            embeddings[numbers] = self._embed_alike([rows[number] for number in numbers])
        return embeddings

    def _embed_alike(self, rows: Sequence[Tensor]) -> Tensor:
        """Embed rows side by side, all as wide as the longest: a shorter one's last token is repeated."""
        width = max(map(len, rows))
        tokens = torch.cat([part for row in rows for part in (row, row[-1:].expand(width - len(row)))])
        residual = F.embedding(tokens, self._embedding).float()
        ends = torch.tensor([number * width + len(row) - 1 for number, row in enumerate(rows)])
        causal = torch.ones(width, width).triu_()
        inputs = {RESIDUAL: residual.numpy(), ENDS: ends.numpy(), CAUSAL: causal.numpy()}
        return torch.from_numpy(self._session.run([EMBEDDINGS], inputs)[0])


def check_covered(config: ModelConfig) -> None:
    """Raise :class:`NotCovered` unless a graph would compute a model of this kind here, and fast."""
    if config.architecture != "mamba2" or not config.selective or config.bidirectional or config.n_groups != 1:
        raise NotCovered("only selective, one-directional Mamba-2 with one group is covered")
    if config.pooling == "mean":
        raise NotCovered("pooling mean is not covered")
    if not multiplies_eight_bits():
        raise NotCovered("the CPU has no instruction for products in 8 bits")


def multiplies_eight_bits() -> bool:
    """Say whether the CPU sums products of 8 bits in 32. Older ones sum pairs in 16 bits, which overflow."""
    capabilities = torch.cpu.get_capabilities()
    return bool(capabilities.get("avx512_vnni") or capabilities.get("avx_vnni"))
