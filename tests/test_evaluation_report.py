"""The README's table is made from what `evaluate` prints."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from encoder.evaluation.report import BEGIN, END, insert_between, main, read_results, render_table

PROVE = Path(__file__).parent / "benchmarks" / "prove_quality.py"


def line(dataset: str, mode: str, ndcg: float) -> str:
    row = {"dataset": dataset, "mode": mode, "documents": 1398, "queries": 225, "seconds": 1.5}
    return json.dumps(row | {"ndcg@10": ndcg, "recall@100": 0.75, "mrr@10": 0.5}) + "\n"


def write(path: Path, **scores: float) -> Path:
    path.write_text("".join(line(*name.split("__"), ndcg) for name, ndcg in scores.items()))
    return path


def test_the_table_has_a_row_per_set_and_means(tmp_path: Path) -> None:
    path = write(tmp_path / "r", b__dense=0.2, a__dense=0.1, a__sparse=0.3, a__hybrid=0.4, b__hybrid=0.5, b__sparse=0.4)
    rows = [[cell.strip() for cell in row.split("|")[1:-1]] for row in render_table(read_results(path)).splitlines()]
    assert rows[0][:3] == ["set", "documents", "queries"]
    assert rows[0][3:] == ["dense nDCG@10", "sparse nDCG@10", "hybrid nDCG@10", "hybrid R@100", "hybrid MRR@10"]
    assert rows[2] == ["a", "1,398", "225", "0.100", "0.300", "0.400", "0.750", "0.500"]
    assert rows[3][3:6] == ["0.200", "0.400", "0.500"]
    assert rows[4][3:6] == ["**0.150**", "**0.350**", "**0.450**"]


def test_a_later_measurement_replaces_an_earlier_one_and_gaps_stay_empty(tmp_path: Path) -> None:
    path = tmp_path / "r"
    path.write_text(line("a", "dense", 0.1) + line("a", "dense", 0.9))
    row = render_table(read_results(path)).splitlines()[2]
    assert [cell.strip() for cell in row.split("|")[4:-1]] == ["0.900", "", "", "", ""]


def test_the_table_goes_between_the_readmes_marks(tmp_path: Path) -> None:
    readme = tmp_path / "README.md"
    readme.write_text("before\n<!-- quality-table -->\nold\n<!-- /quality-table -->\nafter\n")
    assert main([str(write(tmp_path / "r", a__dense=0.1)), "--readme", str(readme)]) == 0
    text = readme.read_text()
    assert text.startswith("before\n<!-- quality-table -->\n| set |")
    assert text.endswith("|\n<!-- /quality-table -->\nafter\n")
    assert "old" not in text
    with pytest.raises(ValueError, match="not both there"):
        insert_between("no marks", BEGIN, END, "table")


def prove(path: Path) -> tuple[int, str]:
    done = subprocess.run([sys.executable, PROVE, path], capture_output=True, text=True, check=False)
    return done.returncode, done.stdout.splitlines()[-1]


def test_the_proof_passes_above_the_bars_and_fails_below(tmp_path: Path) -> None:
    good = {"squad_xquad_en__dense": 0.89, "squad_xquad_en__sparse": 0.96, "squad_xquad_en__hybrid": 0.95}
    code, figure = prove(write(tmp_path / "r", **good))
    assert code == 0
    assert figure == "PASS: mean nDCG@10 over 1 sets: dense 0.8900, sparse 0.9600, hybrid 0.9500"
    code, figure = prove(write(tmp_path / "r", **(good | {"squad_xquad_en__dense": 0.87})))
    assert code == 1
    assert figure.startswith("FAIL: squad_xquad_en")
    more = good | {"cosqa__dense": 0.5, "cosqa__sparse": 0.3}
    assert prove(write(tmp_path / "r", **(more | {"cosqa__hybrid": 0.45})))[0] == 0
    code, figure = prove(write(tmp_path / "r", **(more | {"cosqa__hybrid": 0.43})))
    assert code == 1
    assert figure.startswith("FAIL: hybrid")
    del good["squad_xquad_en__sparse"]
    assert prove(write(tmp_path / "r", **good))[0] == 1
