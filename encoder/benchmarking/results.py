"""What ``mamba-search bench encoder`` measures, as lines of JSON: one model of a line per kind. Knows no torch."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Literal, TypeVar

import pydantic

from encoder.errors import InvalidInput
from encoder.jsonl import read_lines


class System(StrEnum):
    """Who is measured; the order is that of tables and legends."""

    FUSED = "fused"
    FUSED_FP8 = "fused-fp8"
    MAMBA_SSM = "mamba_ssm"
    CPU = "cpu"
    TORCH = "torch"
    MIXER = "mamba_ssm-mixer"
    HF_MAMBA2 = "transformers-mamba2"
    HF_MAMBA = "transformers-mamba"
    BERT = "bert"
    MODERNBERT = "modernbert"
    MODERNBERT_FLASH = "modernbert-flash"


TITLES = {
    System.FUSED: "fused",
    System.FUSED_FP8: "fused, FP8",
    System.MAMBA_SSM: "our blocks over mamba_ssm",
    System.CPU: "our kernels for CPUs",
    System.TORCH: "plain torch",
    System.MIXER: "mamba_ssm's MixerModel",
    System.HF_MAMBA2: "transformers Mamba2Model",
    System.HF_MAMBA: "transformers MambaModel",
    System.BERT: "BERT, SDPA",
    System.MODERNBERT: "ModernBERT, SDPA",
    System.MODERNBERT_FLASH: "ModernBERT, flash attention",
}
OURS = (System.FUSED, System.FUSED_FP8, System.MAMBA_SSM, System.CPU, System.TORCH)


class Part(StrEnum):
    """Parts of the benchmark."""

    CEILINGS = "ceilings"
    LENGTHS = "lengths"
    QUERIES = "queries"
    TEXTS = "texts"


class Machine(pydantic.BaseModel):
    """What it was measured on, and what was read."""

    kind: Literal["machine"] = "machine"
    device: str
    cuda: bool
    torch: str
    dtype: str
    model: str
    parameters: int
    batch_tokens: int


class Made(pydantic.BaseModel):
    """A contender, or why there is none."""

    kind: Literal["contender"] = "contender"
    system: System
    about: str = ""  # its size, or the path that computes it
    parameters: int | None = None
    skipped: str = ""  # the reason


class Cell(pydantic.BaseModel):
    """Passes of one contender over texts of one length. Without a figure, ``stopped`` says why."""

    kind: Literal["cell"] = "cell"
    system: System
    length: int  # tokens of a text
    rows: int  # texts of a pass
    passes: int = 0
    seconds: float | None = None  # of a pass: the median
    fastest: float | None = None
    slowest: float | None = None
    tokens_per_s: float | None = None
    latency_s: float | None = None  # of one text alone: the median
    peak_bytes: int | None = None  # of the device during a pass, weights included, were nobody else there
    stopped: str = ""


class MatrixRate(pydantic.BaseModel):
    """How fast the device multiplies ``(m, k)`` by ``(k, n)``."""

    what: str
    m: int
    k: int
    n: int
    flops_per_s: float | None
    fp8_flops_per_s: float | None = None
    fp8_missing: str = ""


class Ceilings(pydantic.BaseModel):
    """What the device can do, measured, and what follows for the model; see :mod:`encoder.benchmarking.ceilings`."""

    kind: Literal["ceilings"] = "ceilings"
    copy_bytes_per_s: float  # read and written
    rates: list[MatrixRate]
    bytes_per_token: int  # one read and one write of each activation
    bytes_per_token_fp8: int
    flops_per_token: int  # of the products with weights
    products_s_per_token: float | None
    products_s_per_token_fp8: float | None
    traffic_s_per_token: float
    traffic_s_per_token_fp8: float

    def seconds_per_token(self, system: System) -> tuple[float, float] | None:
        """Give what products and activations each need; None where the products could not be measured."""
        eight = system is System.FUSED_FP8
        products = self.products_s_per_token_fp8 if eight else self.products_s_per_token
        return (
            None
            if products is None
            else (products, self.traffic_s_per_token_fp8 if eight else self.traffic_s_per_token)
        )


class Latency(pydantic.BaseModel):
    """Calls for queries through the encoder's own entry."""

    kind: Literal["query"] = "query"
    system: System
    queries: int  # of a call
    tokens: int  # of a query
    calls: int
    median_ms: float
    p99_ms: float


class Texts(pydantic.BaseModel):
    """Texts to embeddings, tokenization included; and bare passes over tokens beside it."""

    kind: Literal["texts"] = "texts"
    ours: bool
    model: str
    batch_size: int | None = None  # of sentence-transformers' encode
    texts: int = 0
    tokens: int = 0  # of all texts, without special tokens
    texts_per_s: float | None = None
    tokens_per_s: float | None = None
    bare_tokens_per_s: float | None = None
    skipped: str = ""


class Agreement(pydantic.BaseModel):
    """How near a contender's embeddings are to those of plain torch in float32."""

    kind: Literal["check"] = "check"
    system: System
    length: int
    texts: int
    cosine_min: float | None
    cosine_between: float | None = None  # of the two texts that are most alike, by the reference: for scale
    failed: str = ""


Row = Annotated[Machine | Made | Cell | Ceilings | Latency | Texts | Agreement, pydantic.Field(discriminator="kind")]
_Kind = TypeVar("_Kind", bound=pydantic.BaseModel)
_ROW: pydantic.TypeAdapter[Row] = pydantic.TypeAdapter(Row)


def read_results(path: Path) -> list[Row]:
    """Read JSON lines that the benchmark wrote; :class:`InvalidInput` names the line and the field at fault."""
    rows = []
    for place, line in read_lines(path, "results"):
        try:
            rows.append(_ROW.validate_json(line))
        except pydantic.ValidationError as error:
            first = error.errors()[0]
            field = ".".join(map(str, first["loc"])) or "the line"
            raise InvalidInput("results", f"{place}: {field}: {first['msg']}.") from None
    return rows


def of_kind(rows: Iterable[object], kind: type[_Kind]) -> list[_Kind]:
    """Pick the rows of one kind."""
    return [row for row in rows if isinstance(row, kind)]


def lengths_of(cells: Sequence[Cell]) -> list[int]:
    """List the lengths that were measured, rising."""
    return sorted({cell.length for cell in cells})
