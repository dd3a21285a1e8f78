"""What `make prove-encoder-speed` makes of measured figures: a verdict that follows from its bars."""

from collections.abc import Sequence
from pathlib import Path

import pytest
import torch

from encoder.benchmarking.results import Agreement, Cell, Latency, Machine, Row, System, Texts
from tests.benchmarks import prove_encoder_speed
from tests.benchmarks.prove_encoder_speed import LENGTHS, judge, main

SPEEDS = {System.FUSED: 1.9e6, System.FUSED_FP8: 2.5e6, System.MAMBA_SSM: 1.2e6, System.MIXER: 1.0e6}
BERT = {128: 3e6, 512: 2.5e6, 2048: 1.8e6, 8192: 0.9e6, 32_768: 0.3e6}


def a_cell(system: System, length: int, speed: float, mebibytes: int = 1000) -> Cell:
    return Cell(
        system=system,
        length=length,
        rows=1,
        passes=3,
        seconds=length / speed,
        tokens_per_s=speed,
        peak_bytes=mebibytes << 20,
    )


def good_rows(*, cuda: bool = True) -> list[Row]:
    rows: list[Row] = [
        Machine(
            device="a device",
            cuda=cuda,
            torch="2",
            dtype="bfloat16",
            model="mamba2-130m",
            parameters=1,
            batch_tokens=131_072,
        )
    ]
    rows += [a_cell(system, length, speed) for system, speed in SPEEDS.items() for length in LENGTHS]
    rows += [a_cell(System.BERT, length, speed) for length, speed in BERT.items()]
    rows += [
        Cell(system=System.BERT, length=131_072, rows=1, stopped="over 10 s, estimated"),
        Cell(system=System.BERT, length=262_144, rows=1, stopped="out of memory"),
        Latency(system=System.FUSED, queries=1, tokens=16, calls=300, median_ms=1.9, p99_ms=2.8),
        Latency(system=System.FUSED, queries=8, tokens=16, calls=300, median_ms=2.4, p99_ms=3.8),
        Texts(ours=True, model="ours", texts_per_s=5000),
        Texts(ours=False, model="theirs", batch_size=32, texts_per_s=3000),
        Texts(ours=False, model="theirs", batch_size=256, texts_per_s=4900),
        Agreement(system=System.FUSED, length=128, texts=2, cosine_min=0.9995),
        Agreement(system=System.FUSED_FP8, length=128, texts=2, cosine_min=0.99),
    ]
    return rows


def write(path: Path, rows: Sequence[Row]) -> Path:
    path.write_text("".join(row.model_dump_json() + "\n" for row in rows))
    return path


def test_figures_above_all_bars_pass(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--read", str(write(tmp_path / "rows.jsonl", good_rows()))]) == 0
    last = capsys.readouterr().out.splitlines()[-1]
    assert last.startswith("PASS: tokens/s at 128 512 2048 8192 32768 131072 262144: fused 1.90M 1.90M")
    assert "bert 3.00M 2.50M 1.80M 0.90M 0.30M - -" in last
    assert last.endswith("one and eight queries 1.90 ms 2.40 ms")


@pytest.mark.parametrize(
    ("worse", "failed"),
    [
        (a_cell(System.FUSED, 512, 1.79e6), ["fused tokens/s at 512", "fused over mamba_ssm at 512"]),
        (a_cell(System.FUSED, 128, 1.59e6), ["fused tokens/s at 128", "fused over mamba_ssm at 128"]),
        (a_cell(System.FUSED_FP8, 8192, 2.39e6), ["fused-fp8 tokens/s at 8,192"]),
        (a_cell(System.FUSED_FP8, 128, 1e6), []),  # its bar begins at 512
        (a_cell(System.MAMBA_SSM, 2048, 1.3e6), ["fused over mamba_ssm at 2,048"]),
        (a_cell(System.MIXER, 2048, 1.3e6), ["fused over mamba_ssm-mixer at 2,048"]),
        (Cell(system=System.MAMBA_SSM, length=512, rows=1, stopped="out of memory"), ["fused over mamba_ssm at 512"]),
        (a_cell(System.BERT, 2048, 1.95e6), ["fused over bert at 2,048"]),
        (a_cell(System.BERT, 8192, 1.01e6), ["fused over bert at 8,192"]),
        (a_cell(System.BERT, 32_768, 0.39e6), ["fused over bert at 32,768"]),
        (Cell(system=System.BERT, length=8192, rows=1, stopped="failed: no kernel"), ["fused over bert at 8,192"]),
        (
            a_cell(System.FUSED, 262_144, 1.9e6, mebibytes=1101),
            ["growth of peak memory from 8,192 to 262,144 tokens"],
        ),
        (a_cell(System.FUSED, 262_144, 1.9e6, mebibytes=500), []),
    ],
)
def test_each_cell_has_its_bar(worse: Cell, failed: list[str]) -> None:
    found = judge([*good_rows(), worse])  # a later line counts
    assert [bar.what for bar in found if not bar.passed] == failed


@pytest.mark.parametrize(
    ("worse", "failed"),
    [
        (
            Latency(system=System.FUSED, queries=1, tokens=16, calls=9, median_ms=2.1, p99_ms=2.9),
            "median ms of a query",
        ),
        (Latency(system=System.FUSED, queries=1, tokens=16, calls=9, median_ms=1.1, p99_ms=3.1), "p99 ms of a query"),
        (
            Latency(system=System.FUSED, queries=8, tokens=16, calls=9, median_ms=2.6, p99_ms=3),
            "median ms of eight queries",
        ),
        (
            Texts(ours=False, model="theirs", batch_size=1024, texts_per_s=5001),
            "whole texts/s over sentence-transformers",
        ),
        (
            Agreement(system=System.FUSED, length=512, texts=2, cosine_min=0.99),
            "least cosine of fused with float32",
        ),
        (
            Agreement(system=System.FUSED_FP8, length=512, texts=2, cosine_min=None, failed="failed"),
            "least cosine of fused-fp8 with float32",
        ),
    ],
)
def test_queries_texts_and_cosines_have_theirs(worse: Row, failed: str) -> None:
    found = judge([*good_rows(), worse])
    assert [bar.what for bar in found if not bar.passed] == [failed]


def test_what_was_not_measured_fails(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--read", str(write(tmp_path / "rows.jsonl", good_rows()[:1]))]) == 1
    shown = capsys.readouterr().out.splitlines()
    assert all(line.startswith("FAIL") for line in shown)
    assert len(shown) > 25


def test_a_cpus_figures_prove_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--read", str(write(tmp_path / "rows.jsonl", good_rows(cuda=False)))]) == 1
    assert "no CUDA device" in capsys.readouterr().out


def test_without_a_gpu_nothing_is_measured(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(prove_encoder_speed, "measure", lambda *files: pytest.fail("it measures"))
    assert main([]) == 1
    assert capsys.readouterr().out == "FAIL: no CUDA device; nothing was measured\n"


def test_files_that_cannot_be_read_fail(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--read", str(tmp_path / "none.jsonl")]) == 1
    assert "FAIL: " in capsys.readouterr().out
