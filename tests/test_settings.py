"""Settings of every process."""

from pathlib import Path

import pytest

from encoder.errors import InvalidInput
from services import settings as module
from services.reading_settings import Settings, check_target
from services.settings import CommandSettings, EncoderSettings, SearchSettings, UpSettings


def all_classes() -> list[type[Settings]]:
    return [found for found in vars(module).values() if isinstance(found, type) and issubclass(found, Settings)]


def test_every_field_is_described() -> None:
    assert len(all_classes()) > 5
    for settings in all_classes():
        for name, field in settings.model_fields.items():
            assert field.description, f"{settings.__name__}.{name}"
            assert field.description.endswith("."), f"{settings.__name__}.{name}"


def test_arguments_win_over_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MAMBASEARCH_SEARCH_PORT", "1234")
    assert SearchSettings.load().search_port == 1234
    assert SearchSettings.load({"search_port": 99}).search_port == 99


@pytest.mark.parametrize(
    ("name", "value", "reason"),
    [
        ("MAMBASEARCH_SEARCH_PORT", "many", "MAMBASEARCH_SEARCH_PORT is 'many': .*valid integer"),
        ("MAMBASEARCH_SEARCH_PORT", "70000", "MAMBASEARCH_SEARCH_PORT is '70000': .*less than or equal to 65535"),
        ("MAMBASEARCH_ENCODER_HOST", "::", "MAMBASEARCH_ENCODER_HOST is '::'"),
        ("MAMBASEARCH_SERACH_PORT", "1", "MAMBASEARCH_SERACH_PORT is not a setting"),
        ("MAMBASEARCH_RAY_DIR", "/tmp/" + "x" * 50, "at most 40 characters"),
        ("MAMBASEARCH_ENCODER_MAX_ONGOING_REQUESTS", "9", r"must be at least 2 \* encoder_max_queued_requests"),
        ("MAMBASEARCH_ENCODER_MAX_REPLICAS", "0", "greater than or equal to 1"),
        ("MAMBASEARCH_ENCODER_HOST", "0.0.0.0", "without encoder_token"),
        ("MAMBASEARCH_ENCODER_TOKEN", "short", "MAMBASEARCH_ENCODER_TOKEN is not acceptable: .*at least 16"),
    ],
)
def test_a_value_that_does_not_fit_is_refused_in_one_sentence(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str, reason: str
) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(InvalidInput, match=reason) as refusal:
        UpSettings.load()
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize(
    "value", ["foo", "127.0.0.1:99999", "127.0.0.1:0", "http://a:1", "::1:9000", "a:1\n", ":1", ""]
)
def test_an_address_that_is_not_host_and_port_is_refused(value: str) -> None:
    for kind, name in (
        (SearchSettings, "encoder_target"),
        (SearchSettings, "index_target"),
        (CommandSettings, "search_target"),
        (CommandSettings, "ingest_target"),
    ):
        with pytest.raises(InvalidInput) as refusal:
            kind.load({name: value})
        assert str(refusal.value) == f"{name} is {value!r}: HOST:PORT is expected."


@pytest.mark.parametrize("value", ["127.0.0.1:9000", "my-host.example:1", "[::1]:65535", "index_1:80"])
def test_an_address_is_kept_as_it_is(value: str) -> None:
    assert check_target(value) == value


def test_an_unknown_argument_is_refused() -> None:
    with pytest.raises(InvalidInput, match="serach_port"):
        SearchSettings.load({"serach_port": 1})


def test_a_child_process_reads_the_same_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    given = UpSettings.load({"encoder_port": 9009, "data_dir": Path("/data"), "encoder_num_gpus": 0.5})
    for name, value in given.child_environment({}).items():
        monkeypatch.setenv(name, value)
    assert UpSettings.load() == given
    assert EncoderSettings.load().encoder_port == 9009
