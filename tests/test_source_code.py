"""Chunks of source code: whole lines, cut at definitions, and named by them."""

import functools
import logging
import os
import signal
import threading
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from encoder.model_config import DEFAULT_MODEL_FOLDER
from encoder.tokenizer import Tokenizer
from ingest.chunking import Chunk, Chunker
from ingest.documents import Document
from ingest.structure import code_parser, source_code
from ingest.structure.code_parser import CodeParser

LANGUAGES = ["python", "javascript", "typescript", "tsx", "go", "rust", "java", "c", "cpp", "ruby", "bash"]


@functools.cache
def tokenizer() -> Tokenizer:
    return Tokenizer.load(DEFAULT_MODEL_FOLDER)


@functools.cache
def chunker(tokens_max: int, overlap_tokens: int = 0) -> Chunker:
    return Chunker(tokenizer(), tokens_max, overlap_tokens)


def cut(text: str, language: str, tokens_max: int = 48, overlap_tokens: int = 0) -> list[Chunk]:
    return chunker(tokens_max, overlap_tokens).chunk(Document("d", text), language)


def check(text: str, chunks: list[Chunk], tokens_max: int) -> None:
    """Offsets and lines agree with the text, nothing is lost, nothing over the limit, no line needlessly divided."""
    end = 0
    for index, chunk in enumerate(chunks):
        assert chunk.chunk_index == index
        assert chunk.text == text[chunk.char_start : chunk.char_end] == chunk.text.strip() != ""
        assert not text[end : chunk.char_start].strip()
        assert 1 <= chunk.token_count <= tokens_max
        assert tokenizer().count(chunk.text) <= tokens_max
        assert chunk.line_start == 1 + text.count("\n", 0, chunk.char_start)
        assert chunk.line_end == 1 + text.count("\n", 0, chunk.char_end)
        line_start = text.rfind("\n", 0, chunk.char_start) + 1
        if text[line_start : chunk.char_start].strip():
            line = text[line_start:].partition("\n")[0]
            assert tokenizer().count(line) > tokens_max or len(line) > 16 * tokens_max
        end = chunk.char_end
    assert not text[end:].strip()


FUNCTION = '''
def {name}(first, second):
    """Say what {name} gives."""
    if first:
        return second + 1
    return first - 1

'''


def test_cuts_prefer_definitions() -> None:
    text = "import os\n" + "".join(FUNCTION.format(name=f"name{number}") for number in range(9))
    chunks = cut(text, "python", 64)
    check(text, chunks, 64)
    assert all(chunk.text.startswith("def ") for chunk in chunks[1:])
    assert [chunk.headings for chunk in chunks[1:3]] == [("name1",), ("name2",)]


def test_methods_are_cut_apart_with_what_belongs_to_them() -> None:
    method = (
        "\n    # About it.\n    @property\n    def name{}(self):\n        return self.given.name.first + 1 - self.two\n"
    )
    text = "class Outer:\n    class Inner:\n" + "".join(method.format(number) for number in range(6)).replace(
        "\n    ", "\n        "
    )
    chunks = cut(text, "python", 48)
    check(text, chunks, 48)
    assert [chunk.text.split("\n")[0] for chunk in chunks[1:]] == ["# About it."] * (len(chunks) - 1)
    assert [chunk.headings for chunk in chunks] == [("Outer",)] + [("Outer", "Inner", f"name{n}") for n in range(1, 6)]


def test_a_huge_function_is_cut_at_its_statements() -> None:
    text = "def huge(a):\n" + "".join(
        f"    for b in a[{number}]:\n        one(b, {number})\n        two(\n            b,\n        )\n"
        for number in range(60)
    )
    chunks = cut(text, "python", 64)
    check(text, chunks, 64)
    assert {chunk.text.split(" ")[0] for chunk in chunks[1:]} == {"for"}
    assert {chunk.headings for chunk in chunks} == {("huge",)}


def test_a_minified_line_is_cut_at_its_functions() -> None:
    text = "".join(f"function f{number}(a,b){{if(a){{return b+{number}}}return a(b,1,2)}}" for number in range(40))
    chunks = cut(text, "javascript", 64)
    check(text, chunks, 64)
    assert {chunk.text[:10] for chunk in chunks} == {"function f"}
    assert "".join(chunk.text for chunk in chunks) == text
    assert (chunks[-1].line_start, chunks[-1].line_end) == (1, 1)
    assert all(chunk.headings and f"function {chunk.headings[0]}(" in chunk.text for chunk in chunks)


def test_lines_with_carriage_returns() -> None:
    text = "".join(FUNCTION.format(name=f"name{number}") for number in range(9))
    plain, returned = cut(text, "python"), cut(text.replace("\n", "\r\n"), "python")
    check(text.replace("\n", "\r\n"), returned, 48)
    assert [(c.line_start, c.line_end, c.headings) for c in returned] == [
        (c.line_start, c.line_end, c.headings) for c in plain
    ]


def test_text_beyond_ascii() -> None:
    text = "# 日本語 🙂 é\n" * 3 + "".join(FUNCTION.format(name=f"größe{number}") for number in range(9))
    chunks = cut(text, "python", 64)
    check(text, chunks, 64)
    assert chunks[-1].headings == ("größe8",)


def test_an_overlap_begins_with_a_line() -> None:
    text = "".join(FUNCTION.format(name=f"name{number}") for number in range(9))
    chunks = cut(text, "python", 80, 24)
    own = cut(text, "python", 56)
    assert [chunk.char_end for chunk in chunks] == [chunk.char_end for chunk in own]
    assert [chunk.headings for chunk in chunks] == [chunk.headings for chunk in own]
    for chunk, plain in list(zip(chunks, own, strict=True))[1:]:
        assert chunk.char_start < plain.char_start
        assert not text[text.rfind("\n", 0, chunk.char_start) + 1 : chunk.char_start].strip()
        assert chunk.token_count <= 80


LINES = st.sampled_from(
    [
        "def f(a):",
        "class A:",
        "    return (a,",
        "  @decorated",
        "}",
        "{",
        "function g() {",
        "if (x) {",
        "// 日本語 é",
        "# comment",
        "",
        "\t",
        "x" * 150,
        "a = '" + "word " * 40 + "'",
        "f(" * 12,
        "\x00 \x01",
        "fn main() { let a = 1; }\r",
        "end",
        "/* open",
        '"""',
    ]
)


@given(
    lines=st.lists(LINES, min_size=1, max_size=80), language=st.sampled_from(LANGUAGES), tokens_max=st.integers(16, 64)
)
@settings(max_examples=300, deadline=None)
def test_any_text_in_any_language_keeps_the_promises(lines: list[str], language: str, tokens_max: int) -> None:
    text = "\n".join(lines)
    if tokenizer().encode(text):
        check(text, cut(text, language, tokens_max), tokens_max)


@pytest.mark.parametrize("language", ["", "markdown", "cobol"])
def test_other_languages_are_plain_text(language: str) -> None:
    text = "One sentence. Another one here. " * 30
    assert cut(text, language) == cut(text, "")


def test_without_grammars_code_is_plain_text_and_the_log_says_so_once(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(code_parser, "find_spec", lambda name: None)
    code_parser._is_installed.cache_clear()
    code_parser._say_missing.cache_clear()
    try:
        text = "# comment\n" + FUNCTION.format(name="name") * 5
        for language in ("python", "ruby"):
            chunks = cut(text, language)
            assert [chunk.text for chunk in chunks] == [chunk.text for chunk in cut(text, "")]
            assert {chunk.headings for chunk in chunks} == {()}
    finally:
        code_parser._is_installed.cache_clear()
        code_parser._say_missing.cache_clear()
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert "mamba-search[code]" in caplog.text


def test_a_source_over_the_limit_is_plain_text(monkeypatch: pytest.MonkeyPatch) -> None:
    text = FUNCTION.format(name="naïve") * 5
    monkeypatch.setattr(source_code, "SOURCE_BYTES_MAX", len(text.encode()))
    assert cut(text, "python")[0].headings == ("naïve",)
    monkeypatch.setattr(source_code, "SOURCE_BYTES_MAX", len(text.encode()) - 1)
    assert [chunk.text for chunk in cut(text, "python")] == [chunk.text for chunk in cut(text, "")]


@pytest.mark.skipif(not hasattr(os, "sched_getaffinity"), reason="limits of memory are Linux's")
def test_what_takes_too_much_memory_is_plain_text_and_the_next_source_is_not(caplog: pytest.LogCaptureFixture) -> None:
    made = Chunker(tokenizer(), 48)
    text = "a<" * 12_000  # of which the grammar of Java makes over a gigabyte
    assert made.chunk(Document("d", text), "java") == made.chunk(Document("d", text))
    assert "24000 characters of java ended with exit status -" in caplog.text
    assert made.chunk(Document("d", "class A {\n}\n"), "java")[0].headings == ("A",)


def test_what_takes_too_long_is_plain_text(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.setattr(code_parser, "WALL_S_MAX", 0.5)
    parser = CodeParser()
    assert parser.parse("->" * 10_000, "go", [0]) is None
    assert f"exit status {-signal.SIGKILL}" in caplog.text


def test_a_child_that_is_gone_is_replaced(caplog: pytest.LogCaptureFixture) -> None:
    parser = CodeParser()
    with caplog.at_level(logging.WARNING):
        assert parser.parse("a = 1\n", "python", [0])
        assert parser._child
        parser._child.kill()
        parser._child.wait()
        assert parser.parse("a = 1\n", "python", [0]) is None
        assert parser.parse("a = 1\n", "python", [0])
    assert len(caplog.records) == 1


def test_without_a_child_code_is_plain_text(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.setattr(code_parser.sys, "executable", "/nowhere/python")
    assert CodeParser().parse("a = 1\n", "python", [0]) is None
    assert "exit status None" in caplog.text


def test_the_child_ends_with_its_parser() -> None:
    parser = CodeParser()
    assert parser.parse("a = 1\n", "python", [0])
    child = parser._child
    assert child
    assert child.poll() is None
    del parser
    assert child.returncode is not None


def test_many_threads_share_a_parser() -> None:
    parser, found = CodeParser(), {}

    def parse(number: int) -> None:
        outline = parser.parse(f"def f{number}():\n    pass\n" * 50, "python", [0])
        found[number] = outline and outline.definitions[0].path

    threads = [threading.Thread(target=parse, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == {number: (f"f{number}",) for number in range(8)}


def test_our_own_sources() -> None:
    for path in sorted((Path(__file__).parent.parent / "ingest").glob("[a-z]*.py")):
        text = path.read_text(encoding="utf-8")
        chunks = cut(text, "python", 256)
        check(text, chunks, 256)
        for chunk in chunks:
            assert not chunk.headings or any(f"{word} {chunk.headings[-1]}" in text for word in ("def", "class"))
