"""Renders the settings as the table of docs/settings.md.

    python -m services.settings_table [--page docs/settings.md]

With ``--page`` the table replaces what stands between ``<!-- settings-table -->`` and ``<!-- /settings-table -->``.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from encoder.evaluation.report import insert_between
from encoder.model_config import DEFAULT_MODEL_FOLDER
from services import settings
from services.door.settings import KeysFileSettings
from services.reading_settings import PREFIX, Settings

BEGIN, END = "<!-- settings-table -->", "<!-- /settings-table -->"
# Who reads settings: name in the table, and its class.
PROCESSES: Mapping[str, type[Settings]] = {
    "up": settings.UpSettings,
    "encoder": settings.EncoderSettings,
    "search": settings.SearchSettings,
    "ingest": settings.IngestSettings,
    "index owner": settings.IndexOwnerSettings,
    "commands": settings.CommandSettings,
    "keys": KeysFileSettings,
    "ask": settings.AskSettings,
    "bulk-load and reindex": settings.BulkSettings,
}


def render_table() -> str:
    """Make a Markdown table: a row per setting, with who reads it, its default and what it means."""
    rows: dict[str, list[str]] = {}
    readers: dict[str, list[str]] = {}
    for process, kind in PROCESSES.items():
        for name, field in kind.model_fields.items():
            readers.setdefault(name, []).append(process)
            rows[name] = [_default(field.default), field.description or ""]
    lines = ["| variable | read by | default | meaning |", "|---|---|---|---|"]
    for name in sorted(rows):
        everyone = len(readers[name]) == len(PROCESSES)
        who = "all" if everyone else ", ".join(readers[name])
        cells = [f"`{PREFIX}{name.upper()}`", who, *rows[name]]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _default(value: object) -> str:
    if value is None or value == "":
        return ""
    if value == DEFAULT_MODEL_FOLDER:
        return "`encoder/models/default`"
    if isinstance(value, Path):
        return f"`{value}`".replace(str(Path.home()), "~")
    return f"`{value}`"


def main(arguments: Sequence[str]) -> int:
    """Print the table, or put it into a page."""
    table = render_table()
    if arguments[:1] == ["--page"] and len(arguments) == 2:
        page = Path(arguments[1])
        page.write_text(insert_between(page.read_text(encoding="utf-8"), BEGIN, END, table), encoding="utf-8")
    else:
        sys.stdout.write(table + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
