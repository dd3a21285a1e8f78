"""What follows a folder, and a target that does not take all."""

from __future__ import annotations

import io
from collections.abc import AsyncGenerator, Iterator
from contextlib import closing
from pathlib import Path

from rich.console import Console

from encoder.errors import InvalidInput
from ingest.documents import Document
from ingest.receipts import LoadError, Outcome, Receipt
from ingest.watching.folder import WatchedFolder
from ingest.watching.state import FolderState
from services.cli.refusals import Refusals
from services.cli.tally import Tally
from services.cli.watch import Follower


class Refusing:
    """A target that refuses documents, and to delete them, as a worker does whose limits their ids break."""

    async def ingest(self, items: Iterator[Document | LoadError]) -> AsyncGenerator[Receipt, None]:
        for item in items:
            error = InvalidInput("document_id", "document_id is too long.")
            yield Receipt(item.document_id, "", Outcome.REJECTED, error=error)

    async def delete(self, key: object) -> None:
        raise InvalidInput("document_id", "document_id is too long.")


async def test_a_document_that_no_index_can_have_is_forgotten(tmp_path: Path) -> None:
    """Else each run would end over it, for ever."""
    file = tmp_path / "folder" / "rows.jsonl"
    file.parent.mkdir()
    file.write_text(f'{{"id": "{"a" * 9999}", "text": "one"}}\n')
    with closing(FolderState(tmp_path / "state.sqlite", "folder")) as state:
        folder = WatchedFolder(file.parent, state)
        follower = Follower(folder, Refusing(), Tally(), Refusals(Console(file=io.StringIO())))
        await follower._catch_up(folder.look(0.0))
        file.unlink()
        await follower._catch_up(folder.look(0.0))
        assert state.without_file(2.0, 10) == []
