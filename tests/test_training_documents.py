"""Documents in one pass: what stands in a batch, which chunk answers, long ones in pieces, and that it is learnt."""

from pathlib import Path

import pytest
import torch

from encoder.errors import InvalidInput
from encoder.model import EncoderModel
from encoder.training.config import DocumentsTask
from encoder.training.documents import DocumentRows, choose_answers, documents_step
from encoder.training.feeding import Feed
from encoder.training.gradient_cache import embed_piece
from encoder.training.joint_teacher import load_teacher
from encoder.training.loop import train
from encoder.training.rows import TextRows
from encoder.training.tasks import StepContext
from encoder.training.teacher_rules import TeacherInput
from tests.tiny_model import tiny_config
from tests.tiny_teacher import save_tiny_teacher
from tests.training_data import ALONE, documents_task, logged, train_config, write_sources

SEPARATOR = 102


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_sources(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="module")
def teacher(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_teacher(tmp_path_factory.mktemp("teacher"))


def only(texts: TeacherInput | None) -> TextRows:
    """Give what the one teacher reads, token ids."""
    assert texts is not None
    (rows,) = texts
    assert isinstance(rows, TextRows)
    return rows


@pytest.mark.parametrize("opening", [0, 5])
def test_a_batch_holds_each_chunk_alone_and_its_place_in_the_pieces(data: Path, teacher: Path, opening: int) -> None:
    task = documents_task(widths=[1024], piece_tokens=256, opening_tokens=opening)
    config = train_config(data, teacher, [task])
    rows = Feed.open(config, ALONE)[0].rows
    assert isinstance(rows, DocumentRows)
    assert len(rows.pieces) == 4
    chunks = only(rows.chunks)
    joined = torch.cat([piece.tokens for piece in rows.pieces], dim=1)
    number = 0
    begins: dict[int, int] = {}
    for index, (tokens, places, _) in enumerate(rows.pieces):
        assert tokens.shape == (2, 256)
        for row, column in places.tolist():
            assert tokens[row, column] == SEPARATOR
            end = index * 256 + column
            alone = chunks.tokens[number, 1 : int(chunks.ends[number])]
            # This teacher reads 128 tokens, of which two are special.
            assert joined[row, begins.get(row, 0) : end][:126].tolist() == alone.tolist()
            assert rows.owners[number] == row
            if opening:
                assert alone[:opening].tolist() == joined[row, :opening].tolist()
            begins[row] = end + 1
            number += 1
    assert number == len(rows.owners) >= 6
    assert rows.query_owners.tolist() == [0, 1]


def test_the_teacher_chooses_the_answer_inside_the_document() -> None:
    owners = torch.tensor([0, 0, 0, 1, 1])
    scores = torch.tensor([[0.1, 0.5, 0.47, 0.6, 0.2], [0.9, 0.0, 0.0, 0.3, 0.4], [0.3, 0.1, 0.1, 0.2, 0.2]])
    found = choose_answers(scores, torch.tensor([0, 1, 0]), owners, torch.tensor([7, 8, 8]), 0.05)
    assert found.positives.tolist() == [1, 4, 0]
    # Within the margin of its own document's best; above the best elsewhere; a document that has the same question.
    assert found.excluded[0].tolist() == [False, True, True, True, False]
    assert found.excluded[1].tolist() == [True, True, True, False, True]
    assert found.excluded[2].tolist() == [True, False, False, True, True]


def test_losses_of_pieces_are_those_of_the_whole(data: Path, teacher: Path) -> None:
    found = []
    for piece_tokens in (1024, 256):
        config = train_config(data, teacher, [documents_task(widths=[1024], piece_tokens=piece_tokens)])
        feed = Feed.open(config, ALONE)
        rows, task = feed[0].rows, config.tasks[0]
        assert isinstance(rows, DocumentRows)
        assert isinstance(task, DocumentsTask)
        assert config.teacher is not None
        assert feed.maker.teacher is not None
        context = StepContext(load_teacher(config.teacher, feed.maker.teacher, ALONE.device), ALONE, None)
        step = documents_step(rows, task, context)
        torch.manual_seed(3)
        model = EncoderModel(tiny_config(vocabulary_size=30522, projection_dim=32))
        embeddings = []
        with torch.no_grad():
            for reading in step.readings:
                states, parts = None, []
                for piece in reading.pieces:
                    part, states = embed_piece(model, piece, torch.float32, states)
                    parts.append(part)
                embeddings.append(torch.cat(parts))
        found.append(step.losses_of(embeddings))
    torch.testing.assert_close(found[0], found[1], rtol=1e-4, atol=1e-5)
    assert set(found[0]) == {"cosine", "info_nce"}


def test_documents_are_learnt_whole_and_in_pieces(data: Path, teacher: Path, tmp_path: Path) -> None:
    for name, piece_tokens in (("whole", 1024), ("pieces", 256)):
        task = documents_task(widths=[1024], piece_tokens=piece_tokens, cosine_weight=0.2, matryoshka=[16])
        config = train_config(data, teacher, [task], out=tmp_path / name, run={"steps": 12})
        assert train(config)
        rows = logged(config.out)
        assert rows[-1]["loss"] < rows[0]["loss"] / 2


def test_documents_without_questions_are_learnt_from_the_teacher_alone(
    data: Path, teacher: Path, tmp_path: Path
) -> None:
    config = train_config(
        data, teacher, [documents_task(sources=["texts"], widths=[512])], out=tmp_path, run={"steps": 2}
    )
    assert train(config)
    assert "loss/documents_cosine" in logged(tmp_path)[-1]
    assert "loss/documents_info_nce" not in logged(tmp_path)[-1]


def test_what_cannot_be_read_in_one_pass_is_refused(data: Path, teacher: Path, tmp_path: Path) -> None:
    def model(**changes: object) -> dict[str, object]:
        fresh = tiny_config(vocabulary_size=30522, projection_dim=32, **changes).model_dump(exclude_none=True)
        return {"fresh": fresh, "tokenizer": "default"}

    for changes, message in (
        ({"bidirectional": True}, "tasks.0 is documents, which tiny, being bidirectional"),
        ({"eos_token": None, "pooling": "last"}, "has no eos_token"),
        ({"pooling": "mean"}, r"tasks.0.piece_tokens is 256; with mean pooling"),
    ):
        for run in ({"steps": 2}, {"steps": None, "epochs": 1}):
            task, settings = documents_task(piece_tokens=256), {"out": tmp_path, "model": model(**changes), "run": run}
            with pytest.raises(InvalidInput, match=message):
                train(train_config(data, teacher, [task], **settings))
    with pytest.raises(InvalidInput, match="'pairs-facts' holds passages, no documents"):
        train(train_config(data, teacher, [documents_task(sources=["pairs"])], out=tmp_path))
