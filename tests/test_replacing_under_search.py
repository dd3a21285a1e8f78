"""A document replaced again and again under searches; ``make prove-reader`` is two hundred times on each backend."""

from pathlib import Path

import pytest

from services.search.results import SearchMode
from tests.benchmarks.replacing.replacing import READERS, STEPS, run

pytestmark = pytest.mark.filterwarnings("ignore:Payload indexes have no effect in the local Qdrant")


@pytest.mark.parametrize(("kind", "replacements"), [("engine", 60), ("server", 40)])
async def test_no_answer_mixes_versions_or_misses_the_document(kind: str, replacements: int, tmp_path: Path) -> None:
    found = await run(kind, replacements, tmp_path)
    assert found.problems == []
    assert found.replaced == replacements
    assert found.answers > READERS * len(SearchMode)
    assert all(found.failed[how] for how in ("batches partly applied", "answers lost"))
    assert found.never_passed(STEPS) == []
