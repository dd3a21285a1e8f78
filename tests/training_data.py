"""A small world to train on: questions and passages about four topics, stories of which one part answers, a teacher."""

import json
from pathlib import Path
from typing import Any

import torch

from encoder.training.config import TrainConfig, check_config
from encoder.training.ranks import Ranks
from tests.tiny_model import tiny_config
from tests.training_sets import write_rows

ALONE = Ranks(0, 1, torch.device("cpu"))
TOPICS = ("apples and pears", "ships at sea", "snow in winter", "engines of cars")


def write_sources(root: Path) -> Path:
    """Write pairs, questions without answers, texts, and documents with questions."""
    write_rows(
        root / "pairs" / "facts.jsonl.xz",
        [
            {
                "query": f"tell me of {topic} {n}",
                "positive": f"Here is what is known of {topic}, part {n}.",
                "title": "Facts",
                "negatives": [f"Nothing is known of them in part {n}."],
            }
            for n in range(10)
            for topic in TOPICS
        ],
    )
    write_rows(root / "questions.jsonl", [{"text": f"Where are {topic} {n}?"} for n in range(8) for topic in TOPICS])
    write_rows(root / "texts.jsonl", [{"text": f"A long text about {topic}. It goes on. " * 30} for topic in TOPICS])
    write_rows(root / "stories.jsonl", [{"query": f"about {topic}", "doc_id": topic} for topic in TOPICS])
    write_rows(
        root / "stories.docs.jsonl",
        [{"doc_id": topic, "title": "", "text": _story(topic, number)} for number, topic in enumerate(TOPICS)],
    )
    return root


def _story(topic: str, number: int) -> str:
    days = [f"On day {day + 40 * number} nothing of note was seen. " for day in range(60)]
    days[15 * number + 7 : 15 * number + 7] = [f"Then there were {topic}. "] * 8
    return "".join(days)


def train_config(root: Path, teacher: Path | None, tasks: list[dict[str, Any]], **changes: Any) -> TrainConfig:
    """A run of a tiny model over the sources in ``root``, on the CPU; ``run`` changes keys of its table."""
    values: dict[str, Any] = {
        "out": root / "out",
        "cache": root / "cache",
        "processes": 1,
        "device": "cpu",
        "model": {
            "fresh": tiny_config(vocabulary_size=30522, projection_dim=32).model_dump(),
            "tokenizer": "default",
        },
        "optimizer": {"learning_rate": 3e-3, "warmup_steps": 5},
        "run": {"steps": 20, "log_every": 5, "dtype": "float32"} | changes.pop("run", {}),
        "sources": [
            {"name": "pairs", "format": "jsonl", "path": root / "pairs"},
            {"name": "questions", "format": "jsonl", "path": root / "questions.jsonl", "texts": "queries"},
            {"name": "texts", "format": "jsonl", "path": root / "texts.jsonl"},
            {"name": "stories", "format": "jsonl", "path": root / "stories.jsonl"},
        ],
        "tasks": tasks,
    }
    if teacher is not None:
        values["teacher"] = {"folder": teacher}
    return check_config("test.toml", values | changes)


def pairs_task(**changes: Any) -> dict[str, Any]:
    return {
        "kind": "pairs",
        "sources": ["pairs"],
        "batch_size": 8,
        "query_widths": [16, 32],
        "passage_widths": [32, 64],
    } | changes


def distill_task(**changes: Any) -> dict[str, Any]:
    return {
        "kind": "distill",
        "sources": ["questions"],
        "texts": "queries",
        "batch_size": 8,
        "widths": [16, 32],
    } | changes


def documents_task(**changes: Any) -> dict[str, Any]:
    return {
        "kind": "documents",
        "sources": ["stories"],
        "batch_size": 2,
        "widths": [512, 1024],
        "query_widths": [16, 32],
    } | changes


def logged(out: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]
