"""The search page in a real browser, against the real application over HTTP."""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path

from mambasearch.v1 import search_pb2
from playwright.async_api import Page, expect

from encoder.errors import EncoderUnavailable, Overloaded
from services.door.audit import AuditLog
from services.door.authenticating import Authenticator
from services.door.door import Door
from services.door.key_ring import KeyRing, create_key
from services.door.keys import KeyWishes
from services.door.places import Places
from services.door.principal import Limits, Role
from services.door.quotas import Quotas
from services.http.guard import Limits as RequestLimits
from tests.http.browser import NO_CHROMIUM, browser
from tests.http.fake_search import ORCHARD
from tests.http.serving import Served, served

pytestmark = NO_CHROMIUM

LONG = "\n\n".join(
    f"Paragraph {number} tells of {'a lighthouse keeper' if number == 50 else 'the sea'}.\nIt rained on day {number}."
    for number in range(100)
)
HOSTILE = '<img src=x onerror="window.hacked=1"><script>window.hacked=1</script>'
DOCUMENTS = {
    "orchard": ("Orchard notes", ORCHARD),
    "notes/long.md": ("The long watch", LONG),
    f'"><b>{HOSTILE}': (HOSTILE, f"# {HOSTILE}\n\nWasps {HOSTILE} and wasps again."),
}
WIDE = {"width": 1280, "height": 800}
PHONE = {"width": 390, "height": 844}


@dataclass
class Opened:
    page: Page
    http: Served
    addresses: list[str] = field(default_factory=list)
    complaints: list[str] = field(default_factory=list)

    async def search(self, query: str) -> None:
        await self.page.fill("#query", query)
        await self.page.press("#query", "Enter")
        await expect(self.page.locator("#results .hit").first).to_be_visible()


@contextlib.asynccontextmanager
async def opened(
    door: Door | None = None, *, size: dict[str, int] = WIDE, scheme: str = "light", path: str = ""
) -> AsyncIterator[Opened]:
    limits = RequestLimits(body_bytes_max=2**20, body_timeout_s=5, requests_max=50)
    async with served(door, limits=limits, documents=DOCUMENTS) as http, http.socket() as port, browser() as chromium:
        context = await chromium.new_context(viewport=size, color_scheme=scheme)  # type: ignore[arg-type]
        page = await context.new_page()
        page.set_default_timeout(30_000)
        shown = Opened(page, http)
        page.on("request", lambda request: shown.addresses.append(request.url))
        page.on("pageerror", lambda error: shown.complaints.append(str(error)))
        page.on("console", lambda line: shown.complaints.append(line.text) if line.type == "error" else None)
        await page.goto(f"http://127.0.0.1:{port}/{path}")
        yield shown
        # Nothing comes from elsewhere.
        assert all(address.startswith(f"http://127.0.0.1:{port}/") for address in shown.addresses)
        await context.close()
        http.parts.stopping.set()


async def test_a_search_shows_documents_with_their_passages() -> None:
    async with opened() as shown:
        page = shown.page
        await expect(page.locator("#query")).to_be_focused()
        await expect(page.locator("#message")).to_contain_text("Search in long documents")
        await expect(page.locator("#status-text")).to_have_text("Ready")
        await shown.search("pruned apples in winter")
        group = page.locator(".group").first
        await expect(group.locator("h2")).to_have_text("Orchard notes")
        await expect(group.locator(".id")).to_have_text("orchard")
        await expect(group.locator(".path").first).to_have_text("Orchard notes")
        assert {"apples", "winters"} <= {text.lower() for text in await group.locator("mark").all_text_contents()}
        await expect(page.locator("#summary")).to_contain_text(re.compile(r"^\d documents? · \d+ ms$"))
        await expect(group.locator(".score-detail").first).to_be_hidden()
        await group.locator(".score").first.click()
        await expect(group.locator(".score-detail").first).to_contain_text("Meaning (cosine)")
        await expect(group.locator(".score-detail").first).to_contain_text("half cosine, half words")
        asked = shown.http.search.asked[-1]
        assert (asked.top_k, asked.group_by_document.chunks_max, asked.explain) == (10, 3, True)
        assert not shown.complaints


async def test_modes_and_filters_reach_the_search() -> None:
    async with opened() as shown:
        page = shown.page
        await shown.search("wasps")
        await page.get_by_label("Words", exact=True).check()
        await expect(page.locator("#results")).not_to_have_attribute("aria-busy", "true")
        assert shown.http.search.asked[-1].mode == search_pb2.SEARCH_MODE_SPARSE
        await page.get_by_label("Meaning", exact=True).check()
        for row, (name, operator, value) in enumerate(
            [("metadata.year", "at_least", "2015"), ("title", "is_not", '"12"'), ("metadata.day", "is", "2026-01-02")]
        ):
            await page.click("#add-filter")
            await page.locator(".filter-row .field").nth(row).fill(name)
            await page.locator(".filter-row .operator").nth(row).select_option(operator)
            await page.locator(".filter-row .value").nth(row).fill(value)
        await page.press("#query", "Enter")
        await expect(page.locator("#results")).not_to_have_attribute("aria-busy", "true")
        await page.wait_for_timeout(300)
        asked = shown.http.search.asked[-1]
        assert asked.mode == search_pb2.SEARCH_MODE_DENSE
        year, title, day = asked.filter.all_of.filters
        assert year.range.at_least.integer == 2015
        assert title.negated.equals.value.text == "12"
        assert day.any_of.filters[0].equals.value.time.ToJsonString() == "2026-01-02T00:00:00Z"
        assert day.any_of.filters[1].equals.value.text == "2026-01-02"
        offered = await page.locator("#filter-fields option").evaluate_all("all => all.map(one => one.value)")
        assert {"title", "metadata.year"} <= set(offered)
        for _ in range(3):
            await page.locator(".filter-row").first.get_by_text("Remove").click()
        await page.wait_for_timeout(500)
        assert not shown.http.search.asked[-1].HasField("filter")
        assert not shown.complaints


async def test_a_passage_is_read_in_its_document_and_more_of_it_loads() -> None:
    async with opened() as shown:
        page = shown.page
        await shown.search("lighthouse keeper")
        await page.keyboard.press("ArrowDown")
        await expect(page.locator(".hit").first).to_be_focused()
        await page.keyboard.press("Enter")
        passage = page.locator(".reader .passage")
        await expect(passage).to_have_attribute("data-chunk", "50")
        await expect(page.locator(".reader h2")).to_have_text("The long watch")
        await expect(page.locator('.reader [data-chunk="44"]')).to_have_count(1)
        await expect(passage.locator("mark")).to_have_text(["lighthouse", "keeper"])
        await expect(passage).to_be_in_viewport()
        body = page.locator(".reader-body")
        await body.evaluate("element => element.scrollTo(0, element.scrollHeight)")
        await expect(page.locator('.reader [data-chunk="70"]')).to_have_count(1)
        for _ in range(4):
            await body.evaluate("element => element.scrollTo(0, 0)")
            await page.wait_for_timeout(200)
        await expect(page.locator('.reader [data-chunk="0"]')).to_have_count(1)
        indexes = await page.locator(".reader [data-chunk]").evaluate_all("all => all.map(p => +p.dataset.chunk)")
        assert indexes == list(range(indexes[0], indexes[-1] + 1))
        await page.keyboard.press("Escape")
        await expect(page.locator(".reader .passage")).to_have_count(0)
        await expect(page.locator(".hit").first).to_be_focused()
        assert not shown.complaints


async def test_the_page_is_used_by_keys_alone() -> None:
    async with opened() as shown:
        page = shown.page
        await shown.search("wasps sea keeper")
        await page.keyboard.press("ArrowDown")
        for key, place in [("j", 1), ("j", 2), ("k", 1), ("ArrowUp", 0), ("k", 0), ("ArrowDown", 1)]:
            await page.keyboard.press(key)
            await expect(page.locator(".hit").nth(place)).to_be_focused()
        await page.keyboard.press("/")
        await expect(page.locator("#query")).to_be_focused()
        assert await page.input_value("#query") == "wasps sea keeper"
        await page.keyboard.type("j/k")
        assert await page.input_value("#query") == "j/k"
        outline = await page.locator("#query").evaluate("element => getComputedStyle(element).outlineStyle")
        assert outline == "solid"


async def test_nothing_that_documents_hold_becomes_markup() -> None:
    async with opened() as shown:
        page = shown.page
        await shown.search(f"wasps {HOSTILE}")
        group = page.locator(".group").filter(has_text="onerror").first
        await expect(group.locator("h2")).to_have_text(HOSTILE)
        await group.locator(".hit").first.click()
        await expect(page.locator(".reader .passage")).to_contain_text("<script>")
        await expect(page.locator(".reader .id")).to_contain_text('"><b>')
        await page.goto(page.url.partition("#")[0] + "#jobs")
        await page.fill("#job-sources", HOSTILE)
        await page.click("#job-form button")
        await expect(page.locator(".job-what").first).to_contain_text(HOSTILE)
        assert await page.evaluate("window.hacked") is None
        assert await page.locator("#main img, #main script, #main b, #jobs img").count() == 0
        assert not shown.complaints


async def test_empty_and_failed_searches_are_told_in_plain_words() -> None:
    async with opened() as shown:
        page, message = shown.page, shown.page.locator("#message")
        await page.fill("#query", "zzz")
        await page.press("#query", "Enter")
        await expect(message).to_contain_text("Nothing found")
        shown.http.search.error = EncoderUnavailable("The encoder is away; start it.")
        await page.press("#query", "Enter")
        await expect(message.locator("[role=alert]")).to_contain_text("The encoder is away; start it.")
        shown.http.search.error = Overloaded("Too many searches; try again in 0.5 s.", 0.5)
        await message.get_by_text("Try again", exact=True).click()
        await expect(message).to_contain_text("Too many searches")
        shown.http.search.error = None
        await page.fill("#query", "wasps")
        await message.get_by_text("Try again", exact=True).click()
        await expect(page.locator(".hit").first).to_be_visible()
        shown.http.ready[0] = False
        await expect(page.locator("#status-text")).to_have_text("Not ready", timeout=15_000)


async def test_a_key_is_asked_for_kept_in_the_tab_and_never_in_an_address(tmp_path: Path) -> None:
    file = tmp_path / "keys.json"
    _, key = create_key(file, KeyWishes("reader", (Role.SEARCH,), ("acme",)))
    assert key
    door = Door(Authenticator(ring=KeyRing(file)), Quotas(Limits()), AuditLog("", ""), Places(10))
    async with opened(door) as shown:
        page = shown.page
        await page.fill("#query", "apples")
        await page.press("#query", "Enter")
        await expect(page.locator("#message")).to_contain_text("A key is needed")
        await page.get_by_text("Give a key").click()
        await page.fill("#access-key", key)
        await page.fill("#access-tenant", "acme")
        await page.press("#access-tenant", "Enter")
        await expect(page.locator(".hit").first).to_be_visible()
        assert shown.http.search.asked[-1].tenant == "acme"
        await page.locator(".hit").first.click()
        await expect(page.locator(".reader .passage")).to_be_visible()
        assert not any(key in address for address in shown.addresses)
        assert await page.evaluate("JSON.stringify(localStorage) + document.cookie") == "{}"
        assert key in await page.evaluate("JSON.stringify(sessionStorage)")
        await page.click("#to-jobs")
        await expect(page.locator("#jobs-message")).to_contain_text("Not with this key")


async def test_jobs_are_started_followed_and_cancelled() -> None:
    async with opened(path="#jobs") as shown:
        page, ingest = shown.page, shown.http.ingest
        await expect(page.locator("#jobs-message")).to_contain_text("No jobs yet")
        ingest.step_s, ingest.steps = 0.2, 5
        await page.fill("#job-sources", "/srv/texts\nhttps://example.org/a.jsonl\n")
        await page.click("#job-form button")
        job = page.locator(".job").first
        await expect(job.locator(".job-what")).to_have_text("Ingest /srv/texts, https://example.org/a.jsonl")
        await expect(job.locator("progress")).to_have_attribute("max", "1000")
        await expect(job.locator(".badge")).to_have_text("Done", timeout=20_000)
        await expect(job.locator(".job-counts")).to_have_text("5 documents · 5 ingested")
        ingest.steps = 10_000
        await page.fill("#job-sources", "/srv/more")
        await page.click("#job-form button")
        await expect(page.locator(".job")).to_have_count(2)
        await page.locator(".job").first.get_by_text("Cancel", exact=True).click()
        await expect(page.locator(".job").first.locator(".badge")).to_have_text("Cancelled")
        assert not shown.complaints


async def test_a_phone_has_one_column_and_reads_on_the_whole_screen() -> None:
    async with opened(size=PHONE, scheme="dark") as shown:
        page = shown.page
        await shown.search("lighthouse keeper")
        assert await page.evaluate("document.documentElement.scrollWidth <= innerWidth")
        await page.locator(".hit").first.click()
        reader = await page.locator(".reader").bounding_box()
        assert reader is not None
        assert (round(reader["x"]), round(reader["y"]), round(reader["width"])) == (0, 0, PHONE["width"])
        await page.get_by_label("Close").click()
        await expect(page.locator(".reader")).to_be_hidden()
        background = await page.evaluate("getComputedStyle(document.body).backgroundColor")
        assert background == "rgb(20, 21, 23)"
        for path in ("#jobs", "docs"):
            await page.goto(page.url.split("#")[0].replace("docs", "") + path)
            await page.wait_for_timeout(500)
            assert await page.evaluate("document.documentElement.scrollWidth <= innerWidth"), path


async def test_results_do_not_move_while_the_next_ones_are_fetched() -> None:
    async with opened() as shown:
        page = shown.page
        await page.evaluate(
            "window.shifts = 0; new PerformanceObserver(list => list.getEntries().forEach(entry => "
            "{ if (!entry.hadRecentInput) window.shifts += entry.value; }))"
            ".observe({type: 'layout-shift', buffered: true})"
        )
        await shown.search("lighthouse keeper")
        before = await page.locator(".reader").bounding_box()
        await page.locator(".hit").first.click()
        await expect(page.locator(".reader .passage")).to_be_visible()
        assert await page.locator(".reader").bounding_box() == before
        await page.wait_for_timeout(700)
        assert await page.evaluate("window.shifts") < 0.05


async def test_lines_that_were_broken_at_a_width_are_joined_and_others_kept() -> None:
    wrapped = "Alice was not a bit hurt, and she jumped up on\nto her feet in a moment: she looked up, but it\nwas."
    listed = "fossil fuels: 10.2% of total installed capacity (2023 est.)\nsolar: 4.5% of total\nwind: 15.7%\ncoal: 1%"
    async with opened() as shown:
        joined = "texts => import('./marking.js').then(marking => texts.map(marking.unwrapped))"
        assert await shown.page.evaluate(joined, [wrapped, listed, "", "- a\n- b"]) == [
            wrapped.replace("\n", " "),
            listed,
            "",
            "- a\n- b",
        ]


async def test_the_api_page_shows_what_openapi_says() -> None:
    async with opened(path="docs") as shown:
        operations = shown.page.locator(".operation h2")
        await expect(operations.first).to_contain_text("/v1/search")
        spec = json.loads((await shown.http.client.get("/openapi.json")).text)
        assert await operations.count() == sum(len(methods) for methods in spec["paths"].values())
        await expect(shown.page.locator("#search .fields").first).to_contain_text("read_mask")
        assert not shown.complaints
