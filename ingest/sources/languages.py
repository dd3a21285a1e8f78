"""Names of programming languages by the endings of files."""

from __future__ import annotations

from ingest.loading.kinds import suffix_of
from ingest.structure.grammars import find_grammar

_ENDINGS = {
    "Ada": "adb ads",
    "Assembly": "asm s",
    "C": "c h",
    "C#": "cs",
    "C++": "cc cpp cxx hh hpp hxx",
    "CMake": "cmake",
    "CSS": "css",
    "CUDA": "cu cuh",
    "Clojure": "clj cljc cljs",
    "Dart": "dart",
    "Elixir": "ex exs",
    "Erlang": "erl hrl",
    "F#": "fs fsi fsx",
    "Fortran": "f f90 f95 for",
    "Go": "go",
    "GraphQL": "gql graphql",
    "Groovy": "gradle groovy",
    "HTML": "htm html",
    "Haskell": "hs",
    "JSON": "json",
    "Java": "java",
    "JavaScript": "cjs js jsx mjs",
    "Julia": "jl",
    "Kotlin": "kt kts",
    "LaTeX": "tex",
    "Lua": "lua",
    "Markdown": "markdown md",
    "Nix": "nix",
    "OCaml": "ml mli",
    "Objective-C": "m mm",
    "PHP": "php",
    "Perl": "pl pm",
    "PowerShell": "ps1 psm1",
    "Protocol Buffers": "proto",
    "Python": "py pyi",
    "R": "r",
    "Ruby": "rb",
    "Rust": "rs",
    "SCSS": "scss",
    "SQL": "sql",
    "Scala": "sc scala",
    "Shell": "bash sh zsh",
    "Swift": "swift",
    "TOML": "toml",
    "Terraform": "hcl tf",
    "TypeScript": "cts mts ts tsx",
    "Vue": "vue",
    "XML": "xml xsd xsl",
    "YAML": "yaml yml",
    "Zig": "zig",
    "reStructuredText": "rst",
}
_BY_SUFFIX = {f".{ending}": language for language, endings in _ENDINGS.items() for ending in endings.split()}
_BY_NAME = {"Dockerfile": "Dockerfile", "Makefile": "Makefile", "CMakeLists.txt": "CMake", "Jenkinsfile": "Groovy"}
_NAMES = {language.lower() for language in (*_ENDINGS, *_BY_NAME.values())}


def language_of(name: str) -> str:
    """Name the language of a file; empty where its name says nothing."""
    return _BY_NAME.get(name.rpartition("/")[2]) or _BY_SUFFIX.get(suffix_of(name), "")


def is_source_language(language: object) -> bool:
    """Say whether a ``language`` of metadata is one that files are written in, as code is; "en" is none."""
    if not isinstance(language, str):
        return False
    return language.strip().lower() in _NAMES or find_grammar(language) is not None
