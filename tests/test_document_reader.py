"""Documents in one pass: the same in any stretches, pieces and continuations; every fault named."""

from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from encoder.cores import Cores
from encoder.document_reader import DocumentReader, ReadingRules
from encoder.document_state import state_bytes
from encoder.errors import FingerprintMismatch, InvalidInput
from encoder.kernels.choosing import prepare
from encoder.model import EncoderModel
from encoder.model_config import DEFAULT_MODEL_FOLDER, ModelConfig, load_model_config
from encoder.text_encoder import TextEncoder
from tests.scans import SEEDS
from tests.tiny_model import save_tiny_model, tiny_config

KINDS = {
    "mamba1": tiny_config(architecture="mamba1", n_layers=2),
    "mamba2": tiny_config(n_layers=3),
    "mean": tiny_config(n_layers=2, pooling="mean"),
    "time-invariant": tiny_config(n_layers=2, selective=False, pooling="last"),
}
EOS = 99


def reading(
    config: ModelConfig, *, fast: bool = True, piece_tokens: int = 64, cores: int = 0
) -> tuple[EncoderModel, ReadingRules, Cores]:
    """A model, and how it reads: a start token, an end token, small pieces."""
    torch.manual_seed(0)
    model = EncoderModel(config).eval().requires_grad_(requires_grad=False)
    if fast:
        prepare(model, torch.float32)
    rules = ReadingRules((7,), None if config.pooling == "last" else EOS, torch.float32, piece_tokens, "print")
    return model, rules, Cores(cores)


def document(length: int, seed: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    generator = np.random.default_rng(seed)
    ids = generator.integers(0, 99, length)
    ends = np.unique([*generator.integers(1, length + 1, 5), length])
    return ids, ends


@settings(deadline=None, max_examples=30)
@given(
    length=st.integers(1, 400),
    seed=SEEDS,
    kind=st.sampled_from(sorted(KINDS)),
    piece_tokens=st.integers(1, 200),
    cuts=st.lists(st.integers(0, 400), max_size=4),
    fast=st.booleans(),
    cores=st.sampled_from([0, 1, 3]),
)
def test_stretches_and_pieces_do_not_matter(
    length: int, seed: int, kind: str, piece_tokens: int, cuts: list[int], fast: bool, cores: int
) -> None:
    ids, ends = document(length, seed)
    expected = _in_one_go(KINDS[kind], ids, ends)
    reader = DocumentReader(*reading(KINDS[kind], fast=fast, piece_tokens=piece_tokens, cores=cores))
    parts = [_read(reader, ids, ends, start, stop) for start, stop in _spans(cuts, length)]
    assert reader.finish() is None
    np.testing.assert_allclose(np.concatenate(parts), expected, atol=1e-4)


def _in_one_go(config: ModelConfig, ids: NDArray[np.int64], ends: NDArray[np.int64]) -> NDArray[np.float32]:
    """What the model says in a single call of its plain backbone: start token, chunks, an end token after each."""
    model, rules, _ = reading(config, fast=False)
    tokens = [*rules.start_ids]
    bounds = [0]
    for start, end in zip([0, *ends[:-1]], ends, strict=True):
        tokens += [*ids[start:end].tolist(), *([] if rules.end_id is None else [rules.end_id])]
        bounds.append(len(tokens))
    with torch.inference_mode():
        hidden = model.backbone(torch.tensor([tokens]), torch.float32)[0][0]
        pooled = [
            hidden[start:end].mean(0) if config.pooling == "mean" else hidden[end - 1]
            for start, end in pairwise(bounds)
        ]
        return model.finish(torch.stack(pooled)).numpy()


def _spans(cuts: list[int], length: int) -> list[tuple[int, int]]:
    places = [0, *sorted(min(cut, length) for cut in cuts), length]
    return list(pairwise(places))


def _read(
    reader: DocumentReader, ids: NDArray[np.int64], ends: NDArray[np.int64], start: int, stop: int
) -> NDArray[np.float32]:
    return reader.read(ids[start:stop], ends[(ends > start) & (ends <= stop)] - start)


@settings(deadline=None, max_examples=30)
@given(
    length=st.integers(2, 300),
    seed=SEEDS,
    kind=st.sampled_from(sorted(KINDS)),
    cuts=st.lists(st.integers(0, 300), max_size=3),
    kept=st.integers(1, 6),
)
def test_appending_equals_reading_anew(length: int, seed: int, kind: str, cuts: list[int], kept: int) -> None:
    ids, ends = document(length, seed)
    whole = _in_one_go(KINDS[kind], ids, ends)
    kept = min(kept, len(ends))  # chunks of the first version, the last of which is cut anew
    known = int(ends[kept - 1]) - (1 if kept > 1 and ends[kept - 1] - ends[kept - 2] > 1 else 0)
    first = DocumentReader(*reading(KINDS[kind]), keep_state=True)
    old_ends = np.array([*ends[: kept - 1], known])
    for start, stop in _spans(cuts, known):
        _read(first, ids[:known], old_ends, start, stop)
    state = first.finish()
    assert state is not None
    again = int(ends[kept - 2]) if kept > 1 else 0
    second = DocumentReader(*reading(KINDS[kind]), state=state)
    found = second.read(ids[again:], ends[kept - 1 :] - again)
    np.testing.assert_allclose(found, whole[kept - 1 :], atol=1e-4)


def test_a_passage_is_a_document_of_one_chunk(tmp_path: Path) -> None:
    encoder = TextEncoder.load(save_tiny_model(tmp_path, passage_prompt="about: "), device="cpu")
    ids = encoder.tokenizer.encode("The stream reads a document once, from left to right.")
    reader = encoder.open_document()
    found = reader.read(ids, [len(ids)])
    text = encoder.encode_passages(["The stream reads a document once, from left to right."])
    assert float((found @ text.embeddings.T).item()) >= 0.9999
    assert reader.token_count == text.token_counts[0]
    tokenized = encoder.encode_tokenized_passages([ids])
    np.testing.assert_allclose(tokenized.embeddings, text.embeddings, atol=1e-6)
    assert tokenized.token_counts == text.token_counts


def test_long_passages_are_read_in_pieces(tmp_path: Path) -> None:
    encoder = TextEncoder.load(save_tiny_model(tmp_path), device="cpu")
    long = [int(number) for number in np.random.default_rng(0).integers(1000, 2000, 5000)]
    together = encoder.encode_tokenized_passages([long, long[:20], long[:700]]).embeddings
    for number, length in enumerate((5000, 20, 700)):
        alone = encoder.encode_tokenized_passages([long[:length]]).embeddings[0]
        assert float(together[number] @ alone) >= 0.999


def test_the_size_of_a_state_is_as_stated() -> None:
    config = KINDS["mamba2"]
    reader = DocumentReader(*reading(config), keep_state=True)
    reader.read([1, 2, 3, 4], [2, 4])
    state = reader.finish()
    assert state is not None
    assert state_bytes(config) <= len(state) <= state_bytes(config) + 2000
    assert state_bytes(load_model_config(DEFAULT_MODEL_FOLDER)) == 3_317_760


def test_a_state_of_another_model_or_a_damaged_one_is_refused() -> None:
    model, rules, cores = reading(KINDS["mamba2"])
    reader = DocumentReader(model, rules, cores, keep_state=True)
    reader.read([1, 2], [1, 2])
    state = reader.finish()
    assert state is not None
    other = ReadingRules((), EOS, torch.float32, 64, "other")
    with pytest.raises(FingerprintMismatch, match="print, this one is other"):
        DocumentReader(model, other, cores, state=state)
    for damaged in (b"", b"\x00" * 40, state[:-5], b"\x02\x00\x00\x00\x00\x00\x00\x00{}"):
        with pytest.raises(InvalidInput, match="state"):
            DocumentReader(model, rules, cores, state=damaged)
    fewer, *_ = reading(tiny_config(n_layers=4))
    with pytest.raises(InvalidInput, match=r"3\.conv is missing"):
        DocumentReader(fewer, rules, cores, state=state)


def test_bad_documents() -> None:
    model, rules, cores = reading(KINDS["mamba2"])
    with pytest.raises(InvalidInput, match=r"token_ids\[1\] is 100; .* 0 to 99"):
        DocumentReader(model, rules, cores).read([5, 100], [2])
    for ends, words in (
        ([2, 2], r"chunk_ends\[1\] is 2; .* above 2 and at most 2"),
        ([0], "above 0"),
        ([3], "at most 2"),
    ):
        with pytest.raises(InvalidInput, match=words):
            DocumentReader(model, rules, cores).read([1, 2], ends)
    with pytest.raises(InvalidInput, match="token_ids must be a flat list of integers"):
        DocumentReader(model, rules, cores).read(np.array([1.5]), [1])
    open_ended = DocumentReader(model, rules, cores)
    open_ended.read([1, 2, 3], [2])
    with pytest.raises(InvalidInput, match="does not end"):
        open_ended.finish()
    with pytest.raises(InvalidInput, match="does not end"):
        DocumentReader(model, rules, cores).finish()
    bidirectional, *_ = reading(tiny_config(bidirectional=True))
    with pytest.raises(InvalidInput, match="bidirectional"):
        DocumentReader(bidirectional, rules, cores)
