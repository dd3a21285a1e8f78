"""Gradients of large batches: in slices as in one go, over pieces of documents, over two processes as in one."""

from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from torch import Tensor

from encoder.model import EncoderModel
from encoder.training.gradient_cache import Reading, Role, in_slices, learn
from encoder.training.objectives import Losses, info_nce
from encoder.training.optimizing import FlatGradients
from encoder.training.ranks import Ranks
from encoder.training.rows import TextRows
from tests.tiny_model import tiny_config

CPU = torch.device("cpu")


def encoders(seed: int = 0, **changes: object) -> dict[Role, EncoderModel]:
    torch.manual_seed(seed)
    model = EncoderModel(tiny_config(n_layers=2, **changes))
    return {"query": model, "passage": model}


def contrast(embeddings: Sequence[Tensor]) -> Losses:
    return {"info_nce": info_nce(embeddings[0] @ embeddings[1].T, torch.arange(len(embeddings[0])), 0.05)}


def gradients(model: EncoderModel) -> dict[str, Tensor]:
    return {name: value.grad.clone() for name, value in model.named_parameters() if value.grad is not None}


def assert_near(found: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    """Sums in another order differ by rounding, in proportion to what was summed."""
    assert set(found) == set(expected)
    for name, value in expected.items():
        assert (found[name] - value).abs().max() <= 2e-5 * value.abs().max(), name


def text_readings(slice_tokens: int | None) -> list[Reading]:
    generator = torch.Generator().manual_seed(1)
    made = []
    for role, width in (("query", 16), ("passage", 48)):
        tokens = torch.randint(0, 100, (6, width), generator=generator)
        ends = torch.randint(3, width, (6,), generator=generator)
        made.append(in_slices(role, TextRows(tokens, ends), slice_tokens))
    return made


@pytest.mark.parametrize("architecture", ["mamba1", "mamba2"])
def test_slices_give_the_gradient_of_the_whole(architecture: str) -> None:
    whole, sliced = encoders(architecture=architecture), encoders(architecture=architecture)
    at_once = learn(whole, text_readings(None), contrast, torch.float32)
    parts = text_readings(100)
    assert [len(reading.pieces) for reading in parts] == [1, 3]
    in_slices = learn(sliced, parts, contrast, torch.float32)
    torch.testing.assert_close(in_slices, at_once)
    expected = gradients(whole["query"])
    assert set(expected) == {name for name, _ in whole["query"].named_parameters()}
    found = gradients(sliced["query"])
    assert max(value.abs().max().item() for value in expected.values()) > 0.1
    assert_near(found, expected)


def document_reading(pieces: int) -> Reading:
    """Two documents of 96 tokens with a chunk every 16, and one that ends earlier."""
    tokens = torch.randint(0, 100, (2, 96), generator=torch.Generator().manual_seed(2))
    places = [(row, end) for row in range(2) for end in range(15, 96 if row else 80, 16)]
    width = 96 // pieces
    bounds = list(pairwise(range(0, 97, width)))
    return Reading(
        "passage",
        tuple(
            TextRows(
                tokens[:, start:end],
                torch.tensor([(row, at - start) for row, at in places if start <= at < end]).reshape(-1, 2),
            )
            for start, end in bounds
        ),
        carried=pieces > 1,
    )


def test_documents_in_pieces_have_the_same_losses_and_nearly_the_same_gradient() -> None:
    """The state is detached between pieces: what a piece owes to the one before is not learnt there."""
    found = {}
    for pieces in (1, 3):
        models = encoders()
        reading = document_reading(pieces)
        embeddings: list[Tensor] = []

        def losses_of(parts: Sequence[Tensor], kept: list[Tensor] = embeddings) -> Losses:
            kept.append(parts[0].detach())
            return {"sum": parts[0].square().cumsum(0)[:, 0].mean() + parts[0][:, 1].mean()}

        learn(models, [reading], losses_of, torch.float32)
        found[pieces] = embeddings[0], gradients(models["passage"])
    rows = [tuple(row.tolist()) for row in found[1][0].round(decimals=4)]
    assert sorted(tuple(row.tolist()) for row in found[3][0].round(decimals=4)) == sorted(rows)
    one, three = found[1][1]["projection.weight"], found[3][1]["projection.weight"]
    assert torch.nn.functional.cosine_similarity(one.flatten(), three.flatten(), dim=0) > 0.5


def test_gradients_in_one_stretch_are_those_of_the_parameters_and_are_clipped() -> None:
    flat, plain = encoders(), encoders()
    stretch = FlatGradients(flat["query"].parameters())
    for _ in range(2):
        stretch.clear()
        learn(flat, text_readings(None), contrast, torch.float32)
    learn(plain, text_readings(None), contrast, torch.float32)
    expected = gradients(plain["query"])
    norm = torch.nn.utils.clip_grad_norm_(plain["query"].parameters(), 0.5)
    torch.testing.assert_close(gradients(flat["query"]), expected)
    torch.testing.assert_close(stretch.finish(Ranks(0, 1, CPU), 0.5), norm)
    torch.testing.assert_close(gradients(flat["query"]), gradients(plain["query"]))


def _learn_in_process(rank: int, folder: Path) -> None:
    dist.init_process_group("gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=2)
    ranks = Ranks(rank, 2, CPU)
    models = encoders()
    stretch = FlatGradients(models["query"].parameters())
    parts = [
        Reading(reading.role, tuple(TextRows(*(each.chunk(2)[rank] for each in piece[:2])) for piece in reading.pieces))
        for reading in text_readings(None)
    ]
    # Uneven parts, too: three rows and the other one's two.
    rows = torch.full((3 - rank, 2), float(rank))
    uneven = ranks.gather(rows, equal=False)
    learn(models, parts, lambda found: contrast([ranks.gather(each) for each in found]), torch.float32)
    stretch.finish(ranks, 1e9)
    torch.save(
        [gradients(models["query"]), uneven, ranks.agree(float(rank)), ranks.any(flag=rank == 1)], folder / str(rank)
    )
    dist.destroy_process_group()


def test_two_processes_give_the_gradient_of_one_with_the_joined_batch(tmp_path: Path) -> None:
    torch.multiprocessing.spawn(_learn_in_process, (tmp_path,), nprocs=2)
    models = encoders()
    learn(models, text_readings(None), contrast, torch.float32)
    for rank in range(2):
        found, uneven, agreed, any_flag = torch.load(tmp_path / str(rank))
        assert_near(found, gradients(models["query"]))
        assert uneven[:, 0].tolist() == [0, 0, 0, 1, 1]
        assert (agreed, any_flag) == (0.0, True)
