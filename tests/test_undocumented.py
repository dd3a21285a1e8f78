"""Docstrings taken out of Python source, for the benchmark of code search: all of them, and nothing else."""

import ast

from tests.benchmarks.undocumented import Definition, head_lines, read_definitions, without_docstrings

SOURCE = '''"""About the module."""
import os


class Outer:
    """Says what Outer is.

    And more.
    """

    value = "kept"  # a string that is no docstring

    @property
    def name(self):
        """Gives the
        name."""
        return "é" + """also kept"""

    def empty(self):
        """Only this."""


def one_line(): "All on one line"; return 1


async def inner_too():
    def inner():
        r"""Does \\d."""
    return inner
'''


def test_what_is_left_is_the_same_program_without_docstrings() -> None:
    bare = without_docstrings(SOURCE)
    for said in ("About the module", "Says what", "And more", "Gives the", "Only this", "All on one", "Does"):
        assert said not in bare
    assert "kept" in bare
    assert 'return "é" + """also kept"""' in bare
    assert "def empty(self):\n        pass\n" in bare
    assert "def one_line(): pass; return 1\n" in bare
    expected = ast.parse(SOURCE)
    for node in ast.walk(expected):
        documented = isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef)
        if documented and ast.get_docstring(node) is not None:
            del node.body[0]
    found = ast.parse(bare)
    for node in ast.walk(found):
        if isinstance(node, ast.FunctionDef):
            node.body = [each for each in node.body if not isinstance(each, ast.Pass)]
    assert ast.dump(found) == ast.dump(expected)


def test_what_they_said_is_known_by_path() -> None:
    assert list(read_definitions("a.py", SOURCE)) == [
        Definition("a.py", ("Outer",), "Says what Outer is."),
        Definition("a.py", ("Outer", "name"), "Gives the name."),
        Definition("a.py", ("Outer", "empty"), "Only this."),
        Definition("a.py", ("one_line",), "All on one line"),
        Definition("a.py", ("inner_too", "inner"), "Does \\d."),
    ]


def test_heads_are_found_in_what_is_left() -> None:
    bare = without_docstrings(SOURCE)
    lines = bare.splitlines()
    for path, line in head_lines(bare).items():
        assert path[-1] in lines[line - 1]
