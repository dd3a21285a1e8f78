"""A folder that is followed, looked at by hand: what is read, what goes, what stays."""

import json
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from encoder.errors import InUse
from ingest.documents import Document
from ingest.receipts import LoadError
from ingest.watching.changes import PATIENCE_S
from ingest.watching.folder import Look, WatchedFolder
from ingest.watching.state import FolderState


class Followed:
    """A folder whose documents are remembered in place of an index."""

    def __init__(self, root: Path, state: FolderState, *, prune: bool = False) -> None:
        self.root = root
        self.folder = WatchedFolder(root, state, prune=prune)
        self.now = 0.0
        self.index: dict[str, str] = {}
        self.refused: list[str] = []

    def look(self, after_s: float = 1.0) -> Look:
        self.now += after_s
        return self.folder.look(self.now)

    def catch_up(self, *, failing: tuple[str, ...] = ()) -> list[str]:
        """Look twice, as a change needs it, do what is to be done, and name the documents read."""
        self.look()
        look = self.look()
        read = []
        while reading := self.folder.next_reading(2):
            for item in self.folder.read(reading):
                if isinstance(item, LoadError):
                    self.refused.append(str(item.error))
                elif item.document_id in failing:
                    self.folder.set_aside(reading, item.document_id)
                else:
                    read.append(item.document_id)
                    self.index[item.document_id] = item.text
            self.folder.settle(reading, self.now)
        for key in self.folder.deletions(look, self.now, 100):
            self.index.pop(key.document_id, None)
            self.folder.deleted(key)
        return read


@pytest.fixture
def root(tmp_path: Path) -> Path:
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "a.txt").write_text("a")
    (folder / "sub").mkdir()
    (folder / "sub" / "b.txt").write_text("b")
    return folder


@pytest.fixture
def state(tmp_path: Path) -> Iterator[FolderState]:
    opened = FolderState(tmp_path / "state.sqlite", "folder")
    yield opened
    opened.close()


@pytest.fixture
def followed(root: Path, state: FolderState) -> Followed:
    made = Followed(root, state)
    assert made.catch_up() == ["a.txt", "sub/b.txt"]
    return made


def test_what_is_there_is_read_at_the_first_look(root: Path, state: FolderState) -> None:
    folder = WatchedFolder(root, state)
    assert folder.look(0.0) == Look()
    reading = folder.next_reading(10)
    assert reading
    assert [item.document_id for item in folder.read(reading) if isinstance(item, Document)] == ["a.txt", "sub/b.txt"]


def test_only_what_changes_is_read_again(followed: Followed) -> None:
    assert followed.catch_up() == []
    (followed.root / "a.txt").write_text("changed")
    (followed.root / "c.txt").write_text("new")
    (followed.root / "picture.png").write_bytes(b"\0")
    assert followed.look().is_waiting
    assert followed.folder.next_reading(10) is None
    assert followed.catch_up() == ["a.txt", "c.txt"]
    assert followed.index == {"a.txt": "changed", "sub/b.txt": "b", "c.txt": "new"}


def test_a_file_that_changes_while_it_is_read_is_read_again(followed: Followed) -> None:
    (followed.root / "a.txt").write_text("half")
    followed.look()
    followed.look()
    reading = followed.folder.next_reading(10)
    assert reading
    assert len(list(followed.folder.read(reading))) == 1
    (followed.root / "a.txt").write_text("half and half")
    followed.folder.settle(reading, followed.now)
    assert followed.catch_up() == ["a.txt"]
    assert followed.index["a.txt"] == "half and half"


def test_renamed_moved_in_and_deleted(followed: Followed, tmp_path: Path) -> None:
    (followed.root / "a.txt").rename(followed.root / "z.txt")
    elsewhere = tmp_path / "elsewhere" / "deep"
    elsewhere.mkdir(parents=True)
    (elsewhere / "e.txt").write_text("e")
    (tmp_path / "elsewhere").rename(followed.root / "moved")
    shutil.rmtree(followed.root / "sub")
    look = followed.look()
    assert followed.folder.deletions(look, followed.now, 100) == []  # before what has a new name is in
    assert len(followed.folder.deletions(look, followed.now + PATIENCE_S, 100)) == 2
    assert followed.catch_up() == ["moved/deep/e.txt", "z.txt"]
    assert followed.index == {"z.txt": "a", "moved/deep/e.txt": "e"}


def test_a_folder_that_vanishes_takes_nothing_along(followed: Followed, tmp_path: Path) -> None:
    followed.root.rename(tmp_path / "away")
    assert followed.look().is_away
    followed.root.mkdir()  # as where a disk is mounted
    assert followed.look().is_away
    assert followed.catch_up() == []
    assert sorted(followed.index) == ["a.txt", "sub/b.txt"]
    followed.root.rmdir()
    (tmp_path / "away").rename(followed.root)
    (followed.root / "a.txt").unlink()
    assert followed.catch_up() == []
    assert sorted(followed.index) == ["sub/b.txt"]
    (followed.root / "sub" / "b.txt").unlink()  # the same folder, and its last file
    followed.catch_up()
    assert followed.index == {}


def test_what_cannot_be_looked_at_stays(followed: Followed, monkeypatch: pytest.MonkeyPatch) -> None:
    plain = Path.iterdir

    def forbidden(path: Path) -> Iterator[Path]:
        if path.name == "sub":
            raise PermissionError(13, "Permission denied")
        return plain(path)

    monkeypatch.setattr(Path, "iterdir", forbidden)
    look = followed.look()
    assert [str(error.error) for error in look.errors] == [f"{followed.root}/sub cannot be read (Permission denied)."]
    assert followed.look().errors == ()  # told once
    assert followed.catch_up() == []
    assert sorted(followed.index) == ["a.txt", "sub/b.txt"]


def rows(*names: str) -> str:
    return "".join(json.dumps({"document_id": name, "text": f"text of {name}"}) + "\n" for name in names)


def test_rows_that_vanish_from_a_file_go(followed: Followed) -> None:
    (followed.root / "rows.jsonl").write_text(rows("one", "two", "three"))
    assert followed.catch_up() == ["one", "two", "three"]
    (followed.root / "rows.jsonl").write_text(rows("one", "three"))
    followed.catch_up()
    assert sorted(followed.index) == ["a.txt", "one", "sub/b.txt", "three"]
    (followed.root / "rows.jsonl").write_text(rows("one") + '{"document_id": "thr')  # still being written
    followed.catch_up()
    assert "three" in followed.index
    (followed.root / "rows.jsonl").rename(followed.root / "renamed.jsonl")
    followed.catch_up()
    assert sorted(followed.index) == ["a.txt", "one", "sub/b.txt"]


def test_a_file_that_cannot_be_read_keeps_what_it_gave(followed: Followed) -> None:
    (followed.root / "a.txt").write_bytes(b"")
    assert followed.catch_up() == []
    assert "is empty" in followed.refused[-1]
    assert followed.index["a.txt"] == "a"
    assert followed.catch_up() == []
    assert len(followed.refused) == 1  # it is not read again unless it changes
    (followed.root / "a.txt").unlink()
    followed.catch_up()
    assert sorted(followed.index) == ["sub/b.txt"]


def test_an_id_belongs_to_the_file_that_gave_it_first(followed: Followed) -> None:
    (followed.root / "m.jsonl").write_text(rows("one", "one"))
    assert followed.catch_up() == ["one"]
    (followed.root / "n.jsonl").write_text(rows("one", "two"))
    assert followed.catch_up() == ["two"]
    assert f"same document_id, 'one', as one of {followed.root}/m.jsonl" in followed.refused[-1]
    (followed.root / "m.jsonl").unlink()
    assert followed.catch_up() == ["one", "two"]
    followed.catch_up()
    assert sorted(followed.index) == ["a.txt", "one", "sub/b.txt", "two"]


def test_a_document_set_aside_is_read_again(followed: Followed) -> None:
    (followed.root / "a.txt").write_text("later")
    assert followed.catch_up(failing=("a.txt",)) == []
    assert followed.catch_up() == ["a.txt"]
    assert followed.catch_up() == []


def test_names_that_are_no_text(followed: Followed) -> None:
    name = followed.root / "caf\udce9.txt"
    name.write_text("x")
    followed.catch_up()
    name.unlink()
    followed.catch_up()
    assert sorted(followed.index) == ["a.txt", "sub/b.txt"]


@pytest.mark.parametrize("prune", [False, True])
def test_what_vanished_between_two_runs_goes_when_asked(root: Path, tmp_path: Path, *, prune: bool) -> None:
    first = FolderState(tmp_path / "state.sqlite", "folder")
    index = Followed(root, first)
    index.catch_up()
    with pytest.raises(InUse, match="folder is followed by another process"):
        FolderState(tmp_path / "state.sqlite", "folder")
    first.close()
    (root / "a.txt").unlink()
    (root / "rows.jsonl").write_text(rows("a.txt"))  # an id that the vanished file gave
    second = FolderState(tmp_path / "state.sqlite", "folder")
    later = Followed(root, second, prune=prune)
    later.index = index.index
    assert sorted(later.catch_up()) == ["a.txt", "sub/b.txt"]
    (root / "rows.jsonl").unlink()
    later.catch_up()
    assert sorted(later.index) == ["sub/b.txt"]
    second.close()
    shutil.rmtree(root / "sub")
    third = FolderState(tmp_path / "state.sqlite", "folder")
    last = Followed(root, third, prune=prune)
    last.index = later.index
    (root / "c.txt").write_text("c")
    last.catch_up()
    assert sorted(last.index) == (["c.txt"] if prune else ["c.txt", "sub/b.txt"])
    third.close()


def test_a_repository_is_followed_as_git_sees_it(root: Path, state: FolderState) -> None:
    subprocess.run(["git", "init", "-q"], cwd=root, check=True)
    (root / ".gitignore").write_text("*.log\n")
    (root / "x.log").write_text("ignored")
    (root / "main.rs").write_text("fn main() {}")
    followed = Followed(root, state)
    assert sorted(followed.catch_up()) == [".gitignore", "a.txt", "main.rs", "sub/b.txt"]
    (root / ".gitignore").write_text("sub/\n")
    assert sorted(followed.catch_up()) == [".gitignore", "x.log"]
    assert sorted(followed.index) == [".gitignore", "a.txt", "main.rs", "x.log"]
    shutil.rmtree(root / ".git" / "refs")  # git no longer reads it
    (root / "a.txt").unlink()
    look = followed.look()
    assert "cannot be read as a git repository" in str(look.errors[0].error)
    followed.catch_up()
    assert "a.txt" in followed.index


def test_a_reading_that_was_given_up_and_ends_late_takes_nothing_out(followed: Followed) -> None:
    """Its thread may still parse a file when a service is back and all is read again."""
    for name in ("a.txt", "sub/b.txt"):
        (followed.root / name).write_text("another text")
    followed.look()
    followed.look()
    given_up = followed.folder.next_reading(10)
    assert given_up
    late = followed.folder.read(given_up)
    look = followed.look()
    again = followed.folder.next_reading(10)
    assert again
    assert len(list(followed.folder.read(again))) == 2
    list(late)
    followed.folder.settle(again, followed.now)
    assert followed.folder.deletions(look, followed.now, 100) == []
