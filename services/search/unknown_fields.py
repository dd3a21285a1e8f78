"""Fields of a request that this version does not know: ignored, they would mean another answer than was asked for."""

from __future__ import annotations

from google.protobuf.message import Message
from google.protobuf.unknown_fields import UnknownFieldSet

from encoder.errors import InvalidInput


def refuse_unknown_fields(message: Message, path: str = "", *, inside: bool = True) -> None:
    """Raise :class:`InvalidInput` that names the message where it, or one ``inside`` it, has an unknown field."""
    unknown = UnknownFieldSet(message)
    if len(unknown):
        number, name = unknown[0].field_number, message.DESCRIPTOR.name
        says = f"{path or name} has an unknown field of number {number}; {name} of this version has none such."
        raise InvalidInput(path or name, says)
    if not inside:
        return
    for field, value in message.ListFields():
        kind = field.message_type
        if kind is None:
            continue
        below = f"{path}.{field.name}" if path else field.name
        if not field.is_repeated:
            refuse_unknown_fields(value, below)
        elif not kind.GetOptions().map_entry:
            for place, one in enumerate(value):
                refuse_unknown_fields(one, f"{below}[{place}]")
