"""The models of HTTP are what `make stubs` writes, and say what the messages say."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from google.protobuf.message import Message
from mambasearch.v1 import jobs_pb2, search_pb2

from services.http import messages, model_writing
from services.http.models import jobs_pb2_json, search_pb2_json

FOLDER = Path(model_writing.__file__).parent / "models"


def test_committed_models_are_the_generated_ones(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.argv", ["model_writing", str(tmp_path)])
    assert model_writing.main() == 0
    generated = {path.name: path.read_text() for path in tmp_path.iterdir()}
    committed = {path.name: path.read_text() for path in FOLDER.glob("*_pb2_json.py")}
    assert generated.keys() == committed.keys()
    for name, text in generated.items():
        assert text == committed[name], f"{name} is stale; run `make stubs`"


@pytest.mark.parametrize(
    ("message", "model"),
    [
        (search_pb2.SearchResponse(), search_pb2_json.SearchResponse),
        (search_pb2.RetrieveResponse(), search_pb2_json.RetrieveResponse),
        (search_pb2.ListChunksResponse(), search_pb2_json.ListChunksResponse),
        (jobs_pb2.Job(), jobs_pb2_json.Job),
    ],
)
def test_answers_fit_their_models(message: Message, model: type) -> None:
    """Of each field a value, as far down as messages go: what is written can be read."""
    fill(message, depth=4)
    written = messages.to_json(message)
    read = model.model_validate_json(json.dumps(written))
    assert messages.to_message(read, type(message)()) == message


def fill(message: Message, depth: int) -> None:
    for field in message.DESCRIPTOR.fields:
        holder = getattr(message, field.name)
        if field.message_type and field.message_type.GetOptions().map_entry:
            holder["a"].text = "é"
        elif field.message_type and depth == 0:
            continue
        elif field.message_type and field.is_repeated:
            fill(holder.add(), depth - 1)
        elif field.message_type and field.message_type.name in {"Timestamp", "Duration"}:
            holder.seconds = 3
        elif field.message_type:
            if not field.containing_oneof or not message.WhichOneof(field.containing_oneof.name):
                holder.SetInParent()
                fill(holder, depth - 1)
        elif field.is_repeated:
            holder.append("a" if field.type == field.TYPE_STRING else 1)
        elif not field.containing_oneof or not message.WhichOneof(field.containing_oneof.name):
            kinds = {field.TYPE_STRING: "a", field.TYPE_BOOL: True, field.TYPE_DOUBLE: 0.5, field.TYPE_UINT64: 2**60}
            setattr(message, field.name, kinds.get(field.type, 1))
