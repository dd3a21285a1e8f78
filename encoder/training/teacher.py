"""A sentence-transformers BERT as the teacher: token ids in, embeddings out."""

from __future__ import annotations

from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import BertModel

from encoder.errors import CheckpointError
from encoder.training.batches import Batch


class Teacher:
    """Mean-pooled, L2-normalized BERT (all-MiniLM-L6-v2 and its like) that shares the student's vocabulary."""

    def __init__(self, folder: Path, device: torch.device, cls_id: int, sep_id: int) -> None:
        if not (folder / "config.json").exists():
            raise CheckpointError(f"{folder} has no config.json; give the folder of a sentence-transformers BERT.")
        dtype = torch.bfloat16 if device.type == "cuda" else torch.float32
        bert: nn.Module = BertModel.from_pretrained(folder, dtype=dtype, add_pooling_layer=False)
        self.bert = bert.to(device).eval()
        self._cls_id, self._sep_id = cls_id, sep_id

    @property
    def word_embeddings(self) -> Tensor:
        """Its token embeddings, ``(vocabulary, d)``: a start for a student of the same width."""
        return self.bert.get_parameter("embeddings.word_embeddings.weight").detach()

    @torch.no_grad()
    def embed(self, batch: Batch) -> Tensor:
        """Embed texts as it was trained to: ``[CLS] text [SEP]``, mean over all of them. ``(b, d)`` float32."""
        tokens = F.pad(batch.tokens, (1, 1))
        tokens[:, 0] = self._cls_id
        tokens.scatter_(1, batch.lengths[:, None] + 1, self._sep_id)
        mask = torch.arange(tokens.shape[1], device=tokens.device) < batch.lengths[:, None] + 2
        hidden = self.bert(input_ids=tokens, attention_mask=mask).last_hidden_state.float()
        # mask before the mean: padding would drag the vector to zero
        pooled = (hidden * mask[..., None]).sum(1) / mask.sum(1, keepdim=True)
        return F.normalize(pooled, dim=-1)
