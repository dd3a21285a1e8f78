"""The process that parses source code: ``python -m ingest.structure.parsing``, started by ``code_parser``.

It reads a request a line and answers with a line, both JSON, until its input ends. Its limits of memory and time end it
in the middle of a request that would be too much.
"""

from __future__ import annotations

import json
import resource
import signal
import sys
from functools import cache
from importlib import import_module

from tree_sitter import Language, Parser

from ingest.structure.code_parser import CPU_S_MAX, MEMORY_BYTES_MAX
from ingest.structure.grammars import find_grammar
from ingest.structure.outline import Outline, read_outline


def main() -> None:
    """Answer requests, one at a time."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES_MAX, MEMORY_BYTES_MAX))
    for line in sys.stdin.buffer:
        request = json.loads(line)
        signal.setitimer(signal.ITIMER_PROF, CPU_S_MAX)  # its signal ends this process
        outline = parse(request["source"], request["language"], request["places"])
        signal.setitimer(signal.ITIMER_PROF, 0)
        sys.stdout.buffer.write(json.dumps([outline.grades, outline.definitions]).encode() + b"\n")
        sys.stdout.buffer.flush()


def parse(source: str, language: str, places: list[int]) -> Outline:
    """Parse a source in a language that ``grammars`` knows and read its outline; ``places`` are byte offsets."""
    grammar = find_grammar(language)
    if grammar is None:
        raise ValueError(f"No grammar is known for language {language!r}.")
    data = source.encode()
    tree = Parser(_load(grammar.module, grammar.function)).parse(data)
    return read_outline(tree.root_node, grammar, data, places)


@cache
def _load(module: str, function: str) -> Language:
    return Language(getattr(import_module(module), function)())


if __name__ == "__main__":
    main()
