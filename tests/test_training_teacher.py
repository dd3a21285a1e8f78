"""The teacher: fast from token ids where it shares the vocabulary, from the text otherwise; both as it was trained."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from sentence_transformers import SentenceTransformer

from encoder.errors import CheckpointError
from encoder.model_config import DEFAULT_MODEL_FOLDER
from encoder.tokenizer import TOKENIZER_FILE, Tokenizer
from encoder.training.config import TeacherTable
from encoder.training.joint_teacher import load_teacher, principal_axes, rotation, whitened
from encoder.training.rows import TextRows, wrap
from encoder.training.teacher import TextTeacher, load_single
from encoder.training.teacher_rules import ReadingRules, TeacherRules, teacher_rules
from tests.tiny_teacher import save_tiny_teacher

CPU = torch.device("cpu")
TEXTS = ["ships at sea", "a long story of engines, of cars and of what became of them in winter", "snow"]


def token_rows(texts: list[str]) -> tuple[np.ndarray, np.ndarray]:
    ids = Tokenizer.load(DEFAULT_MODEL_FOLDER).encode_batch(texts)
    lengths = np.array([len(row) for row in ids])
    tokens = np.zeros((len(ids), lengths.max()), np.int64)
    for row, found in zip(tokens, ids, strict=True):
        row[: len(found)] = found
    return tokens, lengths


@pytest.mark.parametrize("pooling", ["mean", "cls"])
def test_token_ids_give_what_sentence_transformers_makes_of_the_text(tmp_path: Path, pooling: str) -> None:
    table = TeacherTable(folder=save_tiny_teacher(tmp_path, pooling=pooling), batch_tokens=512)
    rules = teacher_rules(table, DEFAULT_MODEL_FOLDER)
    assert [reading.kind for reading in rules.readings] == ["shared ids"]
    teacher = load_teacher(table, rules, CPU)
    found = teacher.embed(rules.ready(*token_rows(TEXTS)))
    expected = SentenceTransformer(str(tmp_path)).encode(TEXTS, normalize_embeddings=True)
    assert teacher.dimension == 32
    np.testing.assert_allclose(found.numpy(), expected, atol=1e-5)


def rename_tokens(folder: Path, names: dict[str, str]) -> None:
    """Give tokens of a teacher's vocabulary other names, or those of one another."""
    tokenizer = json.loads((folder / TOKENIZER_FILE).read_text())
    vocabulary = tokenizer["model"]["vocab"]
    tokenizer["model"]["vocab"] = {names.get(token, token): number for token, number in vocabulary.items()}
    (folder / TOKENIZER_FILE).write_text(json.dumps(tokenizer))


@pytest.mark.parametrize(("kind", "names"), [("bert", {"ships": "snow", "snow": "ships"}), ("mpnet", {})])
def test_tokens_with_other_numbers_and_an_mpnet_are_read_by_ids_too(
    kind: str, names: dict[str, str], tmp_path: Path
) -> None:
    rename_tokens(save_tiny_teacher(tmp_path, kind=kind), names)
    table = TeacherTable(folder=tmp_path)
    rules = teacher_rules(table, DEFAULT_MODEL_FOLDER)
    assert [reading.kind for reading in rules.readings] == ["shared ids"]
    teacher = load_teacher(table, rules, CPU)
    expected = SentenceTransformer(str(tmp_path)).encode(TEXTS, normalize_embeddings=True)
    np.testing.assert_allclose(teacher.embed(rules.ready(*token_rows(TEXTS))).numpy(), expected, atol=1e-5)


@pytest.mark.parametrize(("weights", "first"), [(None, 0.5), ([3.0, 1.0], 0.75)])
def test_several_teachers_make_the_mean_of_their_cosines(
    tmp_path: Path, weights: list[float] | None, first: float
) -> None:
    folders = [save_tiny_teacher(tmp_path / "one"), save_tiny_teacher(tmp_path / "other", width=48, kind="mpnet")]
    table = TeacherTable(folder=folders, dimension=40, weights=weights)
    rules = teacher_rules(table, DEFAULT_MODEL_FOLDER)
    teacher = load_teacher(table, rules, CPU)
    found = teacher.embed(rules.ready(*token_rows(TEXTS)))
    assert found.shape == (3, 80)
    each = [SentenceTransformer(str(folder)).encode(TEXTS, normalize_embeddings=True) for folder in folders]
    one, other = (x @ x.T for x in each)
    np.testing.assert_allclose((found @ found.T).numpy(), first * one + (1 - first) * other, atol=1e-5)


def test_axes_keep_products_and_put_first_what_says_most(tmp_path: Path) -> None:
    embeddings = torch.nn.functional.normalize(torch.randn(500, 5) @ torch.randn(5, 12), dim=-1)  # of rank 5
    axes = principal_axes(embeddings, 6)
    torch.testing.assert_close(axes.T @ axes, torch.eye(6), atol=1e-5, rtol=0)
    turned = embeddings @ axes
    torch.testing.assert_close(turned @ turned.T, embeddings @ embeddings.T, atol=1e-4, rtol=0)
    lengths = turned.square().sum(0)
    assert (lengths[:-1] >= lengths[1:] - 1e-3).all()


def test_whitening_brings_what_says_little_near_to_what_says_much() -> None:
    embeddings = torch.randn(2000, 6) * torch.tensor([8.0, 4.0, 2.0, 1.0, 0.5, 0.25])
    axes = principal_axes(embeddings, 6)
    spread = (embeddings @ axes).square().mean(0)
    for share in (0.0, 0.5, 1.0):
        found = (embeddings @ whitened(embeddings, axes, share)).square().mean(0)
        torch.testing.assert_close(found, spread ** (1 - share), rtol=1e-3, atol=0)


def test_a_rotation_finds_back_what_was_turned() -> None:
    embeddings = torch.nn.functional.normalize(torch.randn(300, 8), dim=-1)
    turn = torch.linalg.qr(torch.randn(8, 8)).Q
    found = rotation(embeddings, embeddings @ turn + 0.01 * torch.randn(300, 8))
    torch.testing.assert_close(found.T @ found, torch.eye(8), atol=1e-5, rtol=0)
    torch.testing.assert_close(found, turn, atol=0.02, rtol=0)


def test_what_does_not_fit_together_is_refused() -> None:
    with pytest.raises(ValueError, match="give a dimension"):
        TeacherTable(folder=Path("teacher"), whitening=0.3)
    with pytest.raises(ValueError, match="1 weights for 2 folders"):
        TeacherTable(folder=[Path("one"), Path("other")], weights=[1.0])


def test_a_roberta_with_a_vocabulary_of_its_own_reads_its_own_ids(tmp_path: Path) -> None:
    save_tiny_teacher(tmp_path, kind="roberta", pooling="cls")
    rename_tokens(tmp_path, {"ships": "shipz"})
    table = TeacherTable(folder=tmp_path)
    rules = teacher_rules(table, DEFAULT_MODEL_FOLDER)
    assert [reading.kind for reading in rules.readings] == ["own ids"]
    teacher = load_teacher(table, rules, CPU)
    assert teacher.shared is None
    model = SentenceTransformer(str(tmp_path))
    long = ["of ships " * 400, *TEXTS]
    found = teacher.embed(rules.ready(*token_rows(long)))
    np.testing.assert_allclose(found.numpy(), model.encode(long, normalize_embeddings=True), atol=1e-5)
    (nothing,) = rules.ready(np.zeros((0, 4), np.int64), np.zeros(0, np.int64))
    assert isinstance(nothing, TextRows)
    assert nothing.tokens.shape == (0, 16)
    torch.zeros(4, 32, requires_grad=True).mul(found).sum().backward()  # it can stand in a loss


def test_teachers_of_different_vocabularies_teach_together(tmp_path: Path) -> None:
    folders = [
        save_tiny_teacher(tmp_path / "other", kind="roberta", pooling="cls"),
        save_tiny_teacher(tmp_path / "same", width=48),
        save_tiny_teacher(tmp_path / "layered"),
    ]
    rename_tokens(folders[0], {"ships": "shipz"})
    rename_tokens(folders[2], {"ships": "shipz"})
    (folders[2] / TOKENIZER_FILE).rename(folders[2] / "moved.json")  # nothing to make ids with
    table = TeacherTable(folder=folders[:2])
    rules = teacher_rules(table, DEFAULT_MODEL_FOLDER)
    assert [reading.kind for reading in rules.readings] == ["own ids", "shared ids"]
    teacher = load_teacher(table, rules, CPU)
    assert teacher.shared == 1
    assert teacher.word_embeddings is not None
    assert teacher.word_embeddings.shape[1] == 48
    found = teacher.embed(rules.ready(*token_rows(TEXTS)))
    each = [SentenceTransformer(str(folder)).encode(TEXTS, normalize_embeddings=True) for folder in folders[:2]]
    np.testing.assert_allclose((found @ found.T).numpy(), sum(x @ x.T for x in each) / 2, atol=1e-5)
    last = teacher_rules(TeacherTable(folder=folders[2]), DEFAULT_MODEL_FOLDER)
    assert [reading.kind for reading in last.readings] == ["text"]


def test_any_other_model_is_read_through_the_text(tmp_path: Path) -> None:
    rules = ReadingRules("text", DEFAULT_MODEL_FOLDER, tokens_max=128)
    save_tiny_teacher(tmp_path)
    teacher = load_single(tmp_path, TeacherTable(folder=tmp_path), rules, CPU)
    assert isinstance(teacher, TextTeacher)
    ready = rules.ready(*token_rows(TEXTS))
    assert ready[0] == "ships at sea"
    found = teacher.embed(ready)
    expected = SentenceTransformer(str(tmp_path)).encode(TEXTS, normalize_embeddings=True)
    np.testing.assert_allclose(found.numpy(), expected, atol=1e-5)
    torch.zeros(3, 32, requires_grad=True).mul(found).sum().backward()


def test_long_texts_are_cut_where_the_teacher_says(tmp_path: Path) -> None:
    table = TeacherTable(folder=save_tiny_teacher(tmp_path))
    rules = teacher_rules(table, DEFAULT_MODEL_FOLDER)
    tokens = np.full((1, 200), 2003)
    (ready,) = rules.ready(tokens, np.array([200]))
    assert isinstance(ready, TextRows)
    assert ready.ends.tolist() == [127]
    assert ready.tokens.shape == (1, 128)
    longer = teacher_rules(table.model_copy(update={"tokens_max": 1000}), DEFAULT_MODEL_FOLDER)
    assert longer.tokens_max == 288  # of its 300 positions, what rows of whole sixteens take
    (ready,) = longer.ready(np.full((1, 400), 2003), np.array([400]))
    assert isinstance(ready, TextRows)
    assert ready.tokens.shape == (1, 288)


def test_rows_hold_special_tokens_and_have_widths_of_sixteen() -> None:
    rows = wrap(np.array([[5, 6, 7], [8, 99, 99]]), np.array([3, 1]), (1, 2), 9)
    assert rows.tokens.tolist() == [[1, 2, 5, 6, 7, 9, *[0] * 10], [1, 2, 8, 9, *[0] * 12]]
    assert rows.ends.tolist() == [5, 3]
    without_end = wrap(np.array([[5, 6]]), np.array([2]), (), None)
    assert without_end.ends.tolist() == [1]


def test_a_folder_that_is_no_teacher_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"neither modules\.json nor config\.json"):
        teacher_rules(TeacherTable(folder=tmp_path), DEFAULT_MODEL_FOLDER)


def test_a_teacher_without_embeddings_of_one_length_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    table = TeacherTable(folder=save_tiny_teacher(tmp_path))
    rules = TeacherRules((ReadingRules("text", DEFAULT_MODEL_FOLDER, tokens_max=128),))
    monkeypatch.setattr(SentenceTransformer, "get_embedding_dimension", lambda _: None)
    with pytest.raises(CheckpointError, match=r"cannot be read as a teacher \(its embeddings have no fixed length"):
        load_teacher(table, rules, CPU)
