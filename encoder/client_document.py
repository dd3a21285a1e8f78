"""One document as the messages of ``EncodeDocument``, and the answers to them put together. Knows no connection."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np
from mambasearch.v1 import encoder_pb2

from encoder.document_slices import DocumentSlice
from encoder.errors import EncoderUnavailable, FingerprintMismatch
from encoder.interface import EncodedDocument, EncoderInfo

STATE_PART_BYTES = 1024 * 1024

_Request = encoder_pb2.EncodeDocumentRequest


def document_requests(
    spans: Iterable[DocumentSlice], info: EncoderInfo, *, state: bytes | None, keep_state: bool, time_left_ms: int = 0
) -> Iterator[_Request]:
    """Make a document's messages, in the order they are to be sent."""
    begin = encoder_pb2.BeginDocument(
        fingerprint=info.fingerprint,
        keep_state=keep_state,
        state_bytes=len(state) if state else 0,
        time_left_ms=time_left_ms,
    )
    yield _Request(begin=begin)
    for start in range(0, len(state or b""), STATE_PART_BYTES):
        yield _Request(state=(state or b"")[start : start + STATE_PART_BYTES])
    for span in spans:
        yield _Request(
            span=encoder_pb2.TokenSpan(token_ids=span.token_ids.tolist(), chunk_ends=span.chunk_ends.tolist())
        )


class DocumentAnswer:
    """Collects the responses of one call."""

    def __init__(self, service: str) -> None:
        self._service = service
        self._embeddings: list[bytes] = []
        self._state: list[bytes] = []
        self._summary: encoder_pb2.DocumentSummary | None = None

    def add(self, response: encoder_pb2.EncodeDocumentResponse) -> None:
        """Take the next response."""
        match response.WhichOneof("part"):
            case "embeddings":
                self._embeddings.append(response.embeddings)
            case "state":
                self._state.append(response.state)
            case "summary":
                self._summary = response.summary

    def whole(self, info: EncoderInfo, chunk_count: int, *, keep_state: bool) -> EncodedDocument:
        """Give the document, all of it.

        :class:`FingerprintMismatch` where another model answered than ``info`` tells of; :class:`EncoderUnavailable`
        where something is missing.
        """
        summary = self._summary
        if summary is not None and summary.fingerprint != info.fingerprint:
            raise changed_model(info, summary.fingerprint)
        embeddings = np.frombuffer(b"".join(self._embeddings), dtype="<f4").astype(np.float32, copy=False)
        state = b"".join(self._state)
        if (
            summary is None
            or embeddings.size != chunk_count * info.dimension
            or len(state) != summary.state_bytes
            or bool(state) != keep_state
        ):
            raise EncoderUnavailable(
                f"{self._service} answered {embeddings.size} floats and {len(state)} bytes of state for {chunk_count} "
                f"chunks of {info.dimension} floats each; it is not an encoder service of this version."
            )
        return EncodedDocument(
            embeddings=embeddings.reshape(chunk_count, info.dimension),
            token_count=summary.token_count,
            state=state if keep_state else None,
        )


def changed_model(info: EncoderInfo, fingerprint: str) -> FingerprintMismatch:
    """Tell that the service runs another model than when it was asked for its limits."""
    return FingerprintMismatch(
        f"The encoder service changed its model while in use, from {info.fingerprint} to {fingerprint}; restart what "
        "uses it, and ingest again what the old model encoded."
    )
