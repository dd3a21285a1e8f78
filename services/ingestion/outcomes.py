"""What became of a document, as receipts say it and as messages do."""

from __future__ import annotations

from mambasearch.v1 import ingest_pb2

from ingest.receipts import Outcome

MESSAGE_OUTCOMES = {
    Outcome.INGESTED: ingest_pb2.INGEST_OUTCOME_INGESTED,
    Outcome.UPDATED: ingest_pb2.INGEST_OUTCOME_UPDATED,
    Outcome.UNCHANGED: ingest_pb2.INGEST_OUTCOME_UNCHANGED,
    Outcome.SUPERSEDED: ingest_pb2.INGEST_OUTCOME_SUPERSEDED,
    Outcome.REJECTED: ingest_pb2.INGEST_OUTCOME_REJECTED,
}
RECEIPT_OUTCOMES = {message: outcome for outcome, message in MESSAGE_OUTCOMES.items()}
