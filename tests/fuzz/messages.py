"""Malformed messages for any RPC, made from the descriptors alone: nothing here has to be told of a new field.

Two kinds: messages of the right type whose values are hostile, and bytes that are no message, or another one.
"""

from __future__ import annotations

import random
import struct
from collections.abc import Callable, Sequence
from typing import Any

from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass

_DEPTH_MAX = 12
_REPEATED_MAX = 8
_FLOATS = (0.0, -0.0, 1.0, -1.0, 1e-45, 3.4e38, float("inf"), float("-inf"), float("nan"))
_TEXTS = (
    "",
    " ",
    "\x00",
    "\ufeff",
    "default",
    "../../etc/passwd",
    "' OR 1=1 --",
    "{{7*7}}",
    "%s%n",
    "\u202e",
    "\U0001f9a6" * 40,
    "a" * 65,
    "x" * 5000,
    "-1",
    "metadata.year",
    "1970-01-01T00:00:00Z",
    "/",
    "file:///etc/passwd",
)


def hostile_message(descriptor: Descriptor, chance: random.Random, known: Sequence[str], depth: int = 0) -> Message:
    """Make a message of a type with hostile values; ``known`` are texts that mean something to the service."""
    message = GetMessageClass(descriptor)()
    share = chance.choice((0.1, 0.5, 0.9))
    for field in descriptor.fields:
        if chance.random() < share:
            _set(message, field, chance, known, depth)
    return message


def hostile_bytes(descriptor: Descriptor, chance: random.Random, known: Sequence[str]) -> bytes:
    """Make the bytes of a hostile message, or spoil those of one."""
    data = hostile_message(descriptor, chance, known).SerializePartialToString()
    return chance.choice(_SPOILERS)(data, chance)


def _set(message: Message, field: FieldDescriptor, chance: random.Random, known: Sequence[str], depth: int) -> None:
    if field.message_type is not None and field.message_type.GetOptions().map_entry:
        _set_entries(getattr(message, field.name), field.message_type, chance, known, depth)
    elif field.is_repeated:
        values = getattr(message, field.name)
        for _ in range(chance.choice((0, 1, 2, _REPEATED_MAX))):
            if field.message_type is None:
                values.append(_scalar(field, chance, known))
            elif depth < _DEPTH_MAX:
                values.append(hostile_message(field.message_type, chance, known, depth + 1))
    elif field.message_type is None:
        setattr(message, field.name, _scalar(field, chance, known))
    elif depth < _DEPTH_MAX:
        getattr(message, field.name).CopyFrom(hostile_message(field.message_type, chance, known, depth + 1))


def _set_entries(entries: Any, entry: Descriptor, chance: random.Random, known: Sequence[str], depth: int) -> None:
    key, value = entry.fields_by_name["key"], entry.fields_by_name["value"]
    for _ in range(chance.choice((0, 1, 3))):
        name = _scalar(key, chance, known)
        if value.message_type is None:
            entries[name] = _scalar(value, chance, known)
        else:
            entries[name].CopyFrom(hostile_message(value.message_type, chance, known, depth + 1))


def _scalar(field: FieldDescriptor, chance: random.Random, known: Sequence[str]) -> Any:
    match field.cpp_type:
        case FieldDescriptor.CPPTYPE_STRING if field.type == FieldDescriptor.TYPE_BYTES:
            return chance.randbytes(chance.choice((0, 1, 4, 1536, 5000)))
        case FieldDescriptor.CPPTYPE_STRING:
            return chance.choice(known) if known and chance.random() < 0.5 else chance.choice(_TEXTS)
        case FieldDescriptor.CPPTYPE_BOOL:
            return chance.random() < 0.5
        case FieldDescriptor.CPPTYPE_ENUM:
            return chance.choice((0, 1, 2, 3, 7, 99, -1, 2**31 - 1))
        case FieldDescriptor.CPPTYPE_FLOAT | FieldDescriptor.CPPTYPE_DOUBLE:
            return chance.choice(_FLOATS)
        case FieldDescriptor.CPPTYPE_UINT32:
            return chance.choice((0, 1, 5, 200, 201, 65_537, 2**31, 2**32 - 1))
        case FieldDescriptor.CPPTYPE_UINT64:
            return chance.choice((0, 1, 5, 200, 2**31, 2**53 + 1, 2**63, 2**64 - 1))
        case FieldDescriptor.CPPTYPE_INT32:
            return chance.choice((0, 1, -1, 10, 2**31 - 1, -(2**31)))
        case _:
            return chance.choice((0, 1, -1, 10, 2**62, 2**63 - 1, -(2**63)))


def _cut(data: bytes, chance: random.Random) -> bytes:
    return data[: chance.randrange(len(data) + 1)]


def _flip(data: bytes, chance: random.Random) -> bytes:
    spoilt = bytearray(data or b"\x00")
    for _ in range(chance.randint(1, 8)):
        spoilt[chance.randrange(len(spoilt))] ^= 1 << chance.randrange(8)
    return bytes(spoilt)


def _insert(data: bytes, chance: random.Random) -> bytes:
    place = chance.randrange(len(data) + 1)
    return data[:place] + chance.randbytes(chance.randint(1, 64)) + data[place:]


def _noise(data: bytes, chance: random.Random) -> bytes:
    del data
    return chance.randbytes(chance.choice((1, 16, 300, 3000)))


def _unknown_fields(data: bytes, chance: random.Random) -> bytes:
    number = chance.choice((1000, 15, 2**29 - 1))
    return data + _varint(number << 3 | 2) + _varint(5) + b"extra"


def _huge_length(data: bytes, chance: random.Random) -> bytes:
    return data + _varint(chance.randint(1, 9) << 3 | 2) + _varint(chance.choice((2**31, 2**40, 2**63)))


def _wrong_wire_type(data: bytes, chance: random.Random) -> bytes:
    return data + _varint(chance.randint(1, 12) << 3 | chance.choice((0, 1, 5))) + struct.pack("<d", chance.random())


def _bad_text(data: bytes, chance: random.Random) -> bytes:
    text = chance.choice((b"\xff\xfe\xfd", b"\xed\xa0\x80", b"\xc0\x80", b"\x80" * 9))
    return data + _varint(chance.randint(1, 12) << 3 | 2) + _varint(len(text)) + text


def _deep(data: bytes, chance: random.Random) -> bytes:
    """Nest a message in itself, far deeper than any parser goes."""
    number = chance.randint(1, 12)
    for _ in range(chance.choice((90, 101, 300))):
        data = _varint(number << 3 | 2) + _varint(len(data)) + data
    return data


def _as_it_is(data: bytes, chance: random.Random) -> bytes:
    del chance
    return data


_SPOILERS: tuple[Callable[[bytes, random.Random], bytes], ...] = (
    _as_it_is,
    _as_it_is,
    _as_it_is,
    _cut,
    _flip,
    _insert,
    _noise,
    _unknown_fields,
    _huge_length,
    _wrong_wire_type,
    _bad_text,
    _deep,
)


def _varint(number: int) -> bytes:
    out = bytearray()
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    out.append(number)
    return bytes(out)
