"""A load test's table and plot go into a page, between its marks."""

from pathlib import Path

import pytest

from tests.benchmarks.load.reporting import renew_readme


def test_table_and_plot_replace_what_stands_between_the_marks(tmp_path: Path) -> None:
    readme = tmp_path / "README.md"
    readme.write_text("before\n<!-- load: begin -->\nold\n<!-- load: end -->\nafter\n")
    renew_readme(readme, "| table |", tmp_path / "docs" / "plot.svg")
    text = readme.read_text()
    assert text.startswith("before\n<!-- load: begin -->\n| table |\n\n![")
    assert text.endswith("](docs/plot.svg)\n<!-- load: end -->\nafter\n")
    assert "old" not in text
    renew_readme(readme, "| table |")
    assert readme.read_text() == "before\n<!-- load: begin -->\n| table |\n<!-- load: end -->\nafter\n"


def test_a_page_without_the_marks_is_left_alone(tmp_path: Path) -> None:
    readme = tmp_path / "README.md"
    readme.write_text("no marks\n")
    with pytest.raises(SystemExit, match="has no lines <!-- load: begin -->"):
        renew_readme(readme, "| table |")
    assert readme.read_text() == "no marks\n"
