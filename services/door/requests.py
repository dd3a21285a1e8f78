"""What the door reads of messages: whose things a request means, what it names, what an answer has cost.

Goes by the names of fields, which mean the same in all of our protocols: tenant, document_id, job_id, query_tokens.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from google.protobuf.message import Message
from mambasearch.v1 import ingest_pb2

# In which fields requests hold requests of their own.
NESTED = ("requests", "request")


def naming_tenants(request: Message) -> Sequence[Any]:
    """Give the messages in a request that name a tenant: itself, or the requests that it holds."""
    fields = request.DESCRIPTOR.fields_by_name
    if "tenant" in fields:
        return (request,)
    for name in NESTED:
        if name in fields:
            held = getattr(request, name)
            return (held,) if isinstance(held, Message) else tuple(held)
    return ()


def named_thing(message: Message) -> str:
    """Give the id of the document or the job that a message is about; empty where it is about none."""
    for name in ("document_id", "job_id"):
        if name in message.DESCRIPTOR.fields_by_name:
            return str(getattr(message, name))
    return ""


def tokens_of(answer: Message) -> int:
    """Say how many tokens were read for an answer, those of a document that was written included."""
    if isinstance(answer, ingest_pb2.IngestDocumentsResponse):
        return answer.token_count if answer.outcome == ingest_pb2.INGEST_OUTCOME_INGESTED else 0
    return _query_tokens(answer)


def _query_tokens(answer: Message) -> int:
    fields = answer.DESCRIPTOR.fields_by_name
    if "query_tokens" in fields:
        return int(getattr(answer, "query_tokens"))  # noqa: B009 - of a message that has it
    if "outcomes" in fields:
        return sum(map(_query_tokens, getattr(answer, "outcomes")))  # noqa: B009 - likewise
    return next((_query_tokens(getattr(answer, name)) for name in ("outcome", "response") if _holds(answer, name)), 0)


def _holds(message: Message, name: str) -> bool:
    field = message.DESCRIPTOR.fields_by_name.get(name)
    return field is not None and field.message_type is not None and message.HasField(name)
