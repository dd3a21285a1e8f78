"""``mamba-search ingest --growing``, on a directory of its own, with a tiny model."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from services.cli.app import run
from tests.tiny_model import save_tiny_model


@pytest.fixture(autouse=True)
def _tiny_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MAMBASEARCH_MODEL", str(save_tiny_model(tmp_path / "model")))


def test_a_growing_file_is_added_to(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("MAMBASEARCH_CHUNK_ENCODING", "one-pass")
    file, data_dir = tmp_path / "watch.log.txt", tmp_path / "data"
    told = []
    for count in (60, 62, 66):
        file.write_text("The lamp was lit at dusk and burned until dawn, and all was well.\n" * count)
        assert run(["ingest", str(file), "--growing", "--data-dir", str(data_dir)]) == 0
        told.append(capsys.readouterr().out)
    assert all(line.startswith("1 document ingested (") for line in told)
    # Of each version that others may follow, the encoder's state is there; the one before it is not needed any more.
    assert len(list((data_dir / "states").iterdir())) == 2
    assert run(["search", "lamp", "--data-dir", str(data_dir), "--json", "--top-k", "50"]) == 0
    hits = json.loads(capsys.readouterr().out)["hits"]
    assert sorted(hit["chunk_index"] for hit in hits) == list(range(len(hits)))
    assert max(hit["line_end"] for hit in hits) == 66
