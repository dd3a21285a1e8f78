"""Git repositories: the text files that git tracks, or would. Knows git's list of them, and no history."""

from __future__ import annotations

import os
import stat
import subprocess
import tempfile
from collections import Counter
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from ingest.documents import MetadataValue
from ingest.files import FoundFile, failure, open_file, reason
from ingest.loading.kinds import Kind
from ingest.receipts import LoadError
from ingest.sources.languages import language_of

FILE_BYTES_MAX = 1024 * 1024
SAMPLE_BYTES = 8000  # of a file are looked at, as git does, to tell whether it is text
_LIST_COMMAND = (
    # A repository must not name a program to be run in its place.
    *("git", "-c", "core.fsmonitor=false", "ls-files"),
    *("-z", "--cached", "--others", "--exclude-standard", "--deduplicate"),
)
# A repository may be incomplete, and name a program that would fetch the rest.
_NO_FETCHING = {"GIT_NO_LAZY_FETCH": "1", "GIT_ALLOW_PROTOCOL": "none", "GIT_OPTIONAL_LOCKS": "0"}
_READ_BYTES = 1 << 16
_CONTROL = bytes(code for code in range(32) if code not in b"\t\n\r\f\b\x1b")


def is_repository(path: Path) -> bool:
    """Say whether a folder is the top of a repository; of a linked work tree, ``.git`` is a file."""
    git = path / ".git"
    return git.is_file() or (git / "HEAD").exists()


def find_tracked(root: Path, skipped: Counter[str]) -> Iterator[FoundFile | LoadError]:
    """Find the files of a repository as :func:`list_tracked` does; a :class:`LoadError` stands for one without any."""
    empty = True
    for found in list_tracked(root, skipped):
        empty = False
        yield found
    if empty:
        yield failure(root, f"{root} is a git repository without any text file; give another folder.")


def list_tracked(root: Path, skipped: Counter[str]) -> Iterator[FoundFile | LoadError]:
    """Find the files of a repository, ignored ones left out, in git's order; count in ``skipped`` what is no text.

    The name of a file is its path in the repository, which is its title as well.
    """
    inside = root.resolve()
    try:
        for name in _list_files(root):
            try:
                why = _why_skipped(root / name, inside)
                size = (root / name).lstat().st_size
            except FileNotFoundError:
                skipped["deleted"] += 1  # in the work tree, not yet in git; or this very moment
            except OSError as error:
                yield failure(root / name, f"{root / name} cannot be read ({reason(error)}).")
            else:
                if why:
                    skipped[why] += 1
                else:
                    yield tracked_file(root / name, name, size)
    except _GitFailed as error:
        yield failure(root, f"{root} cannot be read as a git repository ({error}); repair it, or give its folders.")


class _GitFailed(Exception):
    """Git is not there, or does not read the repository."""


def _list_files(root: Path) -> Iterator[str]:
    """Give the names as git writes them, not all at once."""
    # Inside a hook of git, such variables name another repository.
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}  # noqa: TID251
    environment = {**inherited, **_NO_FETCHING}
    with tempfile.TemporaryFile() as messages:
        try:
            git = subprocess.Popen(  # noqa: S603 - no word of it is from outside
                _LIST_COMMAND,
                cwd=root,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=messages,
                bufsize=0,  # a read gives what is there
            )
        except OSError as error:
            raise _GitFailed(f"git does not start: {reason(error)}") from None
        with git:
            assert git.stdout
            rest = b""
            try:
                while block := git.stdout.read(_READ_BYTES):
                    *names, rest = (rest + block).split(b"\0")
                    yield from map(os.fsdecode, names)
            finally:
                git.stdout.close()  # git ends at its next name where the rest is not wanted
        if git.returncode:
            messages.seek(0)
            raise _GitFailed(messages.read(300).decode(errors="replace").strip() or f"exit status {git.returncode}")


def _why_skipped(path: Path, inside: Path) -> str:
    """Say why a file is none to read; empty where it is one."""
    status = path.lstat()
    if stat.S_ISLNK(status.st_mode):
        return "links"
    if not stat.S_ISREG(status.st_mode):
        return "submodules"
    if not path.resolve().is_relative_to(inside):
        return "links"  # a folder on the way is one
    if status.st_size > FILE_BYTES_MAX:
        return f"over {FILE_BYTES_MAX} bytes"
    with path.open("rb") as stream:
        sample = stream.read(SAMPLE_BYTES)
    if not sample.strip():
        return "empty" if status.st_size <= SAMPLE_BYTES else ""
    return "binary" if _is_binary(sample) else ""


def _is_binary(sample: bytes) -> bool:
    if b"\0" in sample:
        return True
    try:
        sample.decode()
    except UnicodeDecodeError as error:
        cut_at_end = error.end == len(sample) and error.reason == "unexpected end of data"
        return not cut_at_end and len(sample.translate(None, _CONTROL)) < len(sample)
    return False


def tracked_file(path: Path, name: str, size: int) -> FoundFile:
    """Describe a file of a repository."""
    metadata: dict[str, MetadataValue] = {"path": name}
    if language := language_of(name):
        metadata["language"] = language
    return FoundFile(path.as_posix(), name, size, Kind.TEXT, partial(open_file, path), metadata, title=name)
