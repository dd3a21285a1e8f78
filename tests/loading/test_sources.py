"""What a name means: patterns, git repositories; and how much memory many documents need."""

import subprocess
import tracemalloc
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from ingest.documents import Document
from ingest.expected import Expected, expect
from ingest.loaders import load_documents
from ingest.loading.seen import SeenDocuments
from ingest.receipts import LoadError
from ingest.sources.globs import matches
from tests.loading.files import load, make_pdf, the_document, the_error, write


def ids(found: list[Document | LoadError]) -> list[str]:
    return [item.document_id if isinstance(item, Document) else f"error in {item.source}" for item in found]


@pytest.mark.parametrize(
    ("pattern", "name", "expected"),
    [
        ("*.md", "a.md", True),
        ("*.md", "a/b.md", False),
        ("*/*.md", "a/b.md", True),
        ("**/*.md", "a.md", True),
        ("**/*.md", "a/b/c.md", True),
        ("**/b/**/*.md", "a/b/c.md", True),
        ("**/b/**/*.md", "b/c/d/e.md", True),
        ("**/b/**/*.md", "a/c.md", False),
        ("**", "a/b.txt", True),
        ("a?[b-d].txt", "axc.txt", True),
        ("a?[!b-d].txt", "axc.txt", False),
        ("*.MD", "a.md", False),
        ("/".join(["**"] * 30) + "/x", "/".join(["y"] * 60), False),
    ],
)
def test_patterns(pattern: str, name: str, expected: bool) -> None:
    assert matches(name, pattern.split("/")) is expected


def test_files_by_a_pattern(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("docs/a.md", "docs/b.rst", "docs/sub/c.md", "docs/.hidden/d.md", "docs/[x].md", "e.md"):
        write(tmp_path / name, "x")
    (tmp_path / "docs" / "up").symlink_to(tmp_path)
    (tmp_path / "docs" / "in").symlink_to(tmp_path / "docs" / "sub")
    out = f"error in {tmp_path}/docs/up"
    assert ids(load(f"{tmp_path}/docs/**/*.md")) == ["[x].md", "a.md", "sub/c.md", out]
    assert ids(load(f"{tmp_path}/docs/*.rst")) == ["b.rst"]
    assert ids(load(f"{tmp_path}/*/*.md")) == ["docs/[x].md", "docs/a.md"]
    assert ids(load(f"{tmp_path}/docs/[x].md")) == ["[x].md"]  # a file of that name goes first
    monkeypatch.chdir(tmp_path)
    assert ids(load("*.md")) == ["e.md"]
    assert the_error(load("docs/*.pdf")) == "docs/*.pdf names no file; correct the pattern."
    assert the_error(load("nowhere/*.md")) == "nowhere/*.md names no file; correct the pattern."
    assert expect(["docs/*.md", "docs/*.rst"]) == Expected(documents=3, text_bytes=3)


def git(folder: Path, *arguments: str) -> None:
    identity = ["-c", "user.name=x", "-c", "user.email=x@example.org"]
    subprocess.run(["git", *identity, *arguments], cwd=folder, check=True, capture_output=True)


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    root = tmp_path / "repository"
    for name, content in {
        "src/main.py": "print('x')\n",
        "README.md": "# Heading\n",
        "Makefile": "all:\n",
        "notes": "words",
        "data.csv": "a,b\n1,2\n",
        ".gitignore": "*.log\nbuild/\n",
        "deleted.py": "x",
        "large.txt": "x" * (1024 * 1024 + 1),
        "picture.dat": b"\x89PNG\r\n\x1a\n\0",
        "paper.pdf": b"%PDF-1.4\n\xe2\xe3\xcf\xd3\x01",
        "__init__.py": "",
    }.items():
        write(root / name, content)
    git(root, "init")
    git(root, "add", ".")
    git(root, "commit", "-m", "x")
    (root / "deleted.py").unlink()
    write(root / "debug.log", "ignored")
    write(root / "build" / "out.py", "ignored")
    write(root / "untracked.rs", "fn main() {}")
    write(tmp_path / "secret.txt", "S")
    (root / "link.txt").symlink_to(tmp_path / "secret.txt")
    return root


def test_a_repository(repository: Path) -> None:
    skipped: Counter[str] = Counter()
    found = list(load_documents([repository], skipped=skipped))
    languages = {item.document_id: item.metadata.get("language") for item in found if isinstance(item, Document)}
    assert languages == {
        ".gitignore": None,
        "Makefile": "Makefile",
        "README.md": "Markdown",
        "data.csv": None,
        "notes": None,
        "src/main.py": "Python",
        "untracked.rs": "Rust",
    }
    assert len(found) == len(languages)
    expected = {"binary": 2, "deleted": 1, "empty": 1, "links": 1, "over 1048576 bytes": 1}
    assert skipped == expected
    (main,) = (item for item in found if isinstance(item, Document) and item.document_id == "src/main.py")
    assert main == Document(
        "src/main.py",
        "print('x')\n",
        "src/main.py",
        (repository / "src/main.py").as_posix(),
        {"path": "src/main.py", "language": "Python"},
    )


def test_a_linked_work_tree_is_a_repository(repository: Path, tmp_path: Path) -> None:
    git(repository, "worktree", "add", str(tmp_path / "tree"))
    assert (tmp_path / "tree" / ".git").is_file()
    assert "src/main.py" in ids(load(tmp_path / "tree"))


def test_files_of_a_repository_that_vanish_or_are_of_another_encoding(repository: Path) -> None:
    write(repository / "a.py", "x")
    write(repository / "latin.py", b"# caf\xe9\n")
    found = load_documents([repository])
    next(found)
    (repository / "README.md").unlink()
    rest = list(found)
    assert f"{repository}/latin.py is not UTF-8 (byte 5)" in str([item for item in rest if isinstance(item, LoadError)])
    assert "README.md" not in ids(rest)


def test_a_repository_runs_no_program_of_its_own(repository: Path, tmp_path: Path) -> None:
    hook = write(tmp_path / "hook", f"#!/bin/sh\ntouch {tmp_path}/ran\n")
    hook.chmod(0o755)
    git(repository, "config", "core.fsmonitor", str(hook))
    assert len(load(repository)) > 5
    assert not (tmp_path / "ran").exists()


def test_a_repository_that_git_does_not_read(repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path / "other" / ".git", "gitdir: /nowhere\n")
    assert "other cannot be read as a git repository (fatal: not a git repository: /nowhere)" in the_error(
        load(tmp_path / "other")
    )
    git(write(tmp_path / "empty" / "a.bin", b"\0").parent, "init")
    assert "is a git repository without any text file" in the_error(load(tmp_path / "empty"))
    monkeypatch.setenv("PATH", str(tmp_path))
    assert "(git does not start: No such file or directory)" in the_error(load(repository))


def test_inside_a_hook_the_repository_named_is_read(repository: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GIT_DIR", "/nowhere")
    assert "src/main.py" in ids(load(repository))


def test_a_part_of_a_repository_is_a_folder(repository: Path) -> None:
    write(repository / "src" / "a.md", "x")
    assert ids(load(repository / "src")) == ["a.md"]
    assert ids(load(repository / "src" / "main.py")) == ["main.py"]


def test_ids_of_many_documents_need_little_memory() -> None:
    seen = SeenDocuments()
    tracemalloc.start()
    for number in range(20_000):
        seen.add(Document(str(number), "", source="rows.jsonl"))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    seen.close()
    assert peak < 200_000


def test_many_documents_need_no_more_memory_than_few(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    with path.open("w") as file:
        file.write("text\n")
        for number in range(20_000):
            file.write(f"row {number} {'x' * 500}\n")
    tracemalloc.start()
    assert sum(isinstance(item, Document) for item in load_documents([path])) == 20_000
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 2_000_000


def test_an_iteration_that_is_given_up_ends_its_reader(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[subprocess.Popen[bytes]] = []

    def start(*arguments: Any, **more: Any) -> subprocess.Popen[bytes]:
        started.append(popen(*arguments, **more))
        return started[-1]

    popen = subprocess.Popen
    monkeypatch.setattr(subprocess, "Popen", start)
    write(tmp_path / "a.pdf", make_pdf("A"))
    write(tmp_path / "b.pdf", make_pdf("B"))
    found = load_documents([tmp_path])
    assert the_document([next(found)]).text == "A"
    assert [child.poll() for child in started] == [None]
    found.close()  # type: ignore[attr-defined]
    assert started[0].poll() is not None
