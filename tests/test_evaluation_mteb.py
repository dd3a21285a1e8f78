"""mteb evaluates our encoder through its own interface."""

from pathlib import Path

import mteb
import numpy as np
import pytest
from datasets import Dataset
from mteb.mocks import MockRetrievalTask, MockSTSTask
from mteb.models import EncoderProtocol
from mteb.types import PromptType
from torch.utils.data import DataLoader

from encoder.evaluation.mteb_model import MtebModel
from encoder.model_config import DEFAULT_MODEL_FOLDER
from tests.tiny_model import save_tiny_model

pytestmark = [  # mteb's own
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::UserWarning"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
]


def load(folder: Path, **changes: object) -> MtebModel:
    return MtebModel.load(save_tiny_model(folder / "model", **changes), device="cpu")


def encode(model: MtebModel, texts: list[str], prompt_type: PromptType | None = None) -> np.ndarray:
    loader = DataLoader(Dataset.from_dict({"text": texts}), batch_size=2)
    metadata = MockRetrievalTask().metadata
    return model.encode(loader, task_metadata=metadata, hf_split="test", hf_subset="default", prompt_type=prompt_type)


def test_tasks_run_and_are_scored() -> None:
    model = MtebModel.load(DEFAULT_MODEL_FOLDER, device="cpu")
    assert isinstance(model, EncoderProtocol)
    results = mteb.evaluate(model, [MockRetrievalTask(), MockSTSTask()], cache=None, show_progress_bar=False)
    assert results.model_name == "mamba-search/" + model.mteb_model_meta.name.split("/")[1]
    scores = {result.task_name: result.get_score() for result in results.task_results}
    assert set(scores) == {MockRetrievalTask().metadata.name, MockSTSTask().metadata.name}
    assert scores[MockRetrievalTask().metadata.name] > 0.5


def test_each_role_has_its_prompt(tmp_path: Path) -> None:
    model = load(tmp_path, query_prompt="query: ", passage_prompt="passage: ")
    assert model.mteb_model_meta.use_instructions
    texts = ["an apple", "a pear tree", "rain"]
    queries = model._encoder.encode_queries(texts).embeddings
    passages = model._encoder.encode_passages(texts).embeddings
    np.testing.assert_allclose(encode(model, texts, PromptType.query), queries, atol=1e-2)
    np.testing.assert_allclose(encode(model, texts, PromptType.document), passages, atol=1e-2)
    np.testing.assert_allclose(encode(model, texts), passages, atol=1e-2)
    assert abs(queries - passages).max() > 0.05


def test_texts_of_any_length_are_read(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    model = load(tmp_path, query_tokens_max=16, passage_tokens_max=32)
    long = "the quick brown fox " * 50
    embeddings = encode(model, ["short", long, " ", long + "jumps"], PromptType.document)
    np.testing.assert_allclose(np.linalg.norm(embeddings, axis=1), [1, 1, 0, 1], atol=1e-3)
    ids = model._encoder.tokenizer.encode(long)
    np.testing.assert_allclose(embeddings[1], model._encoder.open_document().read(ids, [len(ids)])[0], atol=1e-2)
    assert abs(embeddings[1] - embeddings[3]).max() > 1e-3
    queries = encode(model, ["short", long], PromptType.query)
    np.testing.assert_allclose(np.linalg.norm(queries, axis=1), 1, atol=1e-3)
    assert "1 queries had over" in caplog.text


def test_similarities_are_cosines(tmp_path: Path) -> None:
    model = load(tmp_path)
    rows = encode(model, ["one thing", "another thing"])
    both = model.similarity(rows, rows)
    np.testing.assert_allclose(both, rows @ rows.T, atol=1e-5)
    np.testing.assert_allclose(model.similarity_pairwise(rows, rows), [1, 1], atol=1e-5)
