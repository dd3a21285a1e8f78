"""The README's table and the page with plots are made from what `evaluate` prints."""

import json
import re
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest

from encoder.errors import InvalidInput
from encoder.evaluation.report import BEGIN, END, insert_between, main
from encoder.evaluation.report_page import render_page
from encoder.evaluation.report_table import render_table
from encoder.evaluation.results import read_results

BENCHMARKS = Path(__file__).parent / "benchmarks"


def line(dataset: str, mode: str, ndcg: float, **more: object) -> str:
    row = {"system": "ours", "dataset": dataset, "mode": mode, "documents": 1398, "queries": 225, "seconds": 1.5}
    row |= {"ndcg@10": ndcg, "recall@100": 0.75, "recall@10": 0.7, "mrr@10": 0.5}
    row["intervals"] = {"ndcg@10": [ndcg - 0.02, ndcg + 0.02]}
    return json.dumps(row | more) + "\n"


def write(path: Path, **scores: float) -> Path:
    path.write_text("".join(line(*name.split("__"), ndcg) for name, ndcg in scores.items()))
    return path


def cells(table: str) -> list[list[str]]:
    return [[cell.strip() for cell in row.split("|")[1:-1]] for row in table.splitlines()]


def test_the_table_has_a_row_per_set_and_means(tmp_path: Path) -> None:
    path = write(tmp_path / "r", b__dense=0.2, a__dense=0.1, a__sparse=0.3, a__hybrid=0.4, b__hybrid=0.5)
    rows = cells(render_table(read_results([path])))
    assert rows[0] == ["set", "documents", "queries", "dense", "sparse", "hybrid"]
    assert rows[2] == ["a", "1,398", "225", "0.100 ± 0.020", "0.300 ± 0.020", "0.400 ± 0.020"]
    assert rows[3][3:] == ["0.200 ± 0.020", "", "0.500 ± 0.020"]
    assert rows[4][3:] == ["**0.150**", "", "**0.450**"]  # means over different sets do not compare


def test_others_stand_beside_ours_and_lengths_below(tmp_path: Path) -> None:
    (tmp_path / "ours").write_text(
        line("a", "dense", 0.5)
        + line("a", "dense", 0.55, chunks="one-pass")
        + line("a", "dense", 0.45, length=2048)
        + line("a", "dense", 0.40, length=2048, chunks="document")
    )
    other = {"system": "MiniLM"}
    (tmp_path / "theirs").write_text(
        line("a", "dense", 0.6, **other) + line("a", "bm25s", 0.3, **other) + line("a", "rrf", 0.65, **other)
    )
    rows = cells(render_table(read_results([tmp_path / "ours", tmp_path / "theirs"])))
    assert rows[0][3:] == [
        "dense", "dense, one pass", "dense, one vector a document", "MiniLM dense", "bm25s", "MiniLM RRF with bm25s",
    ]  # fmt: skip
    assert [cell[:5] for cell in rows[2][3:]] == ["0.500", "0.550", "", "0.600", "0.300", "0.650"]
    assert [row[0] for row in rows[3:]] == ["**mean**", "a, 2,048 tokens", "**mean, 2,048 tokens**"]
    assert [cell[:5] for cell in rows[4][3:6]] == ["0.450", "", "0.400"]


def test_a_later_measurement_replaces_an_earlier_one(tmp_path: Path) -> None:
    (tmp_path / "r").write_text(line("a", "dense", 0.1) + line("a", "dense", 0.9))
    (result,) = read_results([tmp_path / "r"])
    assert result.ndcg_at_10 == 0.9


def test_broken_results_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "r").write_text(line("a", "dense", 0.1) + '{"dataset": "a"}\n')
    with pytest.raises(InvalidInput, match=r"r line 2: system: Field required"):
        read_results([tmp_path / "r"])
    assert main([str(tmp_path / "r")]) == 1
    assert "line 2" in capsys.readouterr().err


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


DIFFERENCE = {"mean": 0.04, "low": 0.01, "high": 0.07, "p_bootstrap": 0.01, "p_randomization": 0.012}


def test_the_page_shows_plots_intervals_and_significance(tmp_path: Path) -> None:
    rows = [
        line("a<b", "dense", 0.5, parameters=27_000_000, differences={"ndcg@10": DIFFERENCE | {"significant": True}}),
        line("c", "dense", 0.6, parameters=27_000_000, differences={"ndcg@10": DIFFERENCE | {"significant": False}}),
        *(line(name, "dense", 0.7, system="big", parameters=60_000_000) for name in ("a<b", "c")),
        *(line("c", "dense", 0.5, length=length, tokens_per_s=1e4) for length in (2048, 8192, 32768)),
    ]
    (tmp_path / "r").write_text("".join(rows))
    assert main([str(tmp_path / "r"), "--html", str(tmp_path / "page.html")]) == 0
    page = (tmp_path / "page.html").read_text()
    assert render_page(read_results([tmp_path / "r"])) == page  # the same bytes each time
    assert "http" not in re.sub(r'xmlns(:\w+)?="[^"]*"', "", page)  # nothing is fetched
    plots = re.findall(r"<svg.*?</svg>", page, re.DOTALL)
    titles = re.findall(r"<h2>(.*?)</h2>", page)
    assert titles[:4] == ["Quality by set", "Quality by length", "Speed by length", "Quality against size"]
    assert titles[4:] == ["Differences from the baseline"]
    texts = [" ".join(ElementTree.fromstring(plot).itertext()) for plot in plots]
    assert len(texts) == 4
    assert "a<b" in texts[0]
    assert "32,768" in texts[1]
    assert "tokens/s" in texts[2]
    assert "parameters" in texts[3]
    assert "a&lt;b" in page
    assert "0.5000 <small>[0.480, 0.520]</small>" in page
    assert page.count("▲</span>") == 2  # by set, and among the differences
    assert page.count("○</span>") == 2


def test_a_plot_without_data_is_left_out(tmp_path: Path) -> None:
    page = render_page(read_results([write(tmp_path / "r", a__dense=0.1)]))
    assert re.findall(r"<h2>(.*?)</h2>", page) == ["Quality by set"]


def prove(path: Path, what: str = "quality") -> tuple[int, str]:
    done = subprocess.run(
        [sys.executable, BENCHMARKS / f"prove_{what}.py", path], capture_output=True, text=True, check=False
    )
    return done.returncode, done.stdout.splitlines()[-1]


def test_the_proof_passes_above_the_bars_and_fails_below(tmp_path: Path) -> None:
    good = {"squad_xquad_en__dense": 0.94, "squad_xquad_en__sparse": 0.96, "squad_xquad_en__hybrid": 0.975}
    code, figure = prove(write(tmp_path / "r", **good))
    assert code == 0
    assert figure == "PASS: mean nDCG@10 over 1 sets: dense 0.9400, sparse 0.9600, hybrid 0.9750"
    code, figure = prove(write(tmp_path / "r", **(good | {"squad_xquad_en__dense": 0.93})))
    assert code == 1
    assert figure.startswith("FAIL: squad_xquad_en")
    more = good | {"cosqa__dense": 0.58, "cosqa__sparse": 0.3}
    assert prove(write(tmp_path / "r", **(more | {"cosqa__hybrid": 0.59})))[0] == 0
    code, figure = prove(write(tmp_path / "r", **(more | {"squad_xquad_en__hybrid": 0.995, "cosqa__hybrid": 0.569})))
    assert code == 1
    assert figure.startswith("FAIL: hybrid on cosqa:")
    no_gain = more | {"squad_xquad_en__dense": 0.965, "cosqa__hybrid": 0.575}
    code, figure = prove(write(tmp_path / "r", **no_gain))
    assert code == 1
    assert figure.startswith("FAIL: hybrid:")
    del good["squad_xquad_en__sparse"]
    assert prove(write(tmp_path / "r", **good))[0] == 1


def one_pass(dataset: str, mean: float, *, significant: bool = False) -> str:
    difference = DIFFERENCE | {"mean": mean, "significant": significant}
    return line(dataset, "dense", 0.5, chunks="one-pass", differences={"ndcg@10": difference})


def test_one_pass_must_gain_in_the_mean_and_lose_nowhere(tmp_path: Path) -> None:
    path = tmp_path / "r"
    path.write_text(one_pass("a", 0.03) + one_pass("b", -0.01))
    assert prove(path, "context") == (0, "PASS: nDCG@10 in one pass against alone, mean of 2 sets: +0.0100")
    path.write_text(one_pass("a", 0.03) + one_pass("b", -0.01, significant=True))
    code, figure = prove(path, "context")
    assert code == 1
    assert figure.endswith("+0.0100; significantly worse: b")
    path.write_text(one_pass("a", -0.001))
    assert prove(path, "context")[0] == 1
    path.write_text(line("a", "dense", 0.5))
    assert prove(path, "context")[0] == 1


def test_length_is_judged_by_the_best_chunk(tmp_path: Path) -> None:
    path = tmp_path / "r"
    chunks = line("a", "dense", 0.8, length=2048) + line("a", "dense", 0.78, length=32768)
    whole = "".join(
        line("a", "dense", score, length=length, chunks="document") for length, score in ((2048, 0.6), (32768, 0.1))
    )
    path.write_text(chunks + whole)
    assert prove(path, "length") == (0, "PASS: nDCG@10 at 32K by that at 2K, best chunk: 0.975 (bar 0.97)")
    path.write_text(chunks + line("b", "dense", 0.8, length=2048) + line("b", "dense", 0.7, length=32768))
    assert prove(path, "length")[1].startswith("FAIL")
    path.write_text(whole)
    assert prove(path, "length")[0] == 1
