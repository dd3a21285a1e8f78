"""Messages of the protocol from JSON, and back. Names are the protocol's; 64-bit numbers are numbers, not strings."""

from __future__ import annotations

import base64
import re
from typing import Any, TypeVar

import pydantic
from google.protobuf import duration_pb2, field_mask_pb2, json_format, timestamp_pb2
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message

from encoder.errors import InvalidInput

_Message = TypeVar("_Message", bound=Message)
_FIELD_MASK = field_mask_pb2.FieldMask.DESCRIPTOR.full_name


def to_message(model: pydantic.BaseModel, message: _Message) -> _Message:
    """Fill a message with what was given in JSON, and give it; :class:`InvalidInput` for what it cannot hold."""
    values = model.model_dump(mode="json", exclude_unset=True)
    for field in message.DESCRIPTOR.fields:
        if field.message_type and field.message_type.full_name == _FIELD_MASK and values.get(field.name) is not None:
            # Paths are names of fields, which JSON of protobuf itself would have in camel case.
            values[field.name] = re.sub(r"_([a-z0-9])", lambda found: found[1].upper(), values[field.name])
    try:
        json_format.ParseDict(values, message)
    except json_format.ParseError as error:
        # Models are stricter than messages but for times before the year 1 and the like.
        raise InvalidInput("body", f"The request cannot be read as {message.DESCRIPTOR.name}: {error}.") from None
    return message


def to_json(message: Message) -> dict[str, Any]:
    """Write a message as JSON has it: fields with presence only where they are set, all others always."""
    written: dict[str, Any] = {}
    for field in message.DESCRIPTOR.fields:
        value = getattr(message, field.name)
        if field.is_repeated:
            if field.message_type and field.message_type.GetOptions().map_entry:
                kind = field.message_type.fields_by_name["value"]
                written[field.name] = {key: _value(kind, entry) for key, entry in value.items()}
            else:
                written[field.name] = [_value(field, entry) for entry in value]
        elif not field.has_presence or message.HasField(field.name):
            written[field.name] = _value(field, value)
    return written


def _value(field: Any, value: Any) -> object:  # noqa: ANN401 - of any field, in either implementation
    if field.enum_type:
        known = field.enum_type.values_by_number.get(value)
        return known.name if known else value
    if field.type == FieldDescriptor.TYPE_BYTES:
        return base64.b64encode(value).decode()
    if isinstance(value, timestamp_pb2.Timestamp | duration_pb2.Duration):
        return value.ToJsonString()
    if isinstance(value, field_mask_pb2.FieldMask):
        return ",".join(value.paths)
    return to_json(value) if isinstance(value, Message) else value
