"""HTTP and its page over the real search service and a real index; only the model is a stand-in."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from playwright.async_api import expect

from encoder.fingerprint import index_fingerprint
from encoder.interface import Encoder
from encoder.model_config import DEFAULT_MODEL_FOLDER
from encoder.tokenizer import Tokenizer
from ingest.chunking import Chunker
from ingest.documents import Document
from ingest.index.embedded import EmbeddedIndex
from ingest.index.interface import VectorIndex
from ingest.journal import Journal
from ingest.pipeline import Ingestor
from services.backends import Backends
from services.http.guard import Limits
from services.search.many import StreamLimits
from services.search.searcher import Searcher
from services.search_service import SearchServicer
from tests.fakes import FakeEncoder
from tests.http.browser import NO_CHROMIUM, browser
from tests.http.serving import Served, served

ROOT = Path(__file__).parents[2] / "demo" / "documents"
QUERY = "geothermal electricity capacity in Kenya"


async def documents() -> AsyncIterator[Document]:
    for name, title, year in [
        ("factbook-kenya.md", "Kenya (The World Factbook)", 2025),
        ("alice-in-wonderland.txt", "Alice’s Adventures in Wonderland", 1865),
    ]:
        text = (ROOT / name).read_text(encoding="utf-8")[:40_000]
        yield Document(name, text, title=title, source=name, metadata={"year": year})


@pytest.fixture
async def http(tmp_path: Path) -> AsyncIterator[Served]:
    encoder, tokenizer = FakeEncoder(), Tokenizer.load(DEFAULT_MODEL_FOLDER)
    chunker = Chunker(tokenizer)
    index = await EmbeddedIndex.open(
        tmp_path, dimension=384, fingerprint=index_fingerprint("fake", chunker.fingerprint), write_bytes_min=0
    )
    journal = await Journal.open()
    receipts = Ingestor(encoder, index, chunker, journal).ingest_all(documents())
    assert [receipt.error async for receipt in receipts] == [None, None]

    async def open_index(dimension: int, fingerprint: str) -> VectorIndex:
        return index

    def make(used: Encoder, opened: VectorIndex) -> Searcher:
        return Searcher(used, opened, tokenizer)

    backends = Backends(encoder, open_index, make, chunker.fingerprint)
    assert await backends.check() is None
    servicer = SearchServicer(backends, timeout_s=20, concurrency_max=8, stream_limits=StreamLimits(idle_s=5, send_s=5))
    limits = Limits(body_bytes_max=2**20, body_timeout_s=5, requests_max=50)
    async with served(limits=limits, real=servicer, timeout_s=30) as made:
        yield made
    await backends.close()
    await journal.close()


async def test_every_method_answers_from_the_index(http: Served) -> None:
    asked = {"query": QUERY, "group_by_document": {"chunks_max": 2}, "explain": True}
    found = (await http.client.post("/v1/search", json=asked)).json()
    best = found["groups"][0]
    assert (best["title"], best["metadata"]) == ("Kenya (The World Factbook)", {"year": {"integer": 2025}})
    assert len(best["hits"]) == 2
    assert best["hits"][0]["explanation"]["summary"]
    old = {"filter": {"range": {"field": "metadata.year", "below": {"integer": 1900}}}}
    filtered = (await http.client.post("/v1/search", json={**asked, **old})).json()
    assert [group["document_id"] for group in filtered["groups"]] == ["alice-in-wonderland.txt"]
    few = (await http.client.post("/v1/search", json={**asked, "read_mask": "groups.hits.chunk_index"})).json()
    assert few["groups"][0]["hits"][0]["chunk_index"] == best["hits"][0]["chunk_index"]
    assert few["groups"][0]["title"] == ""
    context = (await http.client.post("/v1/retrieve", json={"query": QUERY, "token_budget": 500})).json()
    assert "[1] Kenya (The World Factbook)" in context["context"]
    assert 0 < context["context_tokens"] <= 500
    place = best["hits"][0]["chunk_index"]
    chunks = (await http.client.get(f"/v1/documents/factbook-kenya.md/chunks?chunk_index_first={place}")).json()
    assert chunks["chunks"][0]["text"] == best["hits"][0]["text"]
    similar = (await http.client.post("/v1/similar", json={"document_id": "factbook-kenya.md"})).json()
    assert [group["document_id"] for group in similar["documents"]] == ["alice-in-wonderland.txt"]


async def test_pages_go_on_where_the_one_before_ended(http: Served) -> None:
    asked = {"query": "the electricity and the rabbit", "top_k": 1, "group_by_document": {}}
    first = (await http.client.post("/v1/search", json=asked)).json()
    second = (await http.client.post("/v1/search", json={**asked, "page_token": first["next_page_token"]})).json()
    assert first["groups"][0]["document_id"] != second["groups"][0]["document_id"]
    other = {**asked, "query": "another", "page_token": first["next_page_token"]}
    refused = await http.client.post("/v1/search", json=other)
    assert (refused.status_code, refused.json()["error"]["field"]) == (400, "page_token")


@NO_CHROMIUM
async def test_the_page_searches_and_reads(http: Served) -> None:
    async with http.socket() as port, browser() as chromium:
        page = await chromium.new_page(viewport={"width": 1280, "height": 800})
        page.set_default_timeout(30_000)
        await page.goto(f"http://127.0.0.1:{port}/")
        await page.fill("#query", QUERY)
        await page.press("#query", "Enter")
        group = page.locator(".group").first
        await expect(group.locator("h2")).to_have_text("Kenya (The World Factbook)", timeout=30_000)
        assert "geothermal" in await group.locator("mark").all_text_contents()
        await group.locator(".hit").first.click()
        await expect(page.locator(".reader .passage")).to_be_in_viewport(timeout=30_000)
        await expect(page.locator(".reader [data-chunk]").nth(3)).to_be_attached(timeout=30_000)
        await page.click("#add-filter")
        await page.locator(".filter-row .field").fill("metadata.year")
        await page.locator(".filter-row .operator").select_option("below")
        await page.locator(".filter-row .value").fill("1900")
        await page.press("#query", "Enter")
        await expect(page.locator(".group h2")).to_have_text(["Alice’s Adventures in Wonderland"], timeout=30_000)
        http.parts.stopping.set()
