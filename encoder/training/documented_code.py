"""Pairs of questions and Python functions with their docstrings, from pairs of descriptions and functions without.

Collections of (description, function) take the docstring out of the function, for it is the query. Code that people
search has it. Here it is put back, and the question becomes what somebody might type who does not know the function:
the words of its name, or the first words of its description.

    python -m encoder.training.documented_code code_python.jsonl.xz code_documented.jsonl.xz
"""

from __future__ import annotations

import argparse
import ast
import json
import lzma
import random
import re
import sys
from collections.abc import Iterator
from pathlib import Path

from encoder.errors import InvalidInput
from encoder.jsonl import read_rows, string_of

_WORDS = re.compile(r"[A-Z]+(?=[A-Z][a-z])|[A-Z]?[a-z]+|[A-Z]+|\d+")
_QUESTION_WORDS_MAX = 10
_NAME_WORDS_MIN = 3  # a name of fewer is no question


def documented(function: str, description: str) -> str | None:
    """Set a docstring into a function's source, before its body; None where it is no function of several lines."""
    try:
        parsed = ast.parse(function).body[0]
    except (SyntaxError, ValueError, IndexError):
        return None
    if not isinstance(parsed, ast.FunctionDef | ast.AsyncFunctionDef) or '"""' in description or "\\" in description:
        return None
    lines = function.split("\n")
    first = parsed.body[0].lineno - 1
    if lines[first][: parsed.body[0].col_offset].strip():  # the body begins on the line of the head
        return None
    indentation = lines[first][: len(lines[first]) - len(lines[first].lstrip())]
    return "\n".join([*lines[:first], f'{indentation}"""{description}"""', *lines[first:]])


def question(function: str, description: str, rng: random.Random) -> str:
    """Ask for a function as somebody would who needs it; empty where neither name nor description has a word."""
    name = re.search(r"def\s+(\w+)", function)
    words = [word.lower() for word in _WORDS.findall(name.group(1))] if name else []
    if len(words) < _NAME_WORDS_MIN or rng.random() < 0.5:
        described = re.sub(r"[^\w\s'-]", " ", description.split(". ")[0]).lower().split()
        words = described[:_QUESTION_WORDS_MAX] or words  # ".. versionchanged:: 2.1" begins without a word
    language = rng.choice(["python {}", "{} python", "{} in python", "how to {} in python", "{}"])
    return language.format(" ".join(words)) if words else ""


def rows(path: Path, seed: int) -> Iterator[dict[str, str]]:
    """Read (query, positive) rows and give those whose function can be documented."""
    rng = random.Random(seed)  # noqa: S311 - nothing secret
    for place, row in read_rows(path, "path"):
        description, function = string_of(row, "query", place), string_of(row, "positive", place)
        found = documented(function, description)
        asked = "" if found is None else question(function, description, rng)
        if found is not None and asked:
            yield {"query": asked, "positive": found}


def main() -> None:
    """Read the arguments and write the rows."""
    parser = argparse.ArgumentParser(description="Put docstrings back into functions.")
    parser.add_argument("path", type=Path, help="JSONL of query (description) and positive (function)")
    parser.add_argument("out", type=Path, help="JSONL to write, .jsonl or .jsonl.xz")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    count = 0
    try:
        with lzma.open(arguments.out, "wt") if arguments.out.suffix == ".xz" else arguments.out.open("w") as file:
            for row in rows(arguments.path, arguments.seed):
                file.write(json.dumps(row) + "\n")
                count += 1
    except InvalidInput as error:
        raise SystemExit(str(error)) from error
    except OSError as error:
        raise SystemExit(f"out {arguments.out} cannot be written ({error.strerror}).") from error
    sys.stdout.write(f"{count} functions with their docstrings in {arguments.out}\n")


if __name__ == "__main__":
    main()
