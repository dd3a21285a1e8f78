"""How processes log."""

import logging
import re
from collections.abc import Iterator

import pytest

from services.telemetry import configure_logging


@pytest.fixture
def root() -> Iterator[logging.Logger]:
    logger = logging.getLogger()
    handlers, level = logger.handlers[:], logger.level
    yield logger
    logger.handlers[:] = handlers
    logger.setLevel(level)


def test_one_line_with_time_severity_and_process(root: logging.Logger, capsys: pytest.CaptureFixture[str]) -> None:
    configure_logging("search", "INFO")
    configure_logging("search", "INFO")
    logging.getLogger("services.x").info("listening on %d", 7)
    logging.getLogger("services.x").debug("too small to tell")
    logging.getLogger("httpx").info("connected")
    written = capsys.readouterr().err
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z INFO search services\.x: listening on 7\n", written), (
        written
    )
