"""What `up` refuses before it starts anything, and what it tells its parts."""

import re
import socket
from pathlib import Path

import pytest

from encoder.errors import CheckpointError, FingerprintMismatch, InUse, InvalidInput, MambaSearchError
from ingest.index.data_directory import DataDirectory
from services.machine.local_machine import ray_directory, target_of
from services.machine.preflight import check, page_address, parts_of
from services.settings import RAY_DIR_CHARS_MAX, EncoderSettings, IngestSettings, SearchSettings, UpSettings
from tests.processes import free_port
from tests.tiny_model import save_tiny_model


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("models")
    return [save_tiny_model(folder / name, seed=seed) for seed, name in enumerate(("one", "two"))]


def make_settings(tmp_path: Path, models: list[Path], **changes: object) -> UpSettings:
    ports = {f"{part}_port": free_port() for part in ("encoder", "search", "http", "ingest", "index")}
    folders = {"query_model": models[0], "passage_model": models[-1], "data_dir": tmp_path / "data"}
    return UpSettings.load({**ports, **folders, **changes})


def refusal_of(settings: UpSettings, kind: type[MambaSearchError]) -> str:
    with pytest.raises(kind) as refusal:
        check(settings)
    assert "\n" not in str(refusal.value)
    return str(refusal.value)


def test_all_is_well(tmp_path: Path, models: list[Path]) -> None:
    check(make_settings(tmp_path, models[:1]))
    check(make_settings(tmp_path, models))


def test_a_port_in_use(tmp_path: Path, models: list[Path]) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        message = refusal_of(make_settings(tmp_path, models, ingest_port=port), InUse)
    assert message.startswith(f"ingest_port {port} on 127.0.0.1 cannot be had (Address already in use)")


def test_an_address_that_is_not_ours(tmp_path: Path, models: list[Path]) -> None:
    message = refusal_of(make_settings(tmp_path, models, search_host="192.0.2.77", allow_insecure=True), InUse)
    assert re.match(r"search_port \d+ on 192.0.2.77 cannot be had \(Cannot assign requested address\)", message)


def test_one_port_for_two(tmp_path: Path, models: list[Path]) -> None:
    port = free_port()
    message = refusal_of(make_settings(tmp_path, models, ingest_port=port, search_port=port), InvalidInput)
    assert message == f"search_port and ingest_port are both {port}; give each a port of its own."


def test_models_that_do_not_belong_together(tmp_path: Path, models: list[Path]) -> None:
    other = save_tiny_model(tmp_path / "other", projection_dim=24)
    message = refusal_of(make_settings(tmp_path, [models[0], other]), FingerprintMismatch)
    assert re.match(r"query_model .*one makes embeddings of length 32, passage_model .*other of length 24; ", message)


@pytest.mark.parametrize("missing", ["config.json", "model.safetensors", "tokenizer.json"])
def test_a_folder_that_is_no_whole_model(tmp_path: Path, models: list[Path], missing: str) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    for file in models[0].iterdir():
        if file.name != missing:
            (folder / file.name).write_bytes(file.read_bytes())
    assert missing in refusal_of(make_settings(tmp_path, [folder]), CheckpointError)


def test_a_data_directory_in_use(tmp_path: Path, models: list[Path]) -> None:
    held = DataDirectory.hold(tmp_path / "data")
    assert "is held by another process" in refusal_of(make_settings(tmp_path, models), InUse)
    held.release()
    check(make_settings(tmp_path, models))


def test_a_data_directory_of_another_model(tmp_path: Path, models: list[Path]) -> None:
    held = DataDirectory.hold(tmp_path / "data")
    held.bind(fingerprint="model=other chunker=other", dimension=7)
    held.release()
    message = refusal_of(make_settings(tmp_path, models), FingerprintMismatch)
    assert "model=other chunker=other (dimension 7)" in message


def test_a_target_that_up_would_not_use(tmp_path: Path, models: list[Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MAMBASEARCH_ENCODER_TARGET", "elsewhere:9000")
    with pytest.raises(InvalidInput, match="MAMBASEARCH_ENCODER_TARGET is set, but `mamba-search up` starts"):
        make_settings(tmp_path, models)


@pytest.mark.parametrize("shared", [True, False])
def test_parts_are_told_where_the_others_are(
    tmp_path: Path, models: list[Path], monkeypatch: pytest.MonkeyPatch, *, shared: bool
) -> None:
    settings = make_settings(tmp_path, models[:1] if shared else models)
    parts, environment = parts_of(settings, Path("/tmp/short"))
    assert [part.name for part in parts] == ["index", "encoder", "search", "ingest"]
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert EncoderSettings.load().encoder_port == settings.encoder_port
    token = EncoderSettings.load().shown_token()
    assert token is not None
    assert token != parts_of(settings, Path("/tmp/short"))[1]["MAMBASEARCH_ENCODER_TOKEN"], "one for each run"
    for told in (SearchSettings.load(), IngestSettings.load()):
        assert told.encoder_target == f"127.0.0.1:{settings.encoder_port}"
        assert told.index_target == f"127.0.0.1:{settings.index_port}"
        assert told.shown_token() == token
        assert (told.encoder_query_application == told.encoder_passage_application) == shared
    assert set(parts[1].applications) == ({"encoder"} if shared else {"query-encoder", "passage-encoder"})


def test_a_qdrant_server_needs_no_index_owner(tmp_path: Path, models: list[Path]) -> None:
    settings = make_settings(tmp_path, models, qdrant_url="http://127.0.0.1:6334")
    check(settings)
    parts, environment = parts_of(settings, tmp_path)
    assert [part.name for part in parts] == ["encoder", "search", "ingest"]
    assert environment["MAMBASEARCH_QDRANT_URL"] == "http://127.0.0.1:6334"


@pytest.mark.parametrize(
    ("host", "target"),
    [("127.0.0.1", "127.0.0.1:5"), ("0.0.0.0", "127.0.0.1:5"), ("::", "[::1]:5"), ("localhost", "localhost:5")],
)
def test_how_an_address_is_reached(host: str, target: str) -> None:
    assert target_of(host, 5) == target


def test_rays_directory_is_short(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    long = tmp_path / ("x" * 50)
    long.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(long))
    made = ray_directory()
    assert made.is_dir()
    assert len(str(made)) <= RAY_DIR_CHARS_MAX
    made.rmdir()


def test_the_page_has_an_address_and_its_service_knows_the_worker(tmp_path: Path, models: list[Path]) -> None:
    settings = make_settings(tmp_path, models[:1], http_host="0.0.0.0", allow_insecure=True)
    assert page_address(settings) == f"http://127.0.0.1:{settings.http_port}/"
    _, environment = parts_of(settings, tmp_path)
    assert environment["MAMBASEARCH_INGEST_TARGET"] == f"127.0.0.1:{settings.ingest_port}"
    assert page_address(make_settings(tmp_path, models[:1], http_port=0)) is None


def test_the_page_is_not_shown_to_others_without_encryption_and_keys(tmp_path: Path, models: list[Path]) -> None:
    with pytest.raises(InvalidInput, match=r"http_host is 0\.0\.0\.0, which others reach: give tls_cert"):
        make_settings(tmp_path, models[:1], http_host="0.0.0.0")
    make_settings(tmp_path, models[:1], http_host="0.0.0.0", http_port=0)
