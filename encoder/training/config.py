"""What a training run is, as a TOML file says it. One file serves one process, torchrun and Ray Train. No torch here.

Paths are relative to the folder that the command runs in. Unknown keys are refused.
"""

from __future__ import annotations

import os
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import pydantic

from encoder.errors import InvalidInput
from encoder.model_config import DEFAULT_MODEL_FOLDER, ModelConfig
from encoder.training.mining_config import MiningConfig
from encoder.training.sources import SourceConfig

CONFIGS_FOLDER = Path(__file__).parent / "configs"

Width = Annotated[int, pydantic.Field(ge=16, multiple_of=16)]  # tokens of a row, special ones included


def _check_rising(widths: tuple[int, ...]) -> tuple[int, ...]:
    if not widths or list(widths) != sorted(set(widths)):
        raise ValueError(f"widths must rise, and there must be one at least; they are {list(widths)}")
    return widths


Widths = Annotated[tuple[Width, ...], pydantic.AfterValidator(_check_rising)]


def _as_list(given: object) -> object:
    return given if isinstance(given, list | tuple) else [given]


class _Table(pydantic.BaseModel):
    model_config = pydantic.ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class ModelTable(_Table):
    """What is trained: a model folder (``start``) further, or a ``fresh`` one from random weights."""

    start: Path | None = None  # folder or hub id; "default" is the model that ships
    fresh: ModelConfig | None = None
    tokenizer: Path | None = None  # of a fresh model: a folder with tokenizer.json, or "default"
    separate: bool = False  # queries and passages get a model each
    passage_start: Path | None = None  # what the passages' own model starts from; default: as the queries'

    @pydantic.model_validator(mode="after")
    def _check(self) -> ModelTable:
        if (self.start is None) == (self.fresh is None):
            raise ValueError("give either start or fresh")
        if (self.fresh is None) != (self.tokenizer is None):
            raise ValueError("fresh needs a tokenizer, and start brings its own")
        if self.passage_start is not None and not (self.separate and self.start):
            raise ValueError("passage_start needs separate = true and a start")
        return self

    @property
    def start_folder(self) -> Path | None:
        """Where the model starts from."""
        return _model_folder(self.start)

    @property
    def passage_folder(self) -> Path | None:
        """Where the passages' model starts from."""
        return _model_folder(self.passage_start) or self.start_folder

    @property
    def tokenizer_folder(self) -> Path:
        """Where the tokenizer is."""
        found = _model_folder(self.tokenizer) or self.start_folder
        assert found is not None  # one of them is given
        return found


class TeacherTable(_Table):
    """Whose embeddings are learnt from: any sentence-transformers model, or several, whose cosines' mean is learnt."""

    folder: Annotated[tuple[Path, ...], pydantic.BeforeValidator(_as_list), pydantic.Field(min_length=1)]
    weights: tuple[pydantic.PositiveFloat, ...] | None = None  # of each in the mean; default: all alike
    # Their embeddings, side by side, are turned and cut to so many numbers, those that say most of a sample of texts.
    dimension: int | None = pydantic.Field(default=None, ge=1)
    # Of these numbers, how much those that say less are raised towards the others: 0 not at all, 1 to the same spread.
    # A student gets wrong first what is told apart by little, and ranking is telling apart.
    whitening: float = pydantic.Field(default=0.0, ge=0, le=1)
    tokens_max: int | None = pydantic.Field(default=None, ge=8)  # default: what the teacher itself says
    batch_tokens: int = pydantic.Field(default=262_144, ge=512)  # that it reads at once
    compile: bool = False

    @pydantic.model_validator(mode="after")
    def _check(self) -> TeacherTable:
        if self.whitening and self.dimension is None:
            raise ValueError("whitening raises the numbers that dimension leaves; give a dimension, too")
        if self.weights is not None and len(self.weights) != len(self.folder):
            raise ValueError(f"there are {len(self.weights)} weights for {len(self.folder)} folders; give each one")
        return self


class OptimizerTable(_Table):
    """AdamW or Muon, a linear warm-up, then half a cosine down to nothing."""

    kind: Literal["adamw", "muon"] = "adamw"  # Muon: of the layers' matrices, AdamW of all else
    learning_rate: float = pydantic.Field(gt=0)
    # Of it, what token embeddings change by: a rare token's gradients are few and loud, and a teacher's a good start.
    embedding_share: float = pydantic.Field(default=1.0, ge=0, le=1)
    warmup_steps: int = pydantic.Field(default=200, ge=0)
    weight_decay: float = pydantic.Field(default=0.01, ge=0)  # of matrices
    beta2: float = pydantic.Field(default=0.98, gt=0, lt=1)
    gradient_norm_max: float = pydantic.Field(default=1.0, gt=0)


class RunTable(_Table):
    """How long, with what, and how often something is written down."""

    steps: int | None = pydantic.Field(default=None, ge=1)
    epochs: float | None = pydantic.Field(default=None, gt=0)  # of the first task's examples
    minutes_max: float | None = pydantic.Field(default=None, gt=0)  # the schedule ends at whichever comes first
    seed: int = pydantic.Field(default=0, ge=0)
    dtype: Literal["auto", "bfloat16", "float32"] = "auto"  # of matrix products; weights are always float32
    compile: bool = False  # each layer, by torch.compile
    # Rows of so many tokens hold as many texts as fit, end to end: no padding, one shape. Default: a text a row.
    pack_tokens: int | None = pydantic.Field(default=None, ge=64, multiple_of=64)
    slice_tokens: int | None = pydantic.Field(default=None, ge=64)  # more than these are re-embedded in slices
    workers: int | None = pydantic.Field(default=None, ge=0)  # processes that make batches; default: 4 on a GPU, else 0
    log_every: int = pydantic.Field(default=50, ge=1)  # steps
    checkpoint_every_s: float = pydantic.Field(default=120, gt=0)

    @pydantic.model_validator(mode="after")
    def _check(self) -> RunTable:
        if (self.steps is None) == (self.epochs is None):
            raise ValueError("give either steps or epochs")
        return self


class _Task(_Table):
    """Batches of one kind and their losses; each step draws one task in proportion to ``weight``."""

    weight: float = pydantic.Field(default=1.0, gt=0)
    sources: tuple[str, ...] = ()  # names of [[sources]]; default: all of them
    # Queries of each process; of distillation and documents, texts of the widest width, and as many tokens of others.
    batch_size: int = pydantic.Field(ge=1)
    temperature: float = pydantic.Field(default=0.05, gt=0)
    matryoshka: tuple[pydantic.PositiveInt, ...] = ()  # widths of shortened embeddings that shall serve, too


class _ContrastTask(_Task):
    """InfoNCE of queries and passages, and beside it what the teacher thinks of the same."""

    negatives: int = pydantic.Field(default=0, ge=0)  # of each query, beside those of the batch
    info_nce_weight: float = pydantic.Field(default=1.0, ge=0)
    symmetric: bool = True  # passages find their queries, too
    # Given, what the teacher scores so much above the positive is no negative.
    false_negative_margin: float | None = pydantic.Field(default=None, ge=0)
    relational_weight: float = pydantic.Field(default=0.0, ge=0)
    words_weight: float = pydantic.Field(default=0.0, ge=0)  # of the overlap of words beside the teacher's cosines
    cosine_weight: float = pydantic.Field(default=0.0, ge=0)


class PairsTask(_ContrastTask):
    """Queries and passages that answer them, with in-batch and mined negatives."""

    kind: Literal["pairs"]
    query_widths: Widths = (32, 64, 256)
    passage_widths: Widths = (64, 128, 256)


class CropsTask(_ContrastTask):
    """Stretches of texts as queries for the texts, with in-batch negatives."""

    kind: Literal["crops"]
    negatives: Literal[0] = 0
    query_width: Width = 32  # of the longest crop
    crop_min: int = pydantic.Field(default=6, ge=2)  # tokens of the shortest
    removed: float = pydantic.Field(default=0.5, ge=0, le=1)  # share of crops that are taken out of their text
    widths: Widths = (64, 128, 256)  # of the texts


class DistillTask(_Task):
    """Texts, read alone, where the teacher places them."""

    kind: Literal["distill"]
    texts: Literal["queries", "passages", "windows"]  # whole queries, whole passages, stretches of long texts
    widths: Widths = (32, 64, 128, 256)
    cosine_weight: float = pydantic.Field(default=3.0, ge=0)
    relational_weight: float = pydantic.Field(default=1.0, ge=0)
    # Of each text, up to this share of the tokens become others, any of the vocabulary alike: most are rare in texts,
    # so rare that what the teacher makes of them is not learnt otherwise.
    replaced: float = pydantic.Field(default=0.0, ge=0, lt=1)


class RankingTask(_Task):
    """Fused rankings of mined candidates (teacher and BM25) as a distribution to learn."""

    kind: Literal["ranking"]
    query_widths: Widths = (32, 64, 256)
    passage_widths: Widths = (64, 128, 256)
    candidates: int = pydantic.Field(default=8, ge=2)
    target_temperature: float = pydantic.Field(default=1.0, gt=0)  # of the fused scores


class DocumentsTask(_Task):
    """Documents in one pass, an end-of-sequence token after each chunk, and losses on every chunk's embedding."""

    kind: Literal["documents"]
    widths: Widths = (512, 1024, 2048)  # tokens of a document in the batch
    piece_tokens: int = pydantic.Field(default=4096, ge=64, multiple_of=16)  # read at once; the state is carried on
    query_widths: Widths = (32, 64, 256)
    queries: int = pydantic.Field(default=2, ge=1)  # of each document, at most
    cosine_weight: float = pydantic.Field(default=1.0, ge=0)
    relational_weight: float = pydantic.Field(default=0.0, ge=0)  # of queries and chunks
    words_weight: float = pydantic.Field(default=0.0, ge=0)  # of the overlap of words beside the teacher's cosines
    info_nce_weight: float = pydantic.Field(default=1.0, ge=0)  # where documents have queries
    # Of a document's beginning, mostly its title: they stand before each later chunk, as the title does in an index.
    opening_tokens: int = pydantic.Field(default=0, ge=0, le=256)
    false_negative_margin: float = 0.05


Task = Annotated[
    PairsTask | CropsTask | DistillTask | RankingTask | DocumentsTask, pydantic.Field(discriminator="kind")
]


class TrainConfig(_Table):
    """A training run."""

    out: Path  # the model folder to make; checkpoints and logs stand beside the model
    cache: Path = Path("build/training-cache")  # token ids, mined negatives
    processes: int | None = pydantic.Field(default=None, ge=1)  # that tokenize, or mine; default: one a core
    device: str = "auto"
    model: ModelTable
    teacher: TeacherTable | None = None
    optimizer: OptimizerTable
    run: RunTable
    mining: MiningConfig = MiningConfig()
    sources: tuple[SourceConfig, ...] = pydantic.Field(min_length=1)
    tasks: tuple[Task, ...] = pydantic.Field(min_length=1)

    @pydantic.model_validator(mode="after")
    def _check(self) -> TrainConfig:
        names = [source.name for source in self.sources]
        for number, task in enumerate(self.tasks):
            for name in task.sources:
                if name not in names:
                    raise ValueError(f"tasks.{number}.sources names {name!r}; the [[sources]] are {', '.join(names)}")
            widest = max(_widths(task))
            if self.run.pack_tokens is not None and widest > self.run.pack_tokens:
                raise ValueError(
                    f"tasks.{number} reads texts of up to {widest} tokens, more than run.pack_tokens, "
                    f"{self.run.pack_tokens}"
                )
            if self.teacher is None and needs_teacher(task):
                raise ValueError(f"tasks.{number} learns from a teacher; give [teacher], or set its weights to 0")
            _check_weights(task, f"tasks.{number}")
        return self

    @property
    def process_count(self) -> int:
        """How many processes share the work on texts."""
        if self.processes is not None:
            return self.processes
        return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _widths(task: Task) -> tuple[int, ...]:
    """List the widths of what a task packs; documents in several pieces are not packed."""
    match task:
        case PairsTask() | RankingTask():
            return (*task.query_widths, *task.passage_widths)
        case CropsTask():
            return (task.query_width, *task.widths)
        case DistillTask():
            return task.widths
        case DocumentsTask():
            return (*task.query_widths, *(width for width in task.widths if width <= task.piece_tokens))


def _check_weights(task: Task, place: str) -> None:
    """Refuse tasks of no loss, and words that stand beside no similarities: they would be left out without a word."""
    if isinstance(task, RankingTask):
        return
    info_nce = 0.0 if isinstance(task, DistillTask) else task.info_nce_weight
    if not (info_nce or task.cosine_weight or task.relational_weight):
        raise ValueError(f"{place} has no weight above 0, so that nothing would be learnt; give one, or take it out")
    # Of documents the answers are chosen by them, too.
    judges = task.relational_weight or (info_nce if isinstance(task, DocumentsTask) else 0.0)
    if words_weight_of(task) and not judges:
        raise ValueError(f"{place}.words_weight adds to the teacher's similarities; give a relational_weight, too")


def words_weight_of(task: Task) -> float:
    """Say how much a task makes of common words."""
    return 0.0 if isinstance(task, DistillTask | RankingTask) else task.words_weight


def _model_folder(given: Path | None) -> Path | None:
    return DEFAULT_MODEL_FOLDER if given == Path("default") else given


def needs_teacher(task: Task) -> bool:
    """Tell whether a task asks the teacher for embeddings."""
    if isinstance(task, RankingTask):
        return False
    if isinstance(task, DocumentsTask) and task.info_nce_weight:
        return True  # it says which chunk of a document answers
    if isinstance(task, PairsTask | CropsTask) and task.false_negative_margin is not None:
        return True
    return bool(task.cosine_weight or task.relational_weight)


def read_config(path: Path, changes: Sequence[str] = ()) -> TrainConfig:
    """Read a configuration: a TOML file, or the name of one that ships.

    ``changes`` are ``key=value`` with dots in the key and TOML's form of the value, as in ``run.steps=100``.
    :class:`InvalidInput` names the file and the key at fault.
    """
    shipped = CONFIGS_FOLDER / f"{path}.toml"
    if not path.exists() and shipped.exists():
        path = shipped
    try:
        values = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not UTF-8"
        raise InvalidInput("config", f"{path} cannot be read ({reason}); give a training configuration.") from error
    except tomllib.TOMLDecodeError as error:
        raise InvalidInput("config", f"{path} is not TOML: {error}.") from error
    for change in changes:
        _change(values, change)
    return check_config(str(path), values)


def check_config(place: str, values: Mapping[str, Any]) -> TrainConfig:
    """Make a configuration of the values that stand at ``place``; :class:`InvalidInput` names it and the key."""
    try:
        return TrainConfig.model_validate(values)
    except pydantic.ValidationError as error:
        first = error.errors()[0]
        parts = list(first["loc"])
        if parts[:1] == ["tasks"]:
            del parts[2:3]  # the task's kind, which is no key of the file
        key = ".".join(str(part) for part in parts)
        raise InvalidInput(key or "config", f"{place}: {key}{': ' if key else ''}{_told(first)}.") from error


def _told(error: Mapping[str, Any]) -> str:
    """Say what pydantic found wrong with a key."""
    if error["type"] == "extra_forbidden":
        return "this table has no such key; take it out, or look for its name in docs/training.md"
    if error["type"] == "missing":
        return "the key is missing; give it a value"
    value = error.get("input")
    message: str = error["msg"].removeprefix("Value error, ")
    return message + (f", not {value!r}" if isinstance(value, str | int | float) else "")


def _change(values: dict[str, Any], change: str) -> None:
    key, equals, value = change.partition("=")
    if not equals or not key:
        raise InvalidInput("set", f"--set {change} is not KEY=VALUE.")
    try:
        found = tomllib.loads(f"value = {value}")["value"]
    except tomllib.TOMLDecodeError:
        found = value  # a bare word: a path, a name
    *tables, last = key.split(".")
    at: Any = values
    for name in tables:
        if isinstance(at, list):
            at = at[_place(at, name, change)]
        elif isinstance(at, dict):
            at = at.setdefault(name, {})
    if isinstance(at, list):
        at[_place(at, last, change)] = found
    elif isinstance(at, dict):
        at[last] = found
    else:
        raise InvalidInput("set", f"--set {change}: {'.'.join(tables)} is {at!r}, which has no keys.")


def _place(items: Sequence[object], name: str, change: str) -> int:
    if not name.isdecimal() or int(name) >= len(items):
        raise InvalidInput("set", f"--set {change}: {name} is not a place in a list of {len(items)}; the first is 0.")
    return int(name)
