"""The shapes that training reads in: padded rows and chunks inside rows embed as texts and documents do elsewhere."""

import pytest
import torch

from encoder.cores import Cores
from encoder.document_reader import DocumentReader, ReadingRules
from encoder.model import EncoderModel
from tests.tiny_model import tiny_config


def model(**changes: object) -> EncoderModel:
    torch.manual_seed(0)
    return EncoderModel(tiny_config(n_layers=2, **changes)).eval().requires_grad_(requires_grad=False)


@pytest.mark.parametrize("architecture", ["mamba1", "mamba2"])
@pytest.mark.parametrize("pooling", ["eos", "mean"])
@pytest.mark.parametrize("bidirectional", [False, True])
def test_a_row_embeds_as_its_text_alone(architecture: str, pooling: str, bidirectional: bool) -> None:
    encoder = model(architecture=architecture, pooling=pooling, bidirectional=bidirectional)
    tokens, ends = torch.randint(0, 100, (3, 20)), torch.tensor([5, 19, 11])
    alone = [
        encoder.embed_packed(row[None, : end + 1], [end + 1], torch.float32)
        for row, end in zip(tokens, ends.tolist(), strict=True)
    ]
    torch.testing.assert_close(encoder(tokens, ends, torch.float32), torch.cat(alone), rtol=0, atol=1e-5)


@pytest.mark.parametrize("pooling", ["eos", "mean"])
def test_chunks_of_a_row_embed_as_in_a_document(pooling: str) -> None:
    encoder = model(pooling=pooling)
    rules = ReadingRules(start_ids=(), end_id=None, dtype=torch.float32, piece_tokens=64, fingerprint="")
    tokens = torch.randint(0, 100, (2, 30))
    expected = [
        DocumentReader(encoder, rules, Cores(0)).read(row.numpy(), ends)
        for row, ends in zip(tokens, ([8, 20, 30], [17]), strict=True)
    ]
    places = torch.tensor([(0, 7), (0, 19), (0, 29), (1, 16)])
    found, states = encoder.embed_places(tokens, places, torch.float32)
    torch.testing.assert_close(found, torch.cat([torch.from_numpy(each) for each in expected]), rtol=0, atol=1e-5)
    assert len(states) == 2


def test_rows_are_read_on_from_their_states() -> None:
    encoder = model()
    tokens, places = torch.randint(0, 100, (2, 32)), torch.tensor([(0, 31), (1, 20)])
    whole, _ = encoder.embed_places(tokens, places, torch.float32)
    none, states = encoder.embed_places(tokens[:, :16], places[:0], torch.float32)
    assert none.shape == (0, 24)
    rest, _ = encoder.embed_places(tokens[:, 16:], places - torch.tensor([0, 16]), torch.float32, states)
    torch.testing.assert_close(rest, whole, rtol=0, atol=1e-5)


def test_a_bidirectional_model_reads_no_chunks() -> None:
    with pytest.raises(ValueError, match="several chunks"):
        model(bidirectional=True).embed_places(
            torch.zeros(1, 4, dtype=torch.long), torch.tensor([[0, 3]]), torch.float32
        )
