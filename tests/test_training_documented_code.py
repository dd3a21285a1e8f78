"""Functions get their docstrings back, and questions that do not quote them."""

import ast
import json
import subprocess
import sys
from pathlib import Path

import pytest

from encoder.training.documented_code import documented, rows

BODY = "def {name}(path):\n    with open(path) as file:\n        return file.read()"


def write(path: Path, *pairs: tuple[str, str]) -> Path:
    path.write_text("".join(json.dumps({"query": query, "positive": code}) + "\n" for query, code in pairs))
    return path


def test_the_description_becomes_the_docstring() -> None:
    found = documented(BODY.format(name="read_all"), "Read a file.")
    assert found is not None
    function = ast.parse(found).body[0]
    assert isinstance(function, ast.FunctionDef)
    assert ast.get_docstring(function) == "Read a file."


@pytest.mark.parametrize("function", ["def f(): return 1", "x = 1\ny = 2", "def f(:\n    pass"])
def test_what_is_no_function_of_several_lines_is_left_out(tmp_path: Path, function: str) -> None:
    assert documented(function, "Do it.") is None
    assert not list(rows(write(tmp_path / "a.jsonl", ("Do it.", function)), seed=0))


def test_every_question_has_words_and_follows_from_the_seed(tmp_path: Path) -> None:
    told = ["Read a whole file. At once.", ".. versionchanged:: 3005", "*"]
    pairs = [(description, BODY.format(name=name)) for description in told for name in ("read_whole_file", "_")]
    path = write(tmp_path / "a.jsonl", *(pairs * 20))
    found = list(rows(path, seed=1))
    assert all(set(row["query"].split()) - {"python", "how", "to", "in"} for row in found)
    # Of an unnamed function without a described purpose nothing can be asked.
    assert len(found) == 20 * 4
    assert list(rows(path, seed=1)) == found
    assert list(rows(path, seed=2)) != found


def test_the_command_writes_rows_that_training_reads(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", ("Read a whole file.", BODY.format(name="read_whole_file")))
    command = [sys.executable, "-m", "encoder.training.documented_code", str(path), str(tmp_path / "b.jsonl")]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.startswith("1 functions with their docstrings")
    row = json.loads((tmp_path / "b.jsonl").read_text())
    assert row.keys() == {"query", "positive"}
    command[-1] = str(tmp_path / "none" / "b.jsonl")
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (1, f"out {command[-1]} cannot be written (No such file or directory).\n")
