"""The command line: one module per command. Imports nothing heavy: a command imports what it needs when it runs."""

from __future__ import annotations

import sys


def main() -> None:
    """Run ``mamba-search``; leave with the exit code that its errors have."""
    from services.cli.app import run

    sys.exit(run(sys.argv[1:]))
