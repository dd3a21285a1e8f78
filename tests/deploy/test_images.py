"""The images: their Dockerfiles pass the linter, and what is copied, installed and run in them is there.

Nothing here builds them: that needs a container engine.
"""

import importlib.util
import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from services.settings import EncoderSettings, IndexOwnerSettings, IngestSettings, SearchSettings
from tests.deploy.manifests import DEPLOY, ROOT, base, containers, read_all

DOCKERFILES = (DEPLOY / "Dockerfile", DEPLOY / "Dockerfile.gpu")
ENTRYPOINT = DEPLOY / "entrypoint.sh"
MODULES = dict(re.findall(r"^    (\w+)\) exec python -m ([\w.]+) ", ENTRYPOINT.read_text(), re.MULTILINE))


@pytest.mark.parametrize("path", DOCKERFILES, ids=lambda path: path.name)
def test_the_linter_has_nothing_to_say(path: Path) -> None:
    linter = Path(sys.executable).parent / "hadolint"
    done = subprocess.run([linter, "--no-color", path], capture_output=True, text=True, timeout=120, check=False)
    assert (done.stdout, done.returncode) == ("", 0)


@pytest.mark.parametrize("path", DOCKERFILES, ids=lambda path: path.name)
def test_what_they_copy_is_there_and_not_ignored(path: Path) -> None:
    allowed = {line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    for arguments in re.findall(r"^COPY (?!--from)(.+)$", path.read_text(), re.MULTILINE):
        for source in arguments.split()[:-1]:
            assert (ROOT / source).exists()
            assert source in allowed


@pytest.mark.parametrize("path", DOCKERFILES, ids=lambda path: path.name)
def test_they_run_as_nobody_in_particular_and_say_how_they_are(path: Path) -> None:
    text = path.read_text()
    assert "\nUSER 10001:10001\n" in text
    assert re.search(r'^HEALTHCHECK .*CMD \["entrypoint", "health", "127\.0\.0\.1:50051"\]$', text, re.MULTILINE)
    for install in re.findall(r"pip install (?:--no-build-isolation )?(\S+ \S+)", text):
        assert install == "--constraint constraints.txt"


def test_what_they_install_is_pinned() -> None:
    """Each extra is the project's own, and each direct requirement of it stands in constraints.txt."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    pinned = {
        line.partition("==")[0].lower().replace("_", "-")
        for line in (ROOT / "constraints.txt").read_text().splitlines()
        if "==" in line
    }
    for path in DOCKERFILES:
        (wanted,) = re.findall(r"'\.\[([\w,]+)\]'", path.read_text())
        assert "tests" not in wanted
        needed = [*project["dependencies"], *(each for name in wanted.split(",") for each in extras[name])]
        names = {re.split(r"[\[<>=!~ ]", each)[0].lower().replace("_", "-") for each in needed}
        assert sorted(names - pinned - {"mamba-search"}) == []


def test_every_name_runs_a_module_of_ours() -> None:
    assert set(MODULES) == {"search", "ingest", "index", "encoder", "health"}
    for module in MODULES.values():
        assert importlib.util.find_spec(module) is not None, module


def test_what_containers_are_told_to_run_is_known() -> None:
    compose = read_all(DEPLOY / "compose.yaml")[0]["services"]
    told = [each["command"] for each in compose.values() if each.get("image", "").startswith("mamba-search")]
    told += [container["args"] for _, container in containers(base()) if "args" in container]
    assert {command[0] for command in told} == {"encoder", "search", "ingest"}


def run_entrypoint(tmp_path: Path, *arguments: str, **secrets: str) -> subprocess.CompletedProcess[str]:
    """Run the script with a `python` that prints what it is told."""
    (tmp_path / "bin").mkdir()
    for name in ("python", "mamba-search", "ray"):
        stand_in = tmp_path / "bin" / name
        stand_in.write_text(f'#!/bin/bash\necho {name} "$@"; env | grep ^MAMBASEARCH_ || true\n')
        stand_in.chmod(0o755)
    (tmp_path / "secrets").mkdir()
    for name, value in secrets.items():
        (tmp_path / "secrets" / name).write_text(value)
    inherited = os.environ.items()  # noqa: TID251 - for a process of its own
    environment = {name: value for name, value in inherited if not name.startswith("MAMBASEARCH_")}
    environment |= {"PATH": f"{tmp_path / 'bin'}:/usr/bin:/bin", "SECRETS_DIR": str(tmp_path / "secrets")}
    return subprocess.run(
        ["bash", ENTRYPOINT, *arguments], env=environment, capture_output=True, text=True, timeout=60, check=True
    )


@pytest.mark.parametrize(
    ("arguments", "command"),
    [
        (["search"], "python -m services.search_service"),
        (["health", "127.0.0.1:1", "--tls"], "python -m services.health_check 127.0.0.1:1 --tls"),
        (["ray", "start", "--head"], "ray start --head"),
        (["search-for", "a b"], "mamba-search search-for a b"),
        ([], "mamba-search up"),
    ],
)
def test_names_become_commands(tmp_path: Path, arguments: list[str], command: str) -> None:
    assert run_entrypoint(tmp_path, *arguments).stdout == command + "\n"


def test_secrets_that_are_files_become_settings(tmp_path: Path) -> None:
    shown = run_entrypoint(tmp_path, "search", MAMBASEARCH_ENCODER_TOKEN="t o$k`e\n", OTHER="x").stdout
    assert shown.splitlines()[1:] == ["MAMBASEARCH_ENCODER_TOKEN=t o$k`e"]


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("search", SearchSettings),
        ("ingest", IngestSettings),
        ("index", IndexOwnerSettings),
        ("encoder", EncoderSettings),
    ],
)
def test_a_process_begins_with_its_settings(name: str, settings: type) -> None:
    """Each refuses a setting that it cannot mean, in one line: its imports are fine, and it read its environment."""
    field = {"search": "SEARCH_PORT", "ingest": "INGEST_PORT", "index": "INDEX_PORT", "encoder": "ENCODER_PORT"}[name]
    assert field.lower() in settings.model_fields
    environment = os.environ | {f"MAMBASEARCH_{field}": "nonsense"}  # noqa: TID251 - for a process of its own
    done = subprocess.run(
        [sys.executable, "-m", MODULES[name]], env=environment, cwd=ROOT, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 2
    assert f"MAMBASEARCH_{field} is 'nonsense'" in done.stderr


def test_shellcheck_or_bash_reads_the_scripts() -> None:
    for script in (ENTRYPOINT, DEPLOY / "make-secrets.sh"):
        assert os.access(script, os.X_OK)
        subprocess.run([shutil.which("bash") or "bash", "-n", script], check=True)
