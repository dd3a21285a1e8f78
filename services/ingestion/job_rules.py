"""What settings say of jobs, as the rules that jobs know."""

from __future__ import annotations

from pathlib import Path

from encoder.errors import InvalidInput
from ingest.jobs.running import JobRules
from ingest.sources.policy import SourcePolicy
from services.setting_groups import JobSettings


def make_rules(settings: JobSettings) -> JobRules:
    """Make the rules of jobs."""
    folders = tuple(Path(folder) for folder in _named(settings.ingest_folders))
    local = {"file"} if folders else set()
    policy = SourcePolicy(
        schemes=frozenset({*_named(settings.ingest_schemes), *local}),
        hosts=frozenset(_named(settings.ingest_hosts)),
        folders=folders,
        internal_addresses=settings.ingest_internal_addresses,
    )
    tenants = frozenset(_named(settings.tenants))

    def check_tenant(tenant: str) -> None:
        if tenants and tenant not in tenants:
            message = f"tenant {tenant[:80]!r} does not exist; give one that does, or add it to the setting tenants."
            raise InvalidInput("tenant", message)

    return JobRules(
        policy,
        check_tenant,
        jobs_max=settings.ingest_jobs_max,
        attempts_max=settings.ingest_job_attempts_max,
    )


def _named(value: str) -> list[str]:
    return [name for name in value.split(",") if name]
