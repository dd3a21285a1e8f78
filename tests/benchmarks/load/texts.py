"""Public texts that lie on any machine with the project installed: what the load test's documents are made of.

The documents of the demo; the paragraphs of the evaluation set that ships; the documentation in large packages of
``constraints.txt`` (what stands between triple quotes), a document for each module; the standard library's sources.
"""

from __future__ import annotations

import re
import sysconfig
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

from encoder.evaluation.datasets import load_evaluation_set
from ingest.documents import Document

EVALUATION_SET = Path("encoder/evaluation/datasets/squad_xquad_en")
DEMO = Path("demo/documents")
DOCUMENTED = (
    "scipy",
    "numpy",
    "pandas",
    "sklearn",
    "matplotlib",
    "networkx",
    "sympy",
    "sqlalchemy",
    "torch",
    "transformers",
)
SOURCES = ("networkx", "sympy")  # beside the standard library's
_DOCUMENTATION = re.compile(r'"""(.*?)"""', re.DOTALL)
_DOCUMENTATION_CHARS_MIN = 80


def read_documents() -> Iterator[Document]:
    """Give all documents, always in the same order on machines of the same versions."""
    for file in sorted(DEMO.iterdir()):
        yield Document(f"demo/{file.name}", file.read_text(encoding="utf-8"), title=file.stem)
    for paragraph in load_evaluation_set(EVALUATION_SET).documents:
        yield Document(f"squad/{paragraph.document_id}", paragraph.text, title=paragraph.title)
    seen: set[str] = set()
    for package in DOCUMENTED:
        for name, source in _sources(_folder_of(package)):
            text = _documentation(source, seen)
            if text:
                yield Document(f"documentation/{name}", text, title=name.removesuffix(".py").replace("/", "."))
    for folder in (Path(sysconfig.get_path("stdlib")), *map(_folder_of, SOURCES)):
        for name, source in _sources(folder):
            yield Document(f"sources/{name}", source, title=name)


def read_questions() -> list[str]:
    """Give the questions of the evaluation set: 5 to 30 tokens each."""
    return list(load_evaluation_set(EVALUATION_SET).queries.values())


def _folder_of(package: str) -> Path:
    found = find_spec(package)
    if found is None or found.origin is None:
        raise SystemExit(f"Package {package} is not installed; run `make setup`.")
    return Path(found.origin).parent


def _sources(folder: Path) -> Iterator[tuple[str, str]]:
    """Give the names and texts of a folder's Python files; a few of the standard library's are broken on purpose."""
    for file in sorted(folder.rglob("*.py")):
        if "site-packages" in file.relative_to(folder).parts:
            continue
        text = file.read_text(encoding="utf-8", errors="ignore")
        if text.strip() and "\0" not in text:
            yield f"{folder.name}/{file.relative_to(folder)}", text


def _documentation(source: str, seen: set[str]) -> str:
    """Join what a source says of itself; what occurred before is left out."""
    parts = dict.fromkeys(found.strip() for found in _DOCUMENTATION.findall(source))
    new = [part for part in parts if len(part) >= _DOCUMENTATION_CHARS_MIN and part not in seen]
    seen.update(new)
    return "\n\n".join(new)
