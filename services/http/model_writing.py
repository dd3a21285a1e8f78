"""Writes ``services/http/models``: the messages that HTTP speaks, as pydantic models, from ``proto/`` and its comments.

Run with ``python -m services.http.model_writing FOLDER`` (``make stubs`` does).
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Literal, NamedTuple

from google.protobuf import descriptor_pb2

PROTO_FOLDER = Path(__file__).parent.parent.parent / "proto"
PACKAGE = ".mambasearch.v1."


class Asked(NamedTuple):
    """How HTTP asks for a method."""

    name: str
    part: Literal["body", "query", "path"]  # where the request's fields are
    in_path: tuple[str, ...] = ()  # but for these


METHODS = {
    "SearchService": (
        Asked("Search", "body"),
        Asked("Retrieve", "body"),
        Asked("SimilarDocuments", "body"),
        Asked("ListChunks", "query", ("document_id",)),
    ),
    "IngestService": (
        Asked("CreateIngestJob", "body"),
        Asked("GetJob", "path"),
        Asked("ListJobs", "query"),
        Asked("CancelJob", "path"),
        Asked("ListDeadLetters", "query"),
        Asked("ReplayDeadLetters", "body", ("job_id",)),
    ),
}

_Field = descriptor_pb2.FieldDescriptorProto
_BOUNDS = {
    _Field.TYPE_INT32: f"ge={-(2**31)}, le={2**31 - 1}",
    _Field.TYPE_UINT32: f"ge=0, le={2**32 - 1}",
    _Field.TYPE_INT64: f"ge={-(2**63)}, le={2**63 - 1}",
    _Field.TYPE_UINT64: f"ge=0, le={2**64 - 1}",
}
_SCALARS = {
    **dict.fromkeys(_BOUNDS, ("int", "0")),
    _Field.TYPE_DOUBLE: ("float", "0.0"),
    _Field.TYPE_FLOAT: ("float", "0.0"),
    _Field.TYPE_BOOL: ("bool", "False"),
    _Field.TYPE_STRING: ("str", '""'),
}
# google.protobuf's own types, as JSON has them: type, and how pydantic is to read it.
_WELL_KNOWN = {
    ".google.protobuf.Timestamp": ("pydantic.AwareDatetime", "strict=False"),
    ".google.protobuf.Duration": ("str", r'pattern=r"^-?[0-9]{1,12}(\.[0-9]{1,9})?s$"'),
    ".google.protobuf.FieldMask": ("str", r'pattern=r"^[a-z0-9_.,]{0,4096}$"'),
}


class Protocol:
    """The files of the protocol, with their comments."""

    def __init__(self, files: descriptor_pb2.FileDescriptorSet) -> None:
        self.messages: dict[str, tuple[str, descriptor_pb2.DescriptorProto]] = {}
        self.enums: dict[str, tuple[str, descriptor_pb2.EnumDescriptorProto]] = {}
        self.services: dict[str, descriptor_pb2.ServiceDescriptorProto] = {}
        self.comments: dict[tuple[str, ...], str] = {}
        self.asked: dict[str, Asked] = {}  # by the type of the request
        for file in files.file:
            if f".{file.package}." != PACKAGE:
                continue
            stem = Path(file.name).stem
            paths = {tuple(place.path): place.leading_comments for place in file.source_code_info.location}
            self.services |= {service.name: service for service in file.service}
            for number, message in enumerate(file.message_type):
                self.messages[PACKAGE + message.name] = stem, message
                self.comments[message.name,] = paths.get((4, number), "")
                for place, field in enumerate(message.field):
                    self.comments[message.name, field.name] = paths.get((4, number, 2, place), "")
            for number, enum in enumerate(file.enum_type):
                self.enums[PACKAGE + enum.name] = stem, enum
                for place, value in enumerate(enum.value):
                    self.comments[enum.name, value.name] = paths.get((5, number, 2, place), "")

    def comment(self, *names: str) -> str:
        """Give what is said of a message, a field or a value, as one line."""
        return " ".join(self.comments[names].split())

    def reachable(self) -> dict[str, None]:
        """Name the messages and enums that the methods take and give, what they are made of first."""
        found: dict[str, None] = {}

        def visit(name: str, above: tuple[str, ...]) -> None:
            if name in found or name in above or not name.startswith(PACKAGE):
                return
            if name in self.messages:
                for field in self.messages[name][1].field:
                    if field.type_name in self.messages and self.messages[field.type_name][1].options.map_entry:
                        continue
                    for part in self.parts(field, self.messages[name][1]):
                        visit(part, (*above, name))
            found[name] = None

        for service, methods in METHODS.items():
            known = {method.name: method for method in self.services[service].method}
            for asked in methods:
                method = known[asked.name]
                if asked.part != "path":
                    self.asked[method.input_type] = asked
                    visit(method.input_type, ())
                visit(method.output_type, ())
        return found

    @staticmethod
    def parts(field: _Field, owner: descriptor_pb2.DescriptorProto) -> list[str]:
        """Name the types that a field needs; of a map, that of its values."""
        entry = map_entry(field, owner)
        return [entry.field[1].type_name if entry else field.type_name]


def map_entry(field: _Field, owner: descriptor_pb2.DescriptorProto) -> descriptor_pb2.DescriptorProto | None:
    """Give the entry type of a map; None for other fields."""
    nested = {f".{owner.name}.{entry.name}": entry for entry in owner.nested_type if entry.options.map_entry}
    return next((entry for name, entry in nested.items() if field.type_name.endswith(name)), None)


def read_protocol() -> Protocol:
    """Have protoc read ``proto/``."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "set"
        sources = sorted(str(path.relative_to(PROTO_FOLDER)) for path in PROTO_FOLDER.rglob("*.proto"))
        command = [sys.executable, "-m", "grpc_tools.protoc", f"--proto_path={PROTO_FOLDER}"]
        options = ["--include_imports", "--include_source_info", f"--descriptor_set_out={out}"]
        subprocess.run([*command, *options, *sources], check=True, timeout=60)  # noqa: S603 - our own files
        return Protocol(descriptor_pb2.FileDescriptorSet.FromString(out.read_bytes()))


def render(protocol: Protocol) -> dict[str, str]:
    """Write one module for each file of the protocol that is needed: file name to text."""
    names = protocol.reachable()
    stems = {(protocol.messages.get(name) or protocol.enums[name])[0]: None for name in names}
    written = {}
    for stem in stems:
        own = [name for name in names if (protocol.messages.get(name) or protocol.enums[name])[0] == stem]
        imported = sorted(
            {
                (protocol.messages.get(part) or protocol.enums[part])[0] + "|" + part.removeprefix(PACKAGE)
                for name in own
                if name in protocol.messages
                for field in protocol.messages[name][1].field
                for part in protocol.parts(field, protocol.messages[name][1])
                if part in names and part not in own
            }
        )
        lines = [
            f'"""The messages of ``{stem}.proto`` as JSON. Generated by ``make stubs``; do not edit."""',
            "from __future__ import annotations",
            "from typing import Any, ClassVar, Literal",
            "import pydantic",
            "from pydantic import Field",
            "from services.http.models.base import Message",
        ]
        for entry in imported:
            other, _, kind = entry.partition("|")
            lines.append(f"from services.http.models.{other}_pb2_json import {kind}")
        for name in own:
            if name in protocol.enums:
                values = ", ".join(f'"{value.name}"' for value in protocol.enums[name][1].value)
                lines.append(f"\n{name.removeprefix(PACKAGE)} = Literal[{values}]")
            else:
                lines += ["", *_model(protocol, protocol.messages[name][1])]
        written[f"{stem}_pb2_json.py"] = "\n".join(lines) + "\n"
    return written


def _model(protocol: Protocol, message: descriptor_pb2.DescriptorProto) -> Iterator[str]:
    asked = protocol.asked.get(PACKAGE + message.name)
    # What stands in an address is text that has to be read as numbers.
    yield f"class {message.name}(Message{', strict=False' if asked and asked.part == 'query' else ''}):"
    said = protocol.comment(message.name) or f"{message.name}, as in the protocol."
    yield f'    """{said}"""'
    groups = [
        [field.name for field in message.field if field.HasField("oneof_index") and field.oneof_index == number]
        for number, _ in enumerate(message.oneof_decl)
    ]
    exclusive = [tuple(group) for group in groups if len(group) > 1]
    if exclusive:
        yield f"    ONE_OF: ClassVar[tuple[tuple[str, ...], ...]] = {tuple(exclusive)!r}"
    for field in message.field:
        if asked is None or field.name not in asked.in_path:
            yield f"    {field.name}: {_annotation(protocol, message, field)}"


def _annotation(protocol: Protocol, message: descriptor_pb2.DescriptorProto, field: _Field) -> str:
    said = protocol.comment(message.name, field.name)
    entry = map_entry(field, message)
    kind, default, read = _type(protocol, entry.field[1] if entry else field)
    if field.type_name in protocol.enums:
        enum = protocol.enums[field.type_name][1]
        said += "".join(f" {value.name}: {protocol.comment(enum.name, value.name)}" for value in enum.value)
    if entry:
        return f"dict[str, {kind}] = Field(default_factory=dict, description={said!r})"
    if field.label == _Field.LABEL_REPEATED:
        return f"list[{kind}] = Field(default_factory=list, description={said!r})"
    if field.HasField("oneof_index") or default == "None":
        kind, default = f"{kind} | None", "None"
    return f"{kind} = Field({default}, description={said!r}{', ' + read if read else ''})"


def _type(protocol: Protocol, field: _Field) -> tuple[str, str, str]:
    """Give a field's type, its value where it is not given, and how pydantic is to read it."""
    if field.type_name in _WELL_KNOWN:
        kind, read = _WELL_KNOWN[field.type_name]
        return kind, "None", read
    if field.type_name in protocol.enums:
        enum = protocol.enums[field.type_name][1]
        return enum.name, f'"{enum.value[0].name}"', ""
    if field.type_name:
        return field.type_name.removeprefix(PACKAGE), "None", ""
    kind, default = _SCALARS[field.type]
    return kind, default, _BOUNDS.get(field.type, "")


def main() -> int:
    """Write the modules into the folder that is named."""
    folder = Path(sys.argv[1])
    for name, text in render(read_protocol()).items():
        (folder / name).write_text(text, encoding="utf-8")
    ruff = [sys.executable, "-m", "ruff"]
    files = [str(path) for path in sorted(folder.glob("*_pb2_json.py"))]
    fix = [
        "check",
        "--quiet",
        "--fix-only",
        "--select",
        "I,F401",
        "--config",
        str(PROTO_FOLDER.parent / "pyproject.toml"),
    ]
    subprocess.run([*ruff, *fix, *files], check=True, timeout=60)  # noqa: S603 - our own files
    subprocess.run([*ruff, "format", "--quiet", "--config", fix[-1], *files], check=True, timeout=60)  # noqa: S603
    return 0


if __name__ == "__main__":
    sys.exit(main())
