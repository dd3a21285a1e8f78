"""Python source without its docstrings, and what these said: for a search of code by what it is documented to do."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass

Documented = ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef


@dataclass(frozen=True, slots=True)
class Definition:
    """A class or function of a file, and the first paragraph of its docstring on one line."""

    file: str
    path: tuple[str, ...]  # names, its own last
    summary: str


def read_definitions(file: str, source: str) -> Iterator[Definition]:
    """Give the documented classes and functions of a source, outer before inner."""
    for path, node in _walk(ast.parse(source), ()):
        paragraphs = (ast.get_docstring(node) or "").split("\n\n")
        if paragraphs[0].strip():
            yield Definition(file, path, " ".join(paragraphs[0].split()))


def head_lines(source: str) -> dict[tuple[str, ...], int]:
    """Give the line of each class's or function's own head, decorators not counted; of one path, the first."""
    lines: dict[tuple[str, ...], int] = {}
    for path, node in _walk(ast.parse(source), ()):
        lines.setdefault(path, node.lineno)
    return lines


def without_docstrings(source: str) -> str:
    """Take out every docstring: its lines, or where it shares a line or is all there is, ``pass`` in its place."""
    data = source.encode()
    begins = [0]
    for line in data.splitlines(keepends=True):
        begins.append(begins[-1] + len(line))
    tree = ast.parse(data)
    for node in sorted(_documented(tree), key=lambda node: node.body[0].lineno, reverse=True):
        docstring = node.body[0]
        assert docstring.end_lineno is not None
        assert docstring.end_col_offset is not None
        start = begins[docstring.lineno - 1] + docstring.col_offset
        end = begins[docstring.end_lineno - 1] + docstring.end_col_offset
        line_start, line_end = begins[docstring.lineno - 1], begins[docstring.end_lineno]
        alone = not data[line_start:start].strip() and not data[end:line_end].strip()
        if alone and (len(node.body) > 1 or isinstance(node, ast.Module)):
            data = data[:line_start] + data[line_end:]
        else:
            data = data[:start] + b"pass" + data[end:]
    bare = data.decode()
    assert not list(_documented(ast.parse(bare)))
    return bare


def _documented(tree: ast.Module) -> Iterator[Documented]:
    for node in ast.walk(tree):
        if isinstance(node, Documented) and ast.get_docstring(node, clean=False) is not None:
            yield node


def _walk(
    node: ast.AST, path: tuple[str, ...]
) -> Iterator[tuple[tuple[str, ...], ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef]]:
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            inner = (*path, child.name)
            yield inner, child
            yield from _walk(child, inner)
        else:
            yield from _walk(child, path)
