"""Jobs and dead letters as messages."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp
from mambasearch.v1 import jobs_pb2

from ingest.index.filter_messages import filter_to_message
from ingest.index.metadata_messages import metadata_to_messages
from ingest.jobs.dead_letters import DeadLetter
from ingest.jobs.requests import JobKind
from ingest.jobs.states import Job, JobState
from ingest.receipts import Stage

STATES = {
    JobState.QUEUED: jobs_pb2.JOB_STATE_QUEUED,
    JobState.RUNNING: jobs_pb2.JOB_STATE_RUNNING,
    JobState.WAITING: jobs_pb2.JOB_STATE_WAITING,
    JobState.SUCCEEDED: jobs_pb2.JOB_STATE_SUCCEEDED,
    JobState.FAILED: jobs_pb2.JOB_STATE_FAILED,
    JobState.CANCELLED: jobs_pb2.JOB_STATE_CANCELLED,
}
_KINDS = {
    JobKind.INGEST: jobs_pb2.JOB_KIND_INGEST,
    JobKind.REPLAY: jobs_pb2.JOB_KIND_REPLAY,
    JobKind.DELETE: jobs_pb2.JOB_KIND_DELETE,
}
_STAGES = {
    Stage.READ: jobs_pb2.INGEST_STAGE_READ,
    Stage.CHUNK: jobs_pb2.INGEST_STAGE_CHUNK,
    Stage.ENCODE: jobs_pb2.INGEST_STAGE_ENCODE,
    Stage.WRITE: jobs_pb2.INGEST_STAGE_WRITE,
    Stage.COMMIT: jobs_pb2.INGEST_STAGE_COMMIT,
}


def job_message(job: Job) -> jobs_pb2.Job:
    """Write a job."""
    request, counts = job.request, job.counts
    progress = jobs_pb2.JobProgress(
        documents=counts.documents,
        ingested=counts.ingested,
        updated=counts.updated,
        unchanged=counts.unchanged,
        superseded=counts.superseded,
        failed=counts.failed,
        deleted=counts.deleted,
        chunks=counts.chunks,
        tokens=counts.tokens,
        tokens_per_s=job.tokens_per_s,
        bytes_done=counts.bytes_done,
        bytes_total=job.bytes_total,
        time_left=None if job.left_s is None else _duration(job.left_s),
    )
    return jobs_pb2.Job(
        job_id=job.job_id,
        request_id=job.request_id,
        kind=_KINDS[request.kind],
        tenant=request.job_tenant,
        sources=request.sources,
        metadata=metadata_to_messages(request.metadata),
        filter=None if request.where is None else filter_to_message(request.where),
        state=STATES[job.state],
        reason=job.reason,
        progress=progress,
        failed_attempts=job.failed_attempts,
        cancel_requested=job.cancel_requested,
        created_at=_time(job.created_at),
        started_at=_time(job.started_at),
        ended_at=_time(job.ended_at),
        next_attempt_at=_time(job.next_attempt_at) if job.state is JobState.WAITING else None,
    )


def letter_message(letter: DeadLetter) -> jobs_pb2.DeadLetter:
    """Write a dead letter."""
    return jobs_pb2.DeadLetter(
        dead_letter_id=letter.letter_id,
        job_id=letter.job_id,
        tenant=letter.tenant,
        source=letter.place,
        document_id=letter.document_id,
        stage=_STAGES[letter.stage],
        reason=letter.reason,
        field=letter.field,
        code=letter.code,
        attempts=letter.attempts,
        first_failed_at=_time(letter.first_failed_at),
        last_failed_at=_time(letter.last_failed_at),
        replay_job_id=letter.replay_job_id,
    )


def _time(seconds: float) -> Timestamp | None:
    """Write a moment; none for 0."""
    if not seconds:
        return None
    message = Timestamp()
    message.FromDatetime(datetime.fromtimestamp(seconds, UTC))
    return message


def _duration(seconds: float) -> Duration:
    message = Duration()
    message.FromTimedelta(timedelta(seconds=seconds))
    return message
