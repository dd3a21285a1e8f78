"""Metadata as messages, and back."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime

from google.protobuf.timestamp_pb2 import Timestamp
from mambasearch.v1 import metadata_pb2

from ingest.documents import MetadataValue


def metadata_to_messages(metadata: Mapping[str, MetadataValue]) -> dict[str, metadata_pb2.MetadataValue]:
    """Write metadata."""
    return {name: _metadata_to_message(value) for name, value in metadata.items()}


def metadata_from_messages(messages: Mapping[str, metadata_pb2.MetadataValue]) -> dict[str, MetadataValue]:
    """Read metadata; a field without a value, or with a time that is none, is None, which no document may have."""
    return {name: _metadata_from_message(message) for name, message in messages.items()}


def _metadata_to_message(value: MetadataValue) -> metadata_pb2.MetadataValue:
    match value:
        case bool():  # before int, which it is, too
            return metadata_pb2.MetadataValue(truth=value)
        case int():
            return metadata_pb2.MetadataValue(integer=value)
        case float():
            return metadata_pb2.MetadataValue(number=value)
        case datetime():
            return metadata_pb2.MetadataValue(time=time_to_message(value))
        case tuple():
            return metadata_pb2.MetadataValue(texts=metadata_pb2.MetadataTexts(texts=value))
        case _:
            return metadata_pb2.MetadataValue(text=value)


def _metadata_from_message(message: metadata_pb2.MetadataValue) -> MetadataValue:
    match message.WhichOneof("value"):
        case "truth":
            return message.truth
        case "integer":
            return message.integer
        case "number":
            return message.number
        case "time":
            try:
                return message.time.ToDatetime(tzinfo=UTC)
            except (ValueError, OverflowError):
                return None  # type: ignore[return-value]
        case "texts":
            return tuple(message.texts.texts)
        case "text":
            return message.text
        case _:
            return None  # type: ignore[return-value]


def time_to_message(time: datetime) -> Timestamp:
    """Write a time."""
    message = Timestamp()
    message.FromDatetime(time)
    return message
