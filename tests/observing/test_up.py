"""What `mamba-search up` tells its parts of metrics and logs."""

import socket
import sys
from pathlib import Path

import pytest

from encoder.errors import InUse, InvalidInput
from services.machine.preflight import check, parts_of
from services.observing.process import observing
from services.setting_groups import ObservingSettings
from services.settings import IndexOwnerSettings, UpSettings
from tests.processes import free_port


def test_ports_for_metrics_are_checked_before_anything_starts(tmp_path: Path) -> None:
    ports = {f"{part}_port": free_port() for part in ("encoder", "search", "ingest", "index")}
    settings = {"data_dir": tmp_path, **ports}
    with pytest.raises(InvalidInput, match="ingest_port and search_metrics_port are both"):
        check(UpSettings.load({**settings, "search_metrics_port": ports["ingest_port"]}))
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(InUse, match=f"encoder_metrics_port {port} on 127.0.0.1 cannot be had"):
            check(UpSettings.load({**settings, "encoder_metrics_port": port}))


@pytest.mark.parametrize(("given", "told"), [("auto", "json"), ("text", "text")])
def test_parts_write_their_logs_for_whoever_up_writes_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, given: str, told: str
) -> None:
    settings = UpSettings.load({"data_dir": tmp_path, "log_format": given, "index_metrics_port": 9103})
    _, environment = parts_of(settings, Path("/tmp/ray"))
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    part = IndexOwnerSettings.load()
    assert (part.log_format, part.index_metrics_port) == (told, 9103)


async def test_traces_need_their_packages(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "services.observing.tracing", None)
    settings = ObservingSettings.load({"otlp_endpoint": "http://127.0.0.1:4317"})
    with pytest.raises(InvalidInput, match=r"install mamba-search\[tracing\]"):
        async with observing("search", settings, 0):
            pass


@pytest.mark.parametrize("value", ["127.0.0.1:4317", "http://127.0.0.1", "ftp://a:1", "http://a b:1"])
def test_an_endpoint_that_is_no_address_is_refused(value: str) -> None:
    with pytest.raises(InvalidInput, match="otlp_endpoint"):
        ObservingSettings.load({"otlp_endpoint": value})
