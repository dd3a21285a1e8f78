"""Packs under way: in order, at most two at once, and nothing of a call that is refused."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from encoder import packs as packs_module
from encoder.errors import InvalidInput
from encoder.packs import PACKS_AT_ONCE, PacksUnderWay, pack
from encoder.text_encoder import TextEncoder
from tests.tiny_model import save_tiny_model

TEXTS = [f"text number {number} " * (number * 7 % 23 + 1) for number in range(200)]


def test_packs_hold_every_text_once_within_the_budget() -> None:
    lengths = [5, 900, 17, 16, 300, 299, 1, 64, 1200] * 9
    packs = list(pack(lengths, 1000))
    assert sorted(number for group in packs for number in group) == list(range(len(lengths)))
    assert all(sum(lengths[n] for n in group) <= 1000 or len(group) == 1 for group in packs)


def test_embeddings_come_back_in_the_order_of_their_places() -> None:
    packs = PacksUnderWay(1)
    for places in ([3, 0], [1], [4, 2]):
        packs.make_room()
        packs.add(places, torch.tensor(places, dtype=torch.float32)[:, None])
    assert packs.embeddings()[:, 0].tolist() == [0, 1, 2, 3, 4]


class Ahead:
    """A tiny encoder that reads ahead as on a GPU; notes when a pack is launched and when it is waited for."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.encoder = TextEncoder.load(save_tiny_model(folder), device="cpu", threads=1)
        self.encoder.path = self.encoder.path._replace(pack_tokens=300)
        self.plain = self.encoder.encode_passages(TEXTS)
        self.encoder.reads_ahead = True
        self.events: list[str] = []
        embed, tokenize = self.encoder.model.embed_packed, self.encoder.tokenizer.encode_joined
        arriving = packs_module._Arriving

        def launched(tokens: torch.Tensor, lengths: Sequence[int], dtype: torch.dtype) -> torch.Tensor:
            self.events.append("launch")
            return embed(tokens, lengths, dtype)

        def tokenized(texts: Sequence[str]) -> Any:
            self.events.append("tokenize")
            return tokenize(texts)

        class Noting(arriving):
            def wait(inner) -> NDArray[np.float32]:  # noqa: N805
                self.events.append("fetch")
                return super().wait()

        monkeypatch.setattr(self.encoder.model, "embed_packed", launched)
        monkeypatch.setattr(self.encoder.tokenizer, "encode_joined", tokenized)
        monkeypatch.setattr(packs_module, "_Arriving", Noting)


@pytest.fixture
def ahead(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Ahead:
    return Ahead(tmp_path, monkeypatch)


def test_reading_ahead_changes_no_embedding(ahead: Ahead) -> None:
    found = ahead.encoder.encode_passages(TEXTS)
    assert found.token_counts == ahead.plain.token_counts
    assert (found.embeddings * ahead.plain.embeddings).sum(axis=1).min() > 0.9995
    rows = ahead.encoder.passage_rows(TEXTS)
    again = ahead.encoder.launch(rows).embeddings()
    assert (again * ahead.plain.embeddings).sum(axis=1).min() > 0.9995


def test_texts_are_tokenized_while_packs_are_read_of_which_two_are_under_way(ahead: Ahead) -> None:
    ahead.encoder.encode_passages(TEXTS)
    under_way, most = 0, 0
    for event in ahead.events:
        under_way += {"launch": 1, "fetch": -1, "tokenize": 0}[event]
        most = max(most, under_way)
    assert (under_way, most) == (0, PACKS_AT_ONCE)
    assert ahead.events[:3] == ["tokenize", "launch", "tokenize"], "the first slice is small"
    assert ahead.events.count("tokenize") > 5


@pytest.mark.parametrize(
    ("text", "words", "launched"),
    [(" ", "is empty", False), ("caf\udce9", "not whole Unicode", False), ("word " * 9000, "the limit is", True)],
)
def test_a_text_that_is_refused_is_named_by_its_place_in_the_call(
    ahead: Ahead, text: str, words: str, launched: bool
) -> None:
    with pytest.raises(InvalidInput, match=rf"passages\[150\] .*{words}") as caught:
        ahead.encoder.encode_passages([*TEXTS[:150], text, *TEXTS[150:]])
    assert caught.value.field == "passages[150]"
    assert ("launch" in ahead.events) == launched
    assert ahead.encoder.encode_passages(TEXTS[:3]).embeddings.shape[0] == 3, "nothing is left of it"


def test_a_text_longer_than_a_pack_is_read_in_pieces(ahead: Ahead) -> None:
    texts = ["word " * 1000, "short", "other " * 500]
    ahead.encoder.reads_ahead = False
    plain = ahead.encoder.encode_passages(texts).embeddings
    ahead.encoder.reads_ahead = True
    assert (ahead.encoder.encode_passages(texts).embeddings * plain).sum(axis=1).min() > 0.9995
