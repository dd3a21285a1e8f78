"""The training loop on tiny models: it learns, resumes exactly, stops when it diverges, saves when interrupted."""

import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from encoder.errors import CheckpointError, InvalidInput
from encoder.text_encoder import TextEncoder
from encoder.training import loop
from encoder.training.config import TrainConfig, check_config
from encoder.training.feeding import Batch, Feed
from encoder.training.loop import DivergedError, train
from encoder.training.optimizing import learning_rate_factor
from tests.tiny_model import save_tiny_model
from tests.tiny_teacher import save_tiny_teacher
from tests.training_data import (
    TOPICS,
    distill_task,
    documents_task,
    logged,
    pairs_task,
    train_config,
    write_sources,
)
from tests.training_sets import write_rows


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_sources(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="module")
def teacher(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_teacher(tmp_path_factory.mktemp("teacher"))


def weights(out: Path) -> dict[str, torch.Tensor]:
    state = torch.load(out / "state.pt", weights_only=True)
    return {f"{model}.{name}": value for model, found in state["weights"].items() for name, value in found.items()}


def changed(config: TrainConfig, **changes: object) -> TrainConfig:
    return check_config("test.toml", config.model_dump(mode="json", exclude_none=True) | changes)


def test_it_learns_and_leaves_a_usable_model(data: Path, teacher: Path, tmp_path: Path) -> None:
    tasks = [
        pairs_task(negatives=1, matryoshka=[16], false_negative_margin=0.3),
        distill_task(weight=0.1, sources=["texts"], texts="windows", widths=[32], cosine_weight=0.1),
    ]
    config = train_config(
        data, teacher, tasks, out=tmp_path, run={"steps": 60}, optimizer={"learning_rate": 1e-2, "warmup_steps": 5}
    )
    assert train(config)
    encoder = TextEncoder.load(tmp_path, device="cpu")
    queries = encoder.encode_queries([f"tell me of {topic} 3" for topic in TOPICS]).embeddings
    passages = encoder.encode_passages([f"Facts\nHere is what is known of {topic}, part 3." for topic in TOPICS])
    assert (queries @ passages.embeddings.T).argmax(1).tolist() == list(range(len(TOPICS)))
    rows = logged(tmp_path)
    assert [row["step"] for row in rows] == [1, 2, 3, *range(5, 61, 5)]
    learnt = [row["loss/pairs_info_nce"] for row in rows if "loss/pairs_info_nce" in row]
    assert learnt[-1] < learnt[0] / 2
    assert any("loss/distill_windows_cosine" in row for row in rows)
    assert all(row["tokens_per_s"] > 0 and 0 <= row["padding"] < 1 for row in rows)
    assert (tmp_path / "loss.svg").read_text().startswith("<?xml")
    events = EventAccumulator(str(tmp_path / "events"))
    events.Reload()
    assert [event.step for event in events.Scalars("loss")] == [row["step"] for row in rows]


def test_twenty_steps_are_ten_and_ten(data: Path, teacher: Path, tmp_path: Path) -> None:
    tasks = [pairs_task(cosine_weight=1.0, relational_weight=0.5), distill_task(), documents_task(weight=0.5)]
    whole = train_config(data, teacher, tasks, out=tmp_path / "whole")
    parts = train_config(data, teacher, tasks, out=tmp_path / "parts")
    assert train(whole)
    assert not train(parts, stop_after=10)
    assert train(parts)
    first, second = weights(whole.out), weights(parts.out)
    assert first.keys() == second.keys()
    assert all(torch.equal(first[name], second[name]) for name in first)
    figures = [{key: row[key] for key in ("step", "loss", "gradient_norm", "tokens")} for row in logged(whole.out)]
    assert [{key: row[key] for key in figures[0]} for row in logged(parts.out)] == figures
    assert train(whole)  # complete already: nothing changes
    assert logged(whole.out)[-1]["step"] == 20


def test_muon_and_two_teachers_go_on_exactly_too(data: Path, teacher: Path, tmp_path: Path) -> None:
    tasks = [distill_task(), distill_task(sources=["texts"], texts="windows", widths=[64])]
    other = save_tiny_teacher(tmp_path / "other", width=48, kind="mpnet")
    config = train_config(
        data,
        teacher,
        tasks,
        run={"pack_tokens": 128, "steps": 8},
        optimizer={"kind": "muon", "learning_rate": 3e-3, "warmup_steps": 2},
    )
    both = {"folder": [str(teacher), str(other)], "dimension": 32}
    whole = changed(config, out=str(tmp_path / "whole"), teacher=both)
    parts = changed(config, out=str(tmp_path / "parts"), teacher=both)
    assert train(whole)
    assert not train(parts, stop_after=3)
    assert train(parts)
    first, second = weights(whole.out), weights(parts.out)
    assert all(torch.equal(first[name], second[name]) for name in first)
    rows = logged(whole.out)
    learnt = [row["loss/distill_windows_cosine"] for row in rows if "loss/distill_windows_cosine" in row]
    assert learnt[-1] < learnt[0]


@pytest.mark.parametrize("kind", ["adamw", "muon"])
def test_embeddings_may_change_less_than_the_rest(kind: str, data: Path, teacher: Path, tmp_path: Path) -> None:
    def moved(share: float) -> dict[str, float]:
        config = train_config(
            data,
            teacher,
            [distill_task()],
            out=tmp_path / f"share-{share}",
            run={"steps": 3},
            optimizer={"kind": kind, "learning_rate": 1e-3, "warmup_steps": 1, "embedding_share": share},
        )
        assert not train(config, stop_after=1)
        before = weights(config.out)
        assert not train(config, stop_after=1)
        return {name: float((value - before[name]).norm()) for name, value in weights(config.out).items()}

    whole, tenth, none = moved(1.0), moved(0.1), moved(0.0)
    name = "shared.backbone.embedding.weight"
    assert none[name] == 0
    assert tenth[name] == pytest.approx(whole[name] / 10, rel=0.3)
    assert none["shared.backbone.layers.0.mixer.in_proj.weight"] > 0


def _train_in_process(rank: int, config: TrainConfig, meeting: Path) -> None:
    torch.distributed.init_process_group("gloo", init_method=f"file://{meeting}", rank=rank, world_size=2)
    assert not train(config, stop_after=2)
    assert train(config)
    torch.distributed.destroy_process_group()


def test_two_processes_learn_what_one_does_from_both_batches(data: Path, teacher: Path, tmp_path: Path) -> None:
    task = pairs_task(query_widths=[32], passage_widths=[64], relational_weight=0.5, cosine_weight=0.5)
    one = train_config(data, teacher, [task | {"batch_size": 8}], out=tmp_path / "one", run={"steps": 4})
    two = train_config(data, teacher, [task | {"batch_size": 4}], out=tmp_path / "two", run={"steps": 4})
    assert train(one)
    torch.multiprocessing.spawn(_train_in_process, (two, tmp_path / "meeting"), nprocs=2)
    first, second = weights(one.out), weights(two.out)
    for name, value in first.items():
        torch.testing.assert_close(second[name], value, rtol=0, atol=1e-5, msg=name)
    for row, other in zip(logged(one.out), logged(two.out), strict=True):
        assert row["loss"] == pytest.approx(other["loss"], abs=1e-5)
        assert row["tokens"] == pytest.approx(
            other["tokens"], rel=0.05
        )  # the second process's are taken for the first's


def test_batches_made_in_other_processes_are_the_same(data: Path, tmp_path: Path) -> None:
    here = train_config(data, None, [pairs_task()], out=tmp_path / "here", run={"steps": 4})
    beside = train_config(data, None, [pairs_task()], out=tmp_path / "beside", run={"steps": 4, "workers": 2})
    assert train(here)
    assert train(beside)
    first, second = weights(here.out), weights(beside.out)
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_slices_of_a_batch_teach_the_same(data: Path, tmp_path: Path) -> None:
    whole = train_config(data, None, [pairs_task(negatives=1)], out=tmp_path / "whole", run={"steps": 3})
    sliced = train_config(
        data, None, [pairs_task(negatives=1)], out=tmp_path / "sliced", run={"steps": 3, "slice_tokens": 128}
    )
    assert train(whole)
    assert train(sliced)
    for one, other in zip(logged(whole.out), logged(sliced.out), strict=True):
        assert one["loss"] == pytest.approx(other["loss"], rel=1e-3)
        assert one["gradient_norm"] == pytest.approx(other["gradient_norm"], rel=1e-2)


def test_interrupted_it_saves_and_goes_on(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = train_config(data, None, [pairs_task()], out=tmp_path / "parts", run={"steps": 6})
    batches = Feed.batches

    def interrupted(self: Feed, first: int, last: int, device: torch.device) -> Iterator[Batch]:
        for number, batch in enumerate(batches(self, first, last, device)):
            if number == 2:
                signal.raise_signal(signal.SIGINT)
            yield batch

    monkeypatch.setattr(Feed, "batches", interrupted)
    assert not train(config)
    assert torch.load(config.out / "state.pt", weights_only=True)["step"] == 3
    monkeypatch.setattr(Feed, "batches", batches)
    assert train(config)
    assert logged(config.out)[-1]["step"] == 6
    whole = train_config(data, None, [pairs_task()], out=tmp_path / "whole", run={"steps": 6})
    assert train(whole)
    first, second = weights(whole.out), weights(config.out)
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_queries_and_passages_may_have_models_of_their_own(data: Path, tmp_path: Path) -> None:
    start = save_tiny_model(tmp_path / "start", projection_dim=32)
    config = train_config(
        data, None, [pairs_task()], out=tmp_path / "out", run={"steps": 3}, model={"start": start, "separate": True}
    )
    assert train(config)
    query, passage = (TextEncoder.load(config.out / name, device="cpu") for name in ("query", "passage"))
    text = ["ships at sea"]
    before = TextEncoder.load(start, device="cpu").encode_queries(text).embeddings
    found = query.encode_queries(text).embeddings, passage.encode_queries(text).embeddings
    assert abs(found[0] - found[1]).max() > 1e-4
    assert abs(found[0] - before).max() > 1e-4


def test_the_passages_own_model_is_checked_as_that_of_queries_is(data: Path, teacher: Path, tmp_path: Path) -> None:
    start = save_tiny_model(tmp_path / "start", projection_dim=32)
    for changes, error, message in (
        ({"bidirectional": True}, InvalidInput, r"tasks\.0 is documents, which tiny, being bidirectional"),
        (
            {"bos_token": "[CLS]"},
            CheckpointError,
            r"with \('\[CLS\]', '\[SEP\]'\); give models with the same bos_token",
        ),
    ):
        other = save_tiny_model(tmp_path / next(iter(changes)), projection_dim=32, **changes)
        model = {"start": start, "separate": True, "passage_start": other}
        with pytest.raises(error, match=message):
            train(train_config(data, teacher, [documents_task()], out=tmp_path / "out", model=model))


def test_diverging_it_stops_with_the_last_good_state_kept(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = train_config(data, None, [pairs_task()], out=tmp_path, run={"steps": 40, "checkpoint_every_s": 1e-6})
    pairs_step, count = loop.pairs_step, 0

    def poisoned(*arguments: object) -> loop.Step:
        nonlocal count
        count += 1
        step = pairs_step(*arguments)  # type: ignore[arg-type]
        factor = float("nan") if count == 7 else 1.0
        return loop.Step(step.readings, lambda found: {"loss": step.losses_of(found)["info_nce"] * factor})

    monkeypatch.setattr(loop, "pairs_step", poisoned)
    with pytest.raises(DivergedError, match=r"no longer finite at step 7; .*state\.pt holds the last good state"):
        train(config)
    assert torch.load(tmp_path / "state.pt", weights_only=True)["step"] == 6
    assert all(value.isfinite().all() for value in weights(tmp_path).values())


def test_a_state_of_another_run_is_refused(data: Path, teacher: Path, tmp_path: Path) -> None:
    config = train_config(data, None, [pairs_task()], out=tmp_path, run={"steps": 2})
    assert train(config)
    with pytest.raises(InvalidInput, match=r"state\.pt belongs to a run with another tasks"):
        train(changed(config, tasks=[pairs_task(batch_size=4)]))
    with pytest.raises(InvalidInput, match=r"state\.pt belongs to a run with another teacher"):
        train(changed(config, teacher={"folder": teacher}))
    fresh = config.model_dump(mode="json", exclude_none=True)["model"]["fresh"]
    other = {"fresh": fresh | {"d_state": 8}, "tokenizer": "default"}
    with pytest.raises(CheckpointError, match=r"state\.pt holds a model with d_state = 16, .* asks for 8"):
        train(changed(config, model=other))
    separate = {"fresh": fresh, "tokenizer": "default", "separate": True}
    with pytest.raises(CheckpointError, match="one model where the configuration asks for two"):
        train(changed(config, model=separate))
    (tmp_path / "state.pt").write_bytes(b"no state")
    with pytest.raises(CheckpointError, match=r"state\.pt is not a training state"):
        train(config)


def test_what_cannot_be_learnt_is_refused_before_the_first_step(data: Path, teacher: Path, tmp_path: Path) -> None:
    fresh = train_config(data, None, [pairs_task()]).model_dump(mode="json", exclude_none=True)["model"]["fresh"]
    narrow = {"fresh": fresh | {"projection_dim": 24}, "tokenizer": "default"}
    with pytest.raises(InvalidInput, match=r"tasks\.0\.cosine_weight compares embeddings of 24 .* teacher's of 32"):
        train(train_config(data, teacher, [distill_task()], out=tmp_path, model=narrow))
    with pytest.raises(InvalidInput, match=r"tasks\.0\.matryoshka holds 64"):
        train(train_config(data, None, [pairs_task(matryoshka=[64])], out=tmp_path))
    with pytest.raises(
        InvalidInput, match=r"tasks\.0\.batch_size is 1, so that no passage is another query's negative"
    ):
        train(train_config(data, None, [pairs_task(batch_size=1)], out=tmp_path))
    with pytest.raises(InvalidInput, match="'questions' has no query with a positive"):
        train(train_config(data, None, [pairs_task(sources=["questions"])], out=tmp_path, run={"workers": 2}))


@pytest.mark.parametrize(
    ("rows", "task", "only"),
    [
        ([("a", "one")], {}, "query"),
        ([("a", "one")], {"negatives": 1}, "query"),
        ([("a", "one"), ("a", "two")], {}, "query"),
        ([("a", "one"), ("b", "one")], {}, "passage"),
        ([("a", "one"), ("b", "two")], {}, None),
        ([("a", "one", "two")], {}, "query"),
        ([("a", "one", "two")], {"negatives": 1}, None),
        ([("a", "one", "two"), ("b", "one")], {"negatives": 1}, None),
    ],
)
def test_pairs_that_leave_nothing_to_tell_apart_are_refused(
    tmp_path: Path, rows: list[tuple[str, ...]], task: dict[str, int], only: str | None
) -> None:
    path = tmp_path / "few.jsonl"
    write_rows(path, [{"query": query, "positive": found, "negatives": rest} for query, found, *rest in rows])
    source = {"name": "few", "format": "jsonl", "path": path}
    config = train_config(
        tmp_path, None, [pairs_task(**task, sources=["few"], batch_size=2)], sources=[source], run={"steps": 1}
    )
    if only:
        with pytest.raises(InvalidInput, match=f"the pairs of source 'few' have only one {only}, so that"):
            train(config)
    else:
        assert train(config)
        assert logged(config.out)[0]["loss"] > 0


def test_epochs_become_steps(data: Path, tmp_path: Path) -> None:
    config = train_config(data, None, [pairs_task()], out=tmp_path, run={"steps": None, "epochs": 2})
    assert train(config)
    assert logged(tmp_path)[-1]["step"] == 10  # 40 pairs in batches of 8, twice


def test_it_ends_when_its_time_is_over(data: Path, tmp_path: Path) -> None:
    config = train_config(data, None, [pairs_task()], out=tmp_path, run={"steps": 10_000, "minutes_max": 0.02})
    assert train(config)
    rows = logged(tmp_path)
    assert 0 < rows[-1]["step"] < 10_000
    assert rows[-1]["progress"] > 0.3  # of the time: the last row comes some steps before the end
    assert train(config)  # nothing is left to do
    assert logged(tmp_path)[-1] == rows[-1]


def test_learning_rate_rises_then_falls_to_zero() -> None:
    factors = [learning_rate_factor(step, step / 100, 10) for step in range(101)]
    assert factors[0] == pytest.approx(0.1)
    assert max(factors) == factors[9]
    assert factors[100] == pytest.approx(0, abs=1e-9)
