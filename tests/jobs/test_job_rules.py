"""What settings say of jobs: nothing may be read unless told, and only tenants that there are."""

from pathlib import Path

import pytest

from encoder.errors import InvalidInput
from ingest.sources.policy import SourcePolicy
from services.ingestion.job_rules import make_rules
from services.settings import IngestSettings


def test_nothing_is_allowed_unless_told() -> None:
    rules = make_rules(IngestSettings.load())
    assert rules.policy == SourcePolicy()
    rules.check_tenant("anybody")


def test_what_is_told_is_allowed(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {
        "FOLDERS": "/srv/texts,/srv/more texts",
        "SCHEMES": "https,s3",
        "HOSTS": "*.example.org,bucket",
        "INTERNAL_ADDRESSES": "true",
        "JOBS_MAX": "5",
        "JOB_ATTEMPTS_MAX": "7",
    }.items():
        monkeypatch.setenv(f"MAMBASEARCH_INGEST_{name}", value)
    monkeypatch.setenv("MAMBASEARCH_TENANTS", "acme,globex")
    rules = make_rules(IngestSettings.load())
    assert rules.policy == SourcePolicy(
        frozenset(("file", "https", "s3")),
        frozenset(("*.example.org", "bucket")),
        (Path("/srv/texts"), Path("/srv/more texts")),
        internal_addresses=True,
    )
    assert (rules.jobs_max, rules.attempts_max) == (5, 7)
    rules.check_tenant("globex")
    with pytest.raises(InvalidInput, match="tenant 'initech' does not exist; give one that does"):
        rules.check_tenant("initech")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("INGEST_FOLDERS", "texts"),
        ("INGEST_FOLDERS", "/a,b"),
        ("INGEST_SCHEMES", "https,ftp"),
        ("INGEST_SCHEMES", "file"),
        ("INGEST_HOSTS", "a, b"),
        ("TENANTS", "a b"),
        ("INGEST_JOBS_MAX", "0"),
    ],
)
def test_a_list_that_is_none_is_refused(monkeypatch: pytest.MonkeyPatch, name: str, value: str) -> None:
    monkeypatch.setenv(f"MAMBASEARCH_{name}", value)
    with pytest.raises(InvalidInput, match=f"MAMBASEARCH_{name} is '{value}'"):
        IngestSettings.load()
