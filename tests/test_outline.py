"""Outlines of sources: what begins at each line, and which definitions there are, in every language."""

import re
from textwrap import dedent

import pytest

from ingest.structure.grammars import _GRAMMARS, find_grammar
from ingest.structure.outline import GRADE_FIRST, GRADE_INNER, GRADE_NONE, GRADES_DEFINITION, GRADES_STATEMENT
from ingest.structure.parsing import _load, parse

LETTERS = {
    **dict(zip(GRADES_DEFINITION, "DEFG", strict=True)),
    **dict(zip(GRADES_STATEMENT, "STUV", strict=True)),
    GRADE_FIRST: "f",
    GRADE_INNER: ".",
    GRADE_NONE: "-",
}

# Each line's grade stands before it: D to G for definitions and S to V for statements, outermost first; f for the first
# statement of a block, a point for what belongs to the line above, a dash for any other line.
SOURCES = {
    "python": '''
        S """Module."""
        S import os

        D # About Foo,
        . # two lines.
        . @decorated(
        .     1,
        . )
        . class Foo(Base):
        f     """Foo."""

        S     size = 1

        E     # About a.
        .     @property
        .     def a(self):
        f         if self.size:
        f             one()
        T             two()
        -         else:
        f             for x in y:
        f                 three()
        U                 four()
        S         return 1  # not about b

        E     async def b(
        .         self,
        .     ):
        f         def inner():
        f             pass
        F         return inner

        D if True:
        f     x = 1
    ''',
    "javascript": """
        S import x from "y";

        D // About make.
        . export const make = async (a) => {
        f   try {
        f     one();
        T     two();
        .   } catch (error) {
        f     three();
        .   }
        S   return {
        f     method(b) {
        f       four();
        .     },
        E     other: (c) => {
        f       five();
        .     },
        .   };
        . };

        D module.exports.bar = function () {
        f   switch (a) {
        f     case 1:
        f       six();
        T     default:
        f       seven();
        .   }
        . };

        D class Foo {
        f   static a = 1;

        E   get b() {
        f     return 1;
        .   }
        . }
    """,
    "typescript": """
        D /** About Foo. */
        . @Component({
        .   selector: "x",
        . })
        . export class Foo extends Bar {
        f   @Input() name: string;
        E   private handler = () => {
        f     one();
        .   };

        E   @Listen("x")
        .   /** About method. */
        .   method(a: string): void {
        f     two();
        .   }
        . }

        D export interface I {
        f   a: string;
        S   b(): void;
        . }

        D namespace N {
        f   export function f() {}
        E   export function g() {}
        . }
    """,
    "tsx": """
        D export function Page() {
        f   return (
        -     <main>
        -       text
        -     </main>
        .   );
        . }
    """,
    "go": """
        S package main

        D // Server answers.
        . type Server struct {
        f   name string
        S   port int
        . }

        D type (
        f   A int
        D   B interface {
        f     Do() error
        .   }
        . )

        D // Serve serves.
        . func (s *Server[T]) Serve(
        .   a int,
        . ) error {
        f   switch a {
        f   case 1:
        f     one()
        U     two()
        T   default:
        .   }
        S   return nil
        . }
    """,
    "rust": """
        S //! About the crate.

        S use std::fmt;

        D /// About Foo.
        . #[derive(Debug)]
        . pub struct Foo<T> {
        f     a: T,
        S     b: T,
        . }

        D impl<T> fmt::Display for Foo<T> {
        f     /// About fmt.
        .     #[inline]
        .     fn fmt(&self) -> fmt::Result {
        f         match self.a {
        f             1 => {
        f                 one();
        .             }
        T             _ => two(),
        .         }
        S         Ok(())
        .     }
        . }

        D #[cfg(test)]
        . mod tests {
        f     fn a() {}

        E     fn b() {}
        . }
    """,
    "java": """
        S package a;

        D /** About Foo. */
        . @Anno
        . public class Foo<T> {
        f     private int a;

        E     /** About bar. */
        .     @Override
        .     public int bar(int a) {
        f         if (a > 1) {
        f             one();
        T             two();
        .         } else {
        f             three();
        .         }
        S         return 1;
        .     }

        E     Foo() { super(); }

        E     enum E {
        f         A,
        S         B
        .     }
        . }
    """,
    "c": """
        S #ifndef A_H
        S #define A_H

        D typedef struct {
        f   int a;
        S   int b;
        . } Point;

        D struct named {
        f   int a;
        . };

        D /* About f. */
        . static int *f(int a)
        . {
        f   for (;;) {
        f     one();
        .   }
        S   return 0;
        . }

        D int g(void) { return 1; }
        . #endif
    """,
    "cpp": """
        D namespace space {

        f // About Foo.
        . template <typename T>
        . class Foo : public Bar {
        f  public:
        .   Foo() {}
        F   int bar(int a) const;

        S  private:
        .   int x;
        . };

        E int &Foo::bar(int a) const {
        f   return x;
        . }
        . }
    """,
    "ruby": """
        S require "x"

        D # About M.
        . module M
        f   class Foo < Bar
        f     attr_reader :x

        F     # About initialize.
        .     def initialize(x)
        f       @x = x
        S       if x
        f         one
        T         two
        -       else
        f         three
        .       end
        .     end

        F     def self.make
        f       new(1) do |a|
        f         four
        T         five
        .       end
        .     end
        .   end
        . end
    """,
    "bash": """
        S #!/bin/bash
        . set -e

        D # About foo.
        . foo() {
        f   local a=1
        S   for i in 1 2; do
        f     echo "$i"
        T     echo more
        .   done
        . }

        D function bar {
        f   case "$1" in
        f     a) echo 1 ;;
        T     *) echo 2 ;;
        .   esac
        . }
    """,
}

PATHS = {
    "python": ["Foo", "Foo.a", "Foo.b", "Foo.b.inner"],
    "javascript": ["make", "make.method", "make.other", "module.exports.bar", "Foo", "Foo.b"],
    "typescript": ["Foo", "Foo.handler", "Foo.method", "I", "N", "N.f", "N.g"],
    "tsx": ["Page"],
    "go": ["Server", "A", "B", "Server.Serve"],
    "rust": ["Foo", "Foo", "Foo.fmt", "tests", "tests.a", "tests.b"],
    "java": ["Foo", "Foo.bar", "Foo.Foo", "Foo.E"],
    "c": ["Point", "named", "f", "g"],
    "cpp": ["space", "space.Foo", "space.Foo.Foo", "space.Foo::bar"],
    "ruby": ["M", "M.Foo", "M.Foo.initialize", "M.Foo.make"],
    "bash": ["foo", "bar"],
}


def marked(source: str) -> tuple[str, list[str]]:
    """Split a source into its text and the letter before each of its lines that is not blank."""
    lines = dedent(source).strip("\n").split("\n")
    return "\n".join(line[2:] for line in lines) + "\n", [line[0] for line in lines if line]


def line_begins(text: str) -> list[int]:
    return [match.end() for match in re.finditer(r"(?:\A|\n)\s*+(?=\S)", text)]


@pytest.mark.parametrize("language", SOURCES)
def test_every_line_is_graded(language: str) -> None:
    text, letters = marked(SOURCES[language])
    outline = parse(text, language, line_begins(text))
    lines = [line for line in text.split("\n") if line]
    found = [f"{LETTERS[grade]} {line}" for grade, line in zip(outline.grades, lines, strict=True)]
    assert found == [f"{letter} {line}" for letter, line in zip(letters, lines, strict=True)]


@pytest.mark.parametrize("language", SOURCES)
def test_definitions_have_the_names_of_those_around_them(language: str) -> None:
    text, _ = marked(SOURCES[language])
    outline = parse(text, language, line_begins(text))
    assert [".".join(definition.path) for definition in outline.definitions] == PATHS[language]


def test_every_known_language_is_tested() -> None:
    assert set(SOURCES) == set(PATHS) == set(_GRAMMARS)
    for name, same in {"C++": "cpp", " Python": "python", "TypeScript": "typescript", "Shell": "bash"}.items():
        assert find_grammar(name) is find_grammar(same) is not None
    assert find_grammar("") is find_grammar("cobol") is None


@pytest.mark.parametrize("language", SOURCES)
def test_a_grammar_has_the_nodes_that_are_looked_for(language: str) -> None:
    grammar = find_grammar(language)
    assert grammar
    loaded = _load(grammar.module, grammar.function)
    for name in grammar.definitions | grammar.blocks | grammar.openers | grammar.wrappers:
        assert loaded.id_for_node_kind(name, True) is not None, name


@pytest.mark.parametrize("language", SOURCES)
def test_broken_sources_have_an_outline_too(language: str) -> None:
    text, _ = marked(SOURCES[language])
    for damage in ("((((", "}}}}", '"', "\x00", "@@ -1 +1 @@", "<<<<<<< ours\n"):
        broken = text[: len(text) // 2] + damage + text[len(text) // 2 :]
        places = line_begins(broken)
        outline = parse(broken, language, places)
        assert len(outline.grades) == len(places)
        assert all(0 <= definition.first < definition.last <= len(places) for definition in outline.definitions)


def test_what_still_parses_is_still_known() -> None:
    text = "def good():\n    return 1\n\ndef bad(:\n    return (\n\nclass Fine:\n    def method(self):\n        pass\n"
    paths = [definition.path for definition in parse(text, "python", line_begins(text)).definitions]
    assert ("good",) in paths
    assert ("Fine", "method") in paths or ("method",) in paths


def test_nesting_without_end_keeps_to_limits() -> None:
    depth = 2000
    text = "".join(f"{' ' * level}def f{level}():\n" for level in range(depth)) + " " * depth + "pass\n"
    outline = parse(text, "python", line_begins(text))
    assert max(len(definition.path) for definition in outline.definitions) == 16
    text = "(" * 50_000
    assert parse(text, "python", list(range(50_000))).definitions == []
