"""Filters as messages, and back."""

from __future__ import annotations

from mambasearch.v1 import filter_pb2, metadata_pb2

from encoder.errors import InvalidInput
from ingest.documents import MetadataValue
from ingest.filters import AllOf, AnyOf, Equals, Exists, Filter, IdPrefix, IsIn, Not, Range, Scalar
from ingest.index.metadata_messages import metadata_from_messages, metadata_to_messages

_BOUNDS = ("above", "at_least", "below", "at_most")


def filter_from_message(message: filter_pb2.Filter) -> Filter:
    """Read a filter; :class:`InvalidInput` for a part, or a value, that says nothing. Its limits are checked later."""
    match message.WhichOneof("expression"):
        case "equals":
            return Equals(message.equals.field, _scalar(message.equals.field, message.equals.value))
        case "is_in":
            field = message.is_in.field
            return IsIn(field, tuple(_scalar(field, value) for value in message.is_in.values))
        case "range":
            given = {name: getattr(message.range, name) for name in _BOUNDS if message.range.HasField(name)}
            field = message.range.field
            return Range(field, **{name: _scalar(field, value) for name, value in given.items()})
        case "exists":
            return Exists(message.exists)
        case "document_id_prefix":
            return IdPrefix(message.document_id_prefix)
        case "all_of":
            return AllOf(tuple(filter_from_message(part) for part in message.all_of.filters))
        case "any_of":
            return AnyOf(tuple(filter_from_message(part) for part in message.any_of.filters))
        case "negated":
            return Not(filter_from_message(message.negated))
        case _:
            raise InvalidInput("filter", "filter has an empty part; give a condition, or leave it out.")


def filter_to_message(expression: Filter) -> filter_pb2.Filter:
    """Write a filter."""
    match expression:
        case Equals(field, value):
            return filter_pb2.Filter(equals=filter_pb2.FieldEquals(field=field, value=_value(value)))
        case IsIn(field, values):
            return filter_pb2.Filter(is_in=filter_pb2.FieldIsIn(field=field, values=map(_value, values)))
        case Range(field):
            bounds = {name: _value(bound) for name in _BOUNDS if (bound := getattr(expression, name)) is not None}
            return filter_pb2.Filter(range=filter_pb2.FieldRange(field=field, **bounds))
        case Exists(field):
            return filter_pb2.Filter(exists=field)
        case IdPrefix(prefix):
            return filter_pb2.Filter(document_id_prefix=prefix)
        case AllOf(parts):
            return filter_pb2.Filter(all_of=filter_pb2.Filters(filters=map(filter_to_message, parts)))
        case AnyOf(parts):
            return filter_pb2.Filter(any_of=filter_pb2.Filters(filters=map(filter_to_message, parts)))
        case Not(part):
            return filter_pb2.Filter(negated=filter_to_message(part))


def _scalar(field: str, message: metadata_pb2.MetadataValue) -> Scalar:
    found: MetadataValue | None = metadata_from_messages({"value": message})["value"]
    if found is None or isinstance(found, tuple):
        place = f"filter.{field[:80]}"
        raise InvalidInput(place, f"{field[:80]} is compared with no single value; give a text, a number, a time.")
    return found


def _value(value: Scalar) -> metadata_pb2.MetadataValue:
    return metadata_to_messages({"value": value})["value"]
