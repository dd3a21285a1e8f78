from collections.abc import AsyncIterator

import pytest

from tests.searching.corpora import Corpus
from tests.searching.service import Service, serving


@pytest.fixture
def corpus() -> Corpus:
    return Corpus()


@pytest.fixture
async def service(corpus: Corpus) -> AsyncIterator[Service]:
    async with serving(corpus) as running:
        yield running
