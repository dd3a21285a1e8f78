"""The journal's tables."""

from __future__ import annotations

import sqlalchemy as sa

from ingest.database import metadata

# The highest generation that each document was ever given. Rows are never removed: a number is never given twice.
documents = sa.Table(
    "documents",
    metadata,
    sa.Column("tenant", sa.String, primary_key=True),
    sa.Column("document_id", sa.String, primary_key=True),
    sa.Column("latest", sa.BigInteger, nullable=False),
)

# Generations that someone is writing, or was when a crash came.
attempts = sa.Table(
    "attempts",
    metadata,
    sa.Column("tenant", sa.String, primary_key=True),
    sa.Column("document_id", sa.String, primary_key=True),
    sa.Column("generation", sa.BigInteger, primary_key=True),
    sa.Column("owner", sa.String, nullable=False, index=True),
    sa.Column("lease_until", sa.Float, nullable=False, index=True),  # seconds since 1970
)

# Chunks that no new search will read: those of a document's generations before one.
garbage = sa.Table(
    "garbage",
    metadata,
    sa.Column("tenant", sa.String, primary_key=True),
    sa.Column("document_id", sa.String, primary_key=True),
    sa.Column("below", sa.BigInteger, primary_key=True),
    sa.Column("tombstone", sa.BigInteger, nullable=False),  # the generation of a deletion, 0 where there was none
    sa.Column("not_before", sa.Float, nullable=False, index=True),  # seconds since 1970
)
