"""Links between the project's own pages lead somewhere, down to the heading, and no page or picture is left over."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
NAMES = ("README.md", "ARCHITECTURE.md", "CONTRIBUTING.md", "CHANGELOG.md", "deploy/README.md")
PAGES = [ROOT / name for name in NAMES] + sorted((ROOT / "docs").glob("*.md"))


def without_code(text: str) -> str:
    """Leave out fenced blocks and what stands between backticks."""
    return re.sub(r"`[^`\n]*`", "", re.sub(r"^ *```.*?^ *```$", "", text, flags=re.DOTALL | re.MULTILINE))


def links(page: Path) -> list[str]:
    """Targets of links and images that are no addresses of the web."""
    found = re.findall(r"\]\(([^)\s]+)\)", without_code(page.read_text(encoding="utf-8")))
    return [target for target in found if not re.match(r"[a-z]+:", target)]


def linked_file(page: Path, target: str) -> Path:
    path = target.partition("#")[0]
    return (page.parent / path).resolve() if path else page


def anchors(page: Path) -> set[str]:
    """The names that GitHub gives to headings; of equal ones the later are numbered."""
    text = re.sub(r"^ *```.*?^ *```$", "", page.read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE)
    names: list[str] = []
    for heading in re.findall(r"^#+ +(.+?) *$", text, re.MULTILINE):
        shown = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading).lower()
        name = re.sub(r"[^\w\- ]", "", shown).replace(" ", "-")
        names.append(f"{name}-{names.count(name)}" if name in names else name)
    return set(names)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    for target in links(page):
        file = linked_file(page, target)
        assert file.exists(), target
        assert file.is_relative_to(ROOT), target
        name = target.partition("#")[2]
        assert not name or name in anchors(file), f"{target}: no such heading"


def test_every_page_and_picture_in_docs_is_linked_to() -> None:
    from_readme = {linked_file(ROOT / "README.md", target) for target in links(ROOT / "README.md")}
    assert not set((ROOT / "docs").glob("*.md")) - from_readme
    from_anywhere = {linked_file(page, target) for page in PAGES for target in links(page)}
    assert not set((ROOT / "docs").iterdir()) - from_anywhere


def test_links_in_code_are_none_and_headings_have_githubs_names(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(
        "# The `up` page, and [HTTP](a.md#b)\n\n## Limits\n\n```sh\n# no heading\n[no](link)\n```\n\n## Limits\n\n"
        "`[no](link)` [`yes`](b.md) ![a picture](c.png) [web](https://example.org)\n"
    )
    assert links(page) == ["a.md#b", "b.md", "c.png"]
    assert anchors(page) == {"the-up-page-and-http", "limits", "limits-1"}
