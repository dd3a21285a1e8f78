"""Training on the CPU, small: the corpus, the batches, the losses, and both stages from end to end."""

import json
import lzma
import signal
from pathlib import Path

import numpy as np
import pytest
import torch
import transformers

from encoder.errors import InvalidInput
from encoder.model import EncoderModel
from encoder.model_config import DEFAULT_MODEL_FOLDER
from encoder.text_encoder import TextEncoder
from encoder.tokenizer import Tokenizer
from encoder.training.batches import TokenStore, WindowSampler
from encoder.training.corpus import PackedTexts, prepare
from encoder.training.distill import DistillConfig, distill, read_config
from encoder.training.finetune import FinetuneConfig, finetune
from encoder.training.loop import DivergedError, LoopConfig, learning_rate_factor, train
from encoder.training.losses import cosine_loss, info_nce, relational_loss
from encoder.training.pairs import PairSampler
from encoder.training.teacher import Teacher
from tests.tiny_model import tiny_config

CPU = torch.device("cpu")
TOPICS = ("apples and pears", "ships at sea", "snow in winter", "engines of cars")


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Raw training files in every supported form."""
    root = tmp_path_factory.mktemp("sources")
    for name in ("train", "text", "questions"):
        (root / name).mkdir()
    pairs = [
        {
            "query": f"tell me of {topic} {n}",
            "positive": f"Here is what is known of {topic}, part {n}.",
            "title": "Facts",
        }
        for n in range(10)
        for topic in TOPICS
    ]
    with lzma.open(root / "train" / "facts.jsonl.xz", "wt") as file:
        file.writelines(json.dumps(row) + "\n" for row in pairs)
    whole = [{"query": f"about {topic}", "doc_id": topic} for topic in TOPICS]
    (root / "train" / "stories.jsonl").write_text("".join(json.dumps(row) + "\n" for row in whole))
    stories = [
        {"doc_id": topic, "title": "", "text": ("Nothing of note. " * 40) + f"Then there were {topic}. " * 10}
        for topic in TOPICS
    ]
    (root / "train" / "stories.docs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in stories))
    texts = [{"text": f"A long text about {topic}. It goes on. " * 30} for topic in TOPICS]
    (root / "text" / "texts.jsonl").write_text("".join(json.dumps(row) + "\n" for row in texts))
    questions = [{"text": f"Where are {topic}?"} for topic in TOPICS]
    (root / "questions" / "asked.jsonl").write_text("".join(json.dumps(row) + "\n" for row in questions))
    return root


@pytest.fixture(scope="module")
def corpus(sources: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("corpus")
    prepare([sources / name for name in ("train", "text", "questions")], out, DEFAULT_MODEL_FOLDER, processes=1)
    return out


@pytest.fixture(scope="module")
def teacher(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A BERT of the teacher's kind with random weights, written by transformers."""
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("teacher")
    config = transformers.BertConfig(
        hidden_size=32, num_hidden_layers=1, num_attention_heads=2, intermediate_size=64, max_position_embeddings=300
    )
    transformers.BertModel(config).save_pretrained(folder)
    return folder


def test_corpus_holds_each_text_once(corpus: Path) -> None:
    tokenizer = Tokenizer.load(DEFAULT_MODEL_FOLDER)
    queries = PackedTexts.load(corpus / "train-facts.queries.npz")
    positives = PackedTexts.load(corpus / "train-facts.positives.npz")
    pairs = np.load(corpus / "train-facts.pairs.npy")
    assert len(queries) == len(positives) == len(pairs) == 40
    first = queries.ids[queries.starts[0] : queries.starts[1]]
    assert tokenizer.decode(first.tolist()) == "tell me of apples and pears 0"
    answer = positives.ids[positives.starts[0] : positives.starts[1]]
    assert tokenizer.decode(answer.tolist()).startswith("facts here is what is known of apples")
    assert len(PackedTexts.load(corpus / "train-stories.positives.npz")) == len(TOPICS)
    assert (corpus / "questions-asked.queries.npz").exists()
    assert (corpus / "text-texts.texts.npz").exists()


def test_bad_rows_name_file_and_line(tmp_path: Path) -> None:
    (tmp_path / "train").mkdir()
    bad = tmp_path / "train" / "bad.jsonl"
    bad.write_text('{"query": "a", "positive": "b"}\n{"query": \n')
    with pytest.raises(InvalidInput, match=r"bad\.jsonl, line 2"):
        prepare([tmp_path / "train"], tmp_path / "out", DEFAULT_MODEL_FOLDER, processes=1)


def test_windows_begin_at_sentences_and_stay_in_their_text() -> None:
    stop = 7
    pack = PackedTexts.pack([[1, 2, stop, 3, 4, 5], [8, 9, stop, 10, 11, 12]])
    sampler = WindowSampler(TokenStore(pack, CPU), torch.tensor([stop]), shortest=2)
    batch = sampler.sample(200, 4, torch.Generator().manual_seed(0))
    rows = {tuple(row[:length].tolist()) for row, length in zip(batch.tokens, batch.lengths, strict=True)}
    assert {row[0] for row in rows} == {1, 3, 8, 10}
    assert all(not (set(row) & {1, 2, 3, 4, 5} and set(row) & {8, 9, 10, 11, 12}) for row in rows)
    tokens, ends = batch.with_eos(99)
    assert (tokens.gather(1, ends[:, None]) == 99).all()
    assert ((tokens == 99).sum(1) == 1).all()


def test_losses_know_right_from_wrong() -> None:
    eye = torch.eye(4)
    assert cosine_loss(eye, eye).item() == pytest.approx(0)
    assert cosine_loss(eye, -eye).item() == pytest.approx(2)
    assert relational_loss((eye, eye), (eye, eye), 0.05, skip_diagonal=True).item() == pytest.approx(0, abs=1e-6)
    turned = eye.roll(1, 0)
    assert relational_loss((eye, turned), (eye, eye), 0.05, skip_diagonal=False).item() > 1
    assert info_nce(eye, eye, 0.05).item() == pytest.approx(0, abs=1e-6)
    assert info_nce(eye, turned, 0.05).item() > 10
    # pairs marked as the same are no negatives
    assert info_nce(eye, turned, 0.05, torch.ones(4, 4, dtype=torch.bool)).item() == pytest.approx(0, abs=1e-6)


def test_learning_rate_rises_then_falls_to_zero() -> None:
    factors = [learning_rate_factor(step, step / 100, 10) for step in range(101)]
    assert factors[0] == pytest.approx(0.1)
    assert max(factors) == factors[9]
    assert factors[100] == pytest.approx(0, abs=1e-9)


def run_configs(corpus: Path, teacher: Path, out: Path) -> tuple[DistillConfig, FinetuneConfig]:
    distillation = DistillConfig.model_validate(
        {
            "corpus": corpus,
            "teacher": teacher,
            "tokenizer": DEFAULT_MODEL_FOLDER,
            "out": out / "distilled",
            "device": "cpu",
            "model": tiny_config(vocabulary_size=30522, projection_dim=32).model_dump(),
            "loop": {"steps": 30, "learning_rate": 3e-3, "warmup_steps": 5, "compile": False},
            "mix": [
                {"source": "queries", "width": 32, "batch_size": 16, "weight": 1},
                {"source": "texts", "width": 64, "batch_size": 8, "weight": 1},
            ],
        }
    )
    contrastive = FinetuneConfig.model_validate(
        {
            "corpus": corpus,
            "teacher": teacher,
            "start": out / "distilled",
            "out": out / "finetuned",
            "device": "cpu",
            "loop": {"steps": 30, "learning_rate": 3e-3, "warmup_steps": 5, "compile": False},
            "batch_size": 16,
            "query_widths": [32, 64],
            "positive_widths": [64, 128],
            "smallest_bucket": 4,
            "mix": [{"source": "queries", "width": 32, "batch_size": 16, "weight": 1}],
        }
    )
    return distillation, contrastive


def logged(out: Path, key: str) -> list[float]:
    rows = [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]
    return [row[key] for row in rows if key in row]


def test_both_stages_learn_and_leave_a_usable_model(corpus: Path, teacher: Path, tmp_path: Path) -> None:
    distillation, contrastive = run_configs(corpus, teacher, tmp_path)
    assert distill(distillation)
    assert finetune(contrastive)
    encoder = TextEncoder.load(contrastive.out, device="cpu")
    queries = encoder.encode_queries([f"tell me of {topic} 3" for topic in TOPICS]).embeddings
    passages = encoder.encode_passages([f"Facts\nHere is what is known of {topic}, part 3." for topic in TOPICS])
    assert (queries @ passages.embeddings.T).argmax(1).tolist() == list(range(len(TOPICS)))


def test_long_positives_are_read_where_the_answer_stands(corpus: Path, teacher: Path) -> None:
    tokenizer = Tokenizer.load(DEFAULT_MODEL_FOLDER)
    sampler = PairSampler(corpus, (32,), (64,), 4, CPU)
    before = sampler.begins.clone()
    sampler.choose_windows(Teacher(teacher, CPU, 101, 102))
    moved = torch.nonzero(sampler.begins != before).squeeze(1)
    long = sampler.positives.lengths[sampler.pairs[:, 1]] > 63
    assert len(moved) > 0
    assert long[moved].all()
    batch = sampler.draw(8, torch.Generator().manual_seed(1))
    for query, number in zip(batch.queries.tokens, batch.query_numbers, strict=True):
        start, end = sampler.queries.starts[number], sampler.queries.starts[number + 1]
        assert query[: end - start].tolist() == sampler.queries.ids[start:end].tolist()
    assert tokenizer.decode(batch.positives.tokens[0].tolist())


def test_interrupted_run_resumes_and_ends_like_an_uninterrupted_one(tmp_path: Path) -> None:
    """Batches come from the step's number, so 6 steps are 3 and 3."""

    def run(out: Path, interrupt_at: int | None) -> EncoderModel:
        torch.manual_seed(0)
        model = EncoderModel(tiny_config())

        def losses(step: int, generator: torch.Generator) -> tuple[dict[str, torch.Tensor], int]:
            tokens = torch.randint(0, 100, (4, 16), generator=generator)
            target = torch.nn.functional.normalize(torch.randn(4, 24, generator=generator), dim=-1)
            found = model(tokens, torch.full((4,), 15), torch.float32)
            if step + 1 == interrupt_at:
                signal.raise_signal(signal.SIGTERM)
            return {"cosine": cosine_loss(found, target)}, 64

        complete = train(model, LoopConfig(steps=6, learning_rate=1e-2, warmup_steps=1, compile=False), out, losses)
        assert complete == (interrupt_at is None)
        return model

    whole = run(tmp_path / "whole", None)
    run(tmp_path / "resumed", 3)
    resumed = run(tmp_path / "resumed", None)
    for name, value in whole.state_dict().items():
        torch.testing.assert_close(resumed.state_dict()[name], value, msg=name)


def test_diverging_loss_stops_with_the_last_state_kept(tmp_path: Path) -> None:
    model = EncoderModel(tiny_config())

    def losses(step: int, _generator: torch.Generator) -> tuple[dict[str, torch.Tensor], int]:
        value = torch.stack([p.sum() for p in model.parameters()]).sum()
        return {"loss": value * (float("nan") if step == 2 else 0.0)}, 1

    with pytest.raises(DivergedError, match="step 3"):
        train(model, LoopConfig(steps=5, learning_rate=1e-3, compile=False), tmp_path, losses)


def test_configurations_in_the_repository_are_valid() -> None:
    folder = Path(__file__).parents[1] / "encoder" / "training" / "configs"
    assert isinstance(read_config(folder / "distill.toml", DistillConfig), DistillConfig)
    assert isinstance(read_config(folder / "finetune.toml", FinetuneConfig), FinetuneConfig)


def test_configuration_errors_name_the_key(tmp_path: Path) -> None:
    path = tmp_path / "run.toml"
    path.write_text('corpus = "x"\nsurprise = 1\n')
    with pytest.raises(InvalidInput, match=r"run\.toml"):
        read_config(path, FinetuneConfig)
    with pytest.raises(InvalidInput, match="cannot be read"):
        read_config(tmp_path / "none.toml", FinetuneConfig)
