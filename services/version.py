"""Which version of mamba-search runs."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version


def package_version() -> str:
    """Give the installed version; ``unknown`` in a source tree that is not installed."""
    try:
        return version("mamba-search")
    except PackageNotFoundError:
        return "unknown"
