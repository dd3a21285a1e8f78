"""Which role each method needs, and how a request of it names tenants. A method without a rule is refused."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum

from services.door.principal import Role


class TenantIn(Enum):
    """Where a request says whose things it means."""

    FIELD = "field"  # in its field tenant, or in that of the requests it holds
    MESSAGES = "messages"  # in the field tenant of each message of the stream, one by one: the handler asks
    JOB = "job"  # by the id of a job: the handler compares the job's tenant
    NOWHERE = "nowhere"


@dataclass(frozen=True, slots=True)
class Rule:
    """Who may call a method. ``Role.ADMIN`` may call any."""

    roles: frozenset[Role]
    tenant: TenantIn = TenantIn.FIELD


_SEARCH = Rule(frozenset({Role.SEARCH}))
_LOOK = Rule(frozenset({Role.SEARCH, Role.INGEST}))
_INGEST = Rule(frozenset({Role.INGEST}))
_JOB = Rule(frozenset({Role.INGEST}), TenantIn.JOB)
_OWN_PARTS = Rule(frozenset({Role.ADMIN}), TenantIn.NOWHERE)

_SEARCH_SERVICE = "/mambasearch.v1.SearchService/"
_INGEST_SERVICE = "/mambasearch.v1.IngestService/"
# The index owner's callers are our own parts, which have a token of their own.
_INDEX_SERVICE = "/mambasearch.v1.IndexService/"
# What HTTP offers and gRPC does not.
EMBEDDINGS = "/http/Embeddings"

RULES: Mapping[str, Rule] = {
    _SEARCH_SERVICE + "Search": _SEARCH,
    _SEARCH_SERVICE + "BatchSearch": _SEARCH,
    _SEARCH_SERVICE + "SearchStream": _SEARCH,
    _SEARCH_SERVICE + "Retrieve": _SEARCH,
    _SEARCH_SERVICE + "SimilarDocuments": _SEARCH,
    _SEARCH_SERVICE + "ListChunks": _SEARCH,
    _INGEST_SERVICE + "IngestDocuments": Rule(frozenset({Role.INGEST}), TenantIn.MESSAGES),
    _INGEST_SERVICE + "GetDocument": _LOOK,
    _INGEST_SERVICE + "ListDocuments": _LOOK,
    _INGEST_SERVICE + "DeleteDocument": _INGEST,
    _INGEST_SERVICE + "DeleteByFilter": _INGEST,
    _INGEST_SERVICE + "CreateIngestJob": _INGEST,
    _INGEST_SERVICE + "GetJob": _JOB,
    _INGEST_SERVICE + "ListJobs": _INGEST,
    _INGEST_SERVICE + "WatchJob": _JOB,
    _INGEST_SERVICE + "CancelJob": _JOB,
    _INGEST_SERVICE + "ListDeadLetters": _INGEST,
    _INGEST_SERVICE + "ReplayDeadLetters": _JOB,
    EMBEDDINGS: Rule(frozenset({Role.SEARCH, Role.INGEST}), TenantIn.NOWHERE),
}


def rule_of(method: str) -> Rule | None:
    """Give the rule of a method by its full name ("/package.Service/Method"); None where it has none."""
    return _OWN_PARTS if method.startswith(_INDEX_SERVICE) else RULES.get(method)
