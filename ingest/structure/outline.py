"""From a parsed source to its outline: what begins at each place of it, and which definition holds it.

Knows tree-sitter's nodes and a grammar's names for them, but no tokens and no chunks. A place is where a cut may be: a
byte offset, given by who asks. The walk is linear in the nodes, and leaves out those that hold no place.
"""

from __future__ import annotations

import re
from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from ingest.structure.grammars import Grammar

if TYPE_CHECKING:
    from tree_sitter import Node  # an outline is known also where the parser is not installed

NAME_CHARS_MAX = 200
PATH_NAMES_MAX = 16  # of a path, the outermost; definitions may be nested without end
_WRAPPERS_MAX = 6  # `export const a = function () {}` has three

# What begins at a place, from worst to best to cut before it.
GRADE_NONE = 0  # nothing that the outline knows
GRADE_INNER = 1  # belongs to what is above it: the definition under its decorator, a closing bracket
GRADE_FIRST = 2  # the first statement of a block
GRADES_STATEMENT = (6, 5, 4, 3)  # right in a definition's body or outside of all, in one block there, in two, deeper
GRADES_DEFINITION = (10, 9, 8, 7)  # outside of all, in one other, in two, deeper
GRADES = 11

_OWNER = re.compile(r"(\w+)(?:\[[^\]]*\])?\s*,?\s*\)$")  # in Go, the type whose method it is
_NAME_FIELDS = ("name", "property", "key", "left", "declarator", "type")
_WRAPPED_FIELDS = ("definition", "declaration", "value", "right", "type")


class Definition(NamedTuple):
    """A named definition, with the decorators and comments that belong to it."""

    first: int  # number of the first place in it
    last: int  # exclusive
    path: tuple[str, ...]  # names, its own last


@dataclass(frozen=True, slots=True)
class Outline:
    """What a source says of each of its places."""

    grades: list[int]  # one for each place
    definitions: list[Definition]  # by first place, outer before inner


class _Visit(NamedTuple):
    node: Node
    path: tuple[str, ...]
    depth: int  # definitions around it
    nesting: int  # blocks around it, inside the innermost of these
    block: bool


def read_outline(root: Node, grammar: Grammar, source: bytes, places: Sequence[int]) -> Outline:
    """Walk the tree of ``source``; ``places`` are byte offsets, ascending. What did not parse has no grades."""
    walk = _Walk(grammar, source, places)
    walk.waiting.append(_Visit(root, (), 0, 0, block=True))
    while walk.waiting:
        walk.visit(walk.waiting.pop())
    walk.definitions.sort(key=lambda definition: (definition.first, -definition.last, len(definition.path)))
    return Outline(walk.grades, walk.definitions)


class _Walk:
    """One walk: a node is graded by its parent, so that of nodes with one beginning the outermost decides."""

    def __init__(self, grammar: Grammar, source: bytes, places: Sequence[int]) -> None:
        self._grammar = grammar
        self._source = source
        self._places = places
        self.grades = [GRADE_NONE] * len(places)
        self.definitions: list[Definition] = []
        self.waiting: list[_Visit] = []

    def visit(self, visit: _Visit) -> None:
        children = visit.node.children
        if len(children) > 1 and not children[-1].is_named and not visit.node.is_error:
            self._grade(children[-1].start_byte, GRADE_INNER)  # what closes it: a bracket, `end`, `fi`
        if not visit.block:
            for child in children:
                self._enter(child, visit.path, visit.depth, visit.nesting)
            return
        first = visit.depth + visit.nesting > 0 and not _is_transparent(visit.node)
        after = GRADE_NONE
        for run in _runs(children, self._grammar.openers):
            statement, start = run[-1], run[0].start_byte
            found = self._find_definition(statement)
            if found:
                grade = after = _at_depth(GRADES_DEFINITION, visit.depth)
            else:
                # Where a definition ends is as good a place as where it begins.
                grade = after or (GRADE_NONE if visit.node.is_error else _at_depth(GRADES_STATEMENT, visit.nesting))
                after = GRADE_NONE
            # What stands beside the bracket, or is no statement, is not the first: `case 1:` of a switch has a 1.
            first = not self._grade(start, GRADE_FIRST if first else grade) and first
            for node in run[1:]:
                self._grade(node.start_byte, GRADE_INNER)
            if found:
                self._open(visit, start, statement.end_byte, *found)
            else:
                nesting = visit.nesting + (not _is_transparent(statement))
                self._enter(statement, visit.path, visit.depth, nesting)

    def _grade(self, position: int, grade: int) -> bool:
        """Grade what begins at a position, unless it has a grade; say whether a place is there."""
        place = bisect_left(self._places, position)
        if place == len(self._places) or self._places[place] != position:
            return False
        self.grades[place] = self.grades[place] or grade
        return True

    def _enter(self, node: Node, path: tuple[str, ...], depth: int, nesting: int) -> None:
        """Walk through a node later, if there is a place in it that its beginning has not settled."""
        block = node.type in self._grammar.blocks or node.is_error
        # A block begins with its first statement where no bracket opens it.
        after_start = (bisect_left if block else bisect_right)(self._places, node.start_byte)
        if after_start < bisect_left(self._places, node.end_byte):
            self.waiting.append(_Visit(node, path, depth, nesting, block))

    def _open(self, visit: _Visit, start: int, end: int, definition: Node, names: tuple[str, ...]) -> None:
        """Note a definition, hold its head together down to the body, and walk through it later."""
        first, last = bisect_left(self._places, start), bisect_left(self._places, end)
        path = (*visit.path, *names)[:PATH_NAMES_MAX]
        if names and first < last:
            self.definitions.append(Definition(first, last, path))
        body = definition.child_by_field_name("body")
        head_end = (body or definition).start_byte
        if body is None or (body.child_count and not body.child(0).is_named):
            head_end += 1  # the definition itself, or the bracket that opens its body
        for place in range(bisect_right(self._places, start), bisect_left(self._places, head_end)):
            self.grades[place] = self.grades[place] or GRADE_INNER
        self._enter(definition, path, visit.depth + 1, nesting=0)

    def _find_definition(self, statement: Node) -> tuple[Node, tuple[str, ...]] | None:
        """Find the definition that a statement is or wraps, and its names: mostly one, none where it is anonymous."""
        node: Node | None = statement
        names: tuple[str, ...] = ()
        for _ in range(_WRAPPERS_MAX):
            if node is None:
                return None
            if node.type in self._grammar.definitions:
                # `struct name` without a body only mentions it.
                mention = node.type.endswith("_specifier") and node.child_by_field_name("body") is None
                return None if mention else (node, names or self._names(node))
            if node.type not in self._grammar.wrappers:
                return None
            names = names or self._names(node)
            node = self._wrapped(node)
        return None

    def _wrapped(self, node: Node) -> Node | None:
        for field in _WRAPPED_FIELDS:
            if found := node.child_by_field_name(field):
                return found
        named = [child for child in node.named_children if child.type not in self._grammar.openers]
        # Of several alike (`const a = …, b = …`) none speaks for the statement.
        return named[-1] if named and all(child.type != named[-1].type for child in named[:-1]) else None

    def _names(self, node: Node) -> tuple[str, ...]:
        for field in _NAME_FIELDS:
            found = node.child_by_field_name(field)
            if found is None or (field == "type" and node.type in self._grammar.wrappers):
                continue
            while (inner := _inner_declarator(found)) is not None:
                found = inner
            owner = node.child_by_field_name("receiver")
            owners = _OWNER.findall(self._text(owner)) if owner else []
            return (*owners, self._text(found).strip("\"'`"))
        return ()

    def _text(self, node: Node) -> str:
        data = self._source[node.start_byte : min(node.end_byte, node.start_byte + 4 * NAME_CHARS_MAX)]
        return " ".join(data.decode(errors="ignore").split())[:NAME_CHARS_MAX]


def _runs(children: Sequence[Node], openers: frozenset[str]) -> Iterator[list[Node]]:
    """Join each named child with the comments and attributes right above it; leave out comments at a line's end."""
    run: list[Node] = []
    last_row = -1
    for child in children:
        if not child.is_named:
            continue
        row = child.start_point.row
        if run and row > last_row + 1:
            yield run
            run = []
        if child.type not in openers:
            yield [*run, child]
            run = []
        elif run or row > last_row:
            run.append(child)
        # Some nodes end with their line, at the beginning of the next.
        last_row = child.end_point.row - (child.end_point.column == 0 and child.end_byte > child.start_byte)
    if run:
        yield run


def _inner_declarator(node: Node) -> Node | None:
    """Look for the name inside what C puts around it, ``*`` and ``()``, and inside a type with parameters."""
    inner = node.child_by_field_name("declarator") or node.child_by_field_name("type")
    if inner is None and node.type in ("reference_declarator", "parenthesized_declarator"):
        inner = node.named_children[-1]
    return None if inner is None or inner.type.startswith("abstract_") else inner


def _at_depth(grades: Sequence[int], depth: int) -> int:
    return grades[min(depth, len(grades) - 1)]


def _is_transparent(node: Node) -> bool:
    """Whether a node's children stand for themselves: broken code, and what a preprocessor's condition holds."""
    return node.is_error or node.type.startswith("preproc_")
