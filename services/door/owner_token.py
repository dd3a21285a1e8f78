"""The token that the index owner of a data directory asks for: beside the data, for whoever may read them."""

from __future__ import annotations

import os
from pathlib import Path

FILE_NAME = "index-owner.token"


def write_owner_token(data_dir: Path, token: str) -> None:
    """Write it where only the directory's owner can read it."""
    data_dir.mkdir(parents=True, exist_ok=True)
    path = data_dir / FILE_NAME
    draft = path.with_suffix(".new")
    draft.unlink(missing_ok=True)
    number = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(number, "w", encoding="utf-8") as file:
        file.write(token)
    draft.replace(path)


def read_owner_token(data_dir: Path) -> str | None:
    """Read it; None where there is none."""
    try:
        return (data_dir / FILE_NAME).read_text(encoding="utf-8").strip() or None
    except (OSError, UnicodeDecodeError):
        return None
