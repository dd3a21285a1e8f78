"""Renders what ``mamba-search evaluate --json`` printed: a table for README.md, and a page with plots.

    python -m encoder.evaluation.report RESULTS.jsonl… [--readme README.md] [--html REPORT.html]

With ``--readme`` the table replaces what stands between ``<!-- quality-table -->`` and ``<!-- /quality-table -->``.
Figures of several files stand side by side; where they measure the same thing, the later one counts.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from encoder.errors import MambaSearchError
from encoder.evaluation.report_page import render_page
from encoder.evaluation.report_table import render_table
from encoder.evaluation.results import read_results

BEGIN, END = "<!-- quality-table -->", "<!-- /quality-table -->"


def insert_between(text: str, first: str, last: str, inserted: str) -> str:
    """Replace what stands between two marks, each on its line; :class:`ValueError` where they are missing."""
    before, begin, rest = text.partition(first)
    _, end, after = rest.partition(last)
    if not begin or not end:
        raise ValueError(f"{first} and {last} are not both there")
    return f"{before}{begin}\n{inserted}\n{end}{after}"


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the table, put it into a README, write the page; 1 where the results cannot be read."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "results", type=Path, nargs="+", help="JSON lines as `mamba-search evaluate --json` prints them"
    )
    parser.add_argument("--readme", type=Path, help="file to put the table into, between its marks")
    parser.add_argument("--html", type=Path, help="file to write the page to")
    given = parser.parse_args(arguments)
    try:
        results = read_results(given.results)
    except MambaSearchError as error:
        print(error, file=sys.stderr)
        return 1
    if given.readme:
        text = given.readme.read_text(encoding="utf-8")
        given.readme.write_text(insert_between(text, BEGIN, END, render_table(results)), encoding="utf-8")
    if given.html:
        given.html.write_text(render_page(results), encoding="utf-8")
    if not (given.readme or given.html):
        print(render_table(results))
    return 0


if __name__ == "__main__":
    sys.exit(main())
