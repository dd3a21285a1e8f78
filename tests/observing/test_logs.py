"""How processes log."""

import json
import logging
import re
from collections.abc import Iterator

import pytest

from encoder.call_context import accept, called
from services.observing.logs import FIELDS, configure_logging, resolved

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"


@pytest.fixture
def root() -> Iterator[logging.Logger]:
    logger = logging.getLogger()
    handlers, level = logger.handlers[:], logger.level
    yield logger
    logger.handlers[:] = handlers
    logger.setLevel(level)


def test_one_line_with_time_severity_and_process(root: logging.Logger, capsys: pytest.CaptureFixture[str]) -> None:
    configure_logging("search", "INFO", "text")
    configure_logging("search", "INFO", "text")
    logging.getLogger("services.x").info("listening on %d", 7)
    logging.getLogger("services.x").debug("too small to tell")
    logging.getLogger("httpx").info("connected")
    written = capsys.readouterr().err
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z INFO search services\.x: listening on 7\n", written), (
        written
    )


def test_beyond_a_terminal_each_line_is_json(root: logging.Logger, capsys: pytest.CaptureFixture[str]) -> None:
    assert resolved("auto") == "json"
    configure_logging("ingest", "INFO")
    logging.getLogger("services.x").warning("two\nlines é", extra={FIELDS: {"code": "OK", "duration_s": 0.25}})
    line = json.loads(capsys.readouterr().err)
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", line.pop("time"))
    assert line == {
        "level": "WARNING",
        "logger": "services.x",
        "process": "ingest",
        "message": "two\nlines é",
        "code": "OK",
        "duration_s": 0.25,
    }


def test_within_a_call_lines_name_it_and_its_trace(root: logging.Logger, capsys: pytest.CaptureFixture[str]) -> None:
    configure_logging("search", "INFO", "json")
    call = accept([("x-request-id", "from-the-app.7"), ("traceparent", f"00-{TRACE}-00f067aa0ba902b7-01")])
    with called(call):
        logging.getLogger("services.x").info("inside")
    logging.getLogger("services.x").info("outside")
    inside, outside = map(json.loads, capsys.readouterr().err.splitlines())
    assert (inside["request_id"], inside["trace_id"]) == ("from-the-app.7", TRACE)
    assert not {"request_id", "trace_id"} & outside.keys()


def test_a_traceback_stays_in_its_line(root: logging.Logger, capsys: pytest.CaptureFixture[str]) -> None:
    configure_logging("search", "INFO", "json")
    try:
        raise ValueError("why")  # noqa: TRY301 - what a traceback is of
    except ValueError:
        logging.getLogger("services.x").exception("it failed")
    written = capsys.readouterr().err
    assert written.count("\n") == 1
    assert "ValueError: why" in json.loads(written)["traceback"]
