"""The tables of jobs, beside the journal's."""

from __future__ import annotations

from dataclasses import fields

import sqlalchemy as sa

from ingest.database import metadata
from ingest.jobs.states import Counts

COUNTS = tuple(one.name for one in fields(Counts))

jobs = sa.Table(
    "jobs",
    metadata,
    sa.Column("job_id", sa.String, primary_key=True),
    sa.Column("request_id", sa.String, nullable=False, unique=True),
    sa.Column("request", sa.Text, nullable=False),  # JSON
    sa.Column("tenant", sa.String, nullable=False),
    sa.Column("state", sa.String, nullable=False, index=True),
    sa.Column("reason", sa.Text, nullable=False, default=""),
    sa.Column("owner", sa.String, nullable=False, default=""),  # the process that runs it
    sa.Column("lease_until", sa.Float, nullable=False, default=0.0),  # this and other times: seconds since 1970
    sa.Column("failed_attempts", sa.Integer, nullable=False, default=0),
    sa.Column("cancel_requested", sa.Boolean, nullable=False, default=False),
    sa.Column("created_at", sa.Float, nullable=False, index=True),
    sa.Column("started_at", sa.Float, nullable=False, default=0.0),
    sa.Column("ended_at", sa.Float, nullable=False, default=0.0),
    sa.Column("next_attempt_at", sa.Float, nullable=False, default=0.0),
    sa.Column("active_s", sa.Float, nullable=False, default=0.0),
    sa.Column("bytes_total", sa.BigInteger),
    *(sa.Column(name, sa.BigInteger, nullable=False, default=0) for name in COUNTS),
)

# What each job that has not ended is done with, so that one that begins anew counts nothing twice.
settled_items = sa.Table(
    "settled_items",
    metadata,
    sa.Column("job_id", sa.String, primary_key=True),
    sa.Column("item", sa.LargeBinary, primary_key=True),
)

dead_letters = sa.Table(
    "dead_letters",
    metadata,
    sa.Column("job_id", sa.String, primary_key=True),
    sa.Column("item", sa.LargeBinary, primary_key=True),
    sa.Column("letter_id", sa.String, nullable=False, unique=True),
    sa.Column("tenant", sa.String, nullable=False, index=True),
    sa.Column("place", sa.Text, nullable=False),
    sa.Column("document_id", sa.Text, nullable=False),
    sa.Column("stage", sa.String, nullable=False),
    sa.Column("reason", sa.Text, nullable=False),
    sa.Column("field", sa.String, nullable=False),
    sa.Column("code", sa.Integer, nullable=False),  # of gRPC
    sa.Column("attempts", sa.Integer, nullable=False),
    sa.Column("first_failed_at", sa.Float, nullable=False, index=True),
    sa.Column("last_failed_at", sa.Float, nullable=False),
    sa.Column("replay_job_id", sa.String, nullable=False, default="", index=True),
)
