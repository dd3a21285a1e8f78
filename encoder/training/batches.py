"""Batches cut on the device from token ids that live there: no loader threads, no copies. Knows no model."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from encoder.errors import InvalidInput
from encoder.training.corpus import PackedTexts


@dataclass(frozen=True, slots=True)
class Batch:
    """Texts right-padded to one width."""

    tokens: Tensor  # (b, l) int64, the text's ids and zeros after
    lengths: Tensor  # (b,) int64, at most l

    def with_eos(self, eos_id: int) -> tuple[Tensor, Tensor]:
        """Put EOS behind each text: ``(b, l + 1)`` tokens and its positions ``(b,)``."""
        tokens = torch.nn.functional.pad(self.tokens, (0, 1))
        return tokens.scatter(1, self.lengths[:, None], eos_id), self.lengths


class TokenStore:
    """Many texts' ids on a device."""

    def __init__(self, pack: PackedTexts, device: torch.device) -> None:
        self.ids = torch.from_numpy(pack.ids.astype(np.int32)).to(device)
        self.starts = torch.from_numpy(pack.starts).to(device)

    def __len__(self) -> int:
        return len(self.starts) - 1

    @property
    def lengths(self) -> Tensor:
        """Tokens of each text, ``(texts,)``."""
        return self.starts[1:] - self.starts[:-1]

    def cut(self, begins: Tensor, lengths: Tensor, width: int) -> Batch:
        """Cut windows that begin at flat positions ``begins (b,)``, of ``lengths (b,)`` at most ``width`` tokens."""
        lengths = lengths.clamp(max=width)
        steps = torch.arange(width, device=self.ids.device)
        positions = (begins[:, None] + steps).clamp(max=len(self.ids) - 1)
        inside = steps < lengths[:, None]
        return Batch(tokens=torch.where(inside, self.ids[positions], 0).long(), lengths=lengths)

    def texts(self, numbers: Tensor, width: int) -> Batch:
        """Take whole texts by number ``(b,)``, the first ``width`` tokens of each."""
        return self.cut(self.starts[numbers], self.lengths[numbers], width)


class WindowSampler:
    """Random windows of long texts that begin where a sentence does."""

    def __init__(self, store: TokenStore, sentence_ends: Tensor, shortest: int = 8) -> None:
        self.store = store
        after_stop = torch.isin(store.ids, sentence_ends.to(store.ids.dtype)).roll(1)
        begins_text = torch.zeros(len(store.ids), dtype=torch.bool, device=store.ids.device)
        begins_text[store.starts[:-1][store.lengths > 0]] = True
        begins = torch.nonzero(after_stop | begins_text).squeeze(1)
        ends = store.starts[torch.searchsorted(store.starts, begins, right=True)]
        long_enough = ends - begins >= shortest
        self.begins, self.ends = begins[long_enough], ends[long_enough]
        self.shortest = shortest

    def sample(self, count: int, width: int, generator: torch.Generator) -> Batch:
        """Draw ``count`` windows of three quarters of the width to the width (shorter where the text ends)."""
        device = self.begins.device
        drawn = torch.randint(len(self.begins), (count,), generator=generator, device=device)
        wanted = torch.randint(width * 3 // 4, width + 1, (count,), generator=generator, device=device)
        begins = self.begins[drawn]
        return self.store.cut(begins, torch.minimum(wanted, self.ends[drawn] - begins), width)


class LengthSampler:
    """Random whole texts of a range of lengths, so that little of a batch is padding."""

    def __init__(self, store: TokenStore, longest: int) -> None:
        self.store = store
        self.numbers = torch.nonzero((store.lengths <= longest) & (store.lengths > 0)).squeeze(1)
        if not len(self.numbers):
            raise InvalidInput("mix", f"mix asks for texts of at most {longest} tokens; the corpus holds none.")
        self.longest = longest

    def sample(self, count: int, generator: torch.Generator) -> Batch:
        """Draw ``count`` texts."""
        drawn = torch.randint(len(self.numbers), (count,), generator=generator, device=self.numbers.device)
        return self.store.texts(self.numbers[drawn], self.longest)


def load_part(corpus: Path, part: str) -> PackedTexts:
    """Join one part (``texts``, ``queries``, ``positives``) of all sources of a corpus folder."""
    paths = sorted(corpus.glob(f"*.{part}.npz"))
    if not paths:
        raise InvalidInput("corpus", f"{corpus} holds no *.{part}.npz; make it with python -m encoder.training.corpus.")
    return PackedTexts.join([PackedTexts.load(path) for path in paths])
