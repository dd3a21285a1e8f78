"""Every setting that deploy/ names exists, for the process that it is given to, and takes the value given."""

import re
from pathlib import Path

import pydantic
import pytest
import yaml

from services.reading_settings import PREFIX, Settings
from services.setting_groups import CallerSettings
from services.settings import EncoderSettings, IngestSettings, SearchSettings
from tests.deploy.manifests import DEPLOY, OVERLAYS, base, build, containers, variables

PROCESSES: dict[str, type[Settings]] = {
    "encoder": EncoderSettings,
    "search": SearchSettings,
    "ingest": IngestSettings,
}
# Documents tell of the commands' settings, too.
KNOWN = {PREFIX + name.upper() for settings in (*PROCESSES.values(), CallerSettings) for name in settings.model_fields}
SECRET = "s" * 64


def check(process: str, given: dict[str, str]) -> Settings:
    """Make the settings that a process would read; values of secrets are made up."""
    settings = PROCESSES[process]
    fields = {name.removeprefix(PREFIX).lower(): value for name, value in given.items() if name.startswith(PREFIX)}
    fields = {name: value or SECRET for name, value in fields.items() if name in settings.model_fields}
    strings = {name: pydantic.TypeAdapter(str).validate_python(value) for name, value in fields.items()}
    return settings(**strings)


@pytest.mark.parametrize("path", sorted(DEPLOY.rglob("*")), ids=lambda path: str(path.relative_to(DEPLOY)))
def test_every_name_is_one_of_a_setting(path: Path) -> None:
    if not path.is_file() or "secrets" in path.parts:
        pytest.skip("no file of ours")
    named = set(re.findall(rf"\b{PREFIX}[A-Z][A-Z0-9_]*[A-Z0-9]\b", path.read_text(encoding="utf-8", errors="ignore")))
    assert sorted(named - KNOWN) == []


@pytest.mark.parametrize("name", PROCESSES)
def test_compose_gives_values_that_fit(name: str) -> None:
    compose = yaml.safe_load((DEPLOY / "compose.yaml").read_text())
    service = compose["services"][name]
    secrets = [each for each in service["secrets"] if isinstance(each, str)]
    given = service["environment"] | dict.fromkeys(secrets, SECRET)
    own = {field for field in given if field.removeprefix(PREFIX).lower() in PROCESSES[name].model_fields}
    assert own == set(given), "a process refuses no setting of another, but it would not follow it"
    check(name, given)


@pytest.mark.parametrize("name", ["search", "ingest"])
def test_the_base_gives_values_that_fit(name: str) -> None:
    manifests = base()
    (container,) = [each for _, each in containers(manifests) if each["name"] == name]
    given = variables(manifests, container)
    if name == "ingest":
        given["MAMBASEARCH_JOURNAL_URL"] = "postgresql+psycopg://mambasearch:p@journal:5432/mambasearch"
    assert all(field.removeprefix(PREFIX).lower() in PROCESSES[name].model_fields for field in given)
    check(name, given)


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_overlays_give_values_that_fit(overlay: str) -> None:
    manifests = build(overlay)
    for name in ("search", "ingest"):
        (container,) = [each for _, each in containers(manifests) if each["name"] == name]
        check(name, variables(manifests, container))
