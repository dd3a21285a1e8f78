"""What says which version runs: the installed one, or that none is."""

import importlib.metadata

import pytest
from prometheus_client import CollectorRegistry

from services.observing.call_metrics import describe_process
from services.version import package_version


def told(registry: CollectorRegistry) -> str:
    (sample,) = [
        sample for metric in registry.collect() for sample in metric.samples if sample.name == "mambasearch_build_info"
    ]
    return sample.labels["version"]


def test_the_installed_version_is_told() -> None:
    registry = CollectorRegistry()
    describe_process(registry, "search")
    assert told(registry) == package_version() == importlib.metadata.version("mamba-search")


def test_a_source_tree_that_is_not_installed_is_of_unknown_version(monkeypatch: pytest.MonkeyPatch) -> None:
    def nothing(name: str) -> importlib.metadata.Distribution:
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(importlib.metadata, "distribution", nothing)
    registry = CollectorRegistry()
    describe_process(registry, "search")
    assert told(registry) == "unknown"
