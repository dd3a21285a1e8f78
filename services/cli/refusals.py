"""Documents that were refused: told as they come, kept in a file where one is named, grouped at the end."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

from encoder.errors import InvalidInput

if TYPE_CHECKING:
    from rich.console import Console

    from ingest.receipts import Receipt

TOLD_MAX = 20  # as they come; the others are counted
GROUPS_MAX = 10
KINDS_MAX = 1000  # of reasons that are told apart
_QUOTED = re.compile(r"'(?:[^'\\]|\\.)*'|\"(?:[^\"\\]|\\.)*\"|\([^()]*\)")
_NUMBER = re.compile(r"(?<![\w-])\d[\d.,]*")
_OTHERS = "other reasons"


@dataclass(slots=True)
class Refusals:
    """The refusals of one run."""

    console: Console
    file: TextIO | None = None
    path: Path | None = None
    count: int = 0
    _kinds: dict[str, tuple[int, str]] = field(default_factory=dict)  # a reason to how many, and the first source

    def tell(self, receipt: Receipt) -> None:
        """Take a receipt that says why a document was refused."""
        self.count += 1
        name, reason = receipt.source or receipt.document_id, str(receipt.error)
        if self.file:
            row = {
                "source": receipt.source,
                "document_id": receipt.document_id,
                "field": receipt.field,
                "reason": reason,
            }
            # A name on disk may hold bytes that are no text.
            self.file.write(json.dumps(row, ensure_ascii=True) + "\n")
            self.file.flush()
        if self.count <= TOLD_MAX:
            named = reason if reason.startswith(name) else f"{name}: {reason}"
            self.console.print(f"refused: {named}", markup=False, soft_wrap=True)
        elif self.count == TOLD_MAX + 1:
            self.console.print("refused: more, which are counted, and grouped at the end", soft_wrap=True)
        kind = kind_of(receipt)
        if kind not in self._kinds and len(self._kinds) >= KINDS_MAX:
            kind = _OTHERS
        number, first = self._kinds.get(kind, (0, name))
        self._kinds[kind] = (number + 1, first)

    def summary(self) -> str:
        """Say which reasons there were, if they were not all told, and what to do next; empty where there were none."""
        if not self.count:
            return ""
        lines = []
        if self.count > TOLD_MAX:
            kinds = sorted(self._kinds.items(), key=lambda item: -item[1][0])
            lines += [f"{number:>9,}  {kind}; the first: {first}" for kind, (number, first) in kinds[:GROUPS_MAX]]
            if rest := sum(number for _, (number, _) in kinds[GROUPS_MAX:]):
                lines.append(f"{rest:>9,}  {_OTHERS}")
        where = f"each stands in {self.path}" if self.path else "--failures FILE writes each of them to a file"
        lines.append(
            f"{self.count:,} refused: {where}. Correct them and ingest again: what is unchanged costs nothing."
        )
        return "\n".join(lines)


@contextmanager
def collecting_refusals(console: Console, path: Path | None, sources: list[str]) -> Iterator[Refusals]:
    """Keep refusals, in ``path`` where one is given: JSON lines, written as they come.

    :class:`InvalidInput` for a file that cannot be written, or that lies in a folder that is to be read.
    """
    if path is None:
        yield Refusals(console)
        return
    inside = next((source for source in sources if _lies_in(path, source)), None)
    if inside:
        raise InvalidInput("failures", f"failures is {path}, which lies in {inside}; name a file elsewhere.")
    try:
        file = path.open("w", encoding="utf-8")
    except OSError as error:
        raise InvalidInput("failures", f"failures is {path}, which cannot be written ({error.strerror}).") from None
    with file:
        yield Refusals(console, file, path)


def kind_of(receipt: Receipt) -> str:
    """Give what refusals for one reason have in common: the reason without names, values and numbers."""
    reason = str(receipt.error)
    for name in (receipt.source, receipt.source.rpartition(":")[0], receipt.document_id):
        if name:
            reason = reason.removeprefix(name)
    reason = _NUMBER.sub("N", _QUOTED.sub("…", reason)).strip(" .:")
    return f"{receipt.field}: {reason}" if receipt.field else reason


def _lies_in(path: Path, source: str) -> bool:
    if source == "-" or ("://" in source and not source.lower().startswith("file:")):
        return False
    try:
        return path.resolve().is_relative_to(Path(source).resolve())
    except (OSError, ValueError):  # a source of no such name is refused by its own
        return False
