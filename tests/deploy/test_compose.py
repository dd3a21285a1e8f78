"""deploy/compose.yaml: the compose specification accepts it, and it publishes the doors alone."""

import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from compose_spec import PyCompose, PyOptions

from tests.deploy.manifests import DEPLOY, ROOT

FILES = (DEPLOY / "compose.yaml", DEPLOY / "compose.gpu.yaml")
COMPOSE: dict[str, Any] = yaml.safe_load(FILES[0].read_text())
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
DOORS = {
    "search": {"127.0.0.1:50051:50051", "127.0.0.1:8080:8080"},
    "ingest": {"127.0.0.1:50052:50052"},
    "grafana": {"127.0.0.1:3000:3000"},
}


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_the_specification_accepts_it(path: Path) -> None:
    options = PyOptions()
    options.apply_merge = True
    checked = options.from_yaml(path.read_text())
    assert set(checked.to_dict()["services"]) <= set(SERVICES)


def test_what_is_wrong_is_noticed() -> None:
    with pytest.raises(ValueError, match="restrat"):
        PyCompose.from_yaml("services: {search: {image: x, restrat: always}}")


def test_only_doors_are_published_and_only_on_this_machine() -> None:
    assert {name: set(each["ports"]) for name, each in SERVICES.items() if "ports" in each} == DOORS
    assert COMPOSE["networks"]["inside"] == {"internal": True}
    assert {name for name, each in SERVICES.items() if "outside" in each["networks"]} == set(DOORS)


@pytest.mark.parametrize("name", SERVICES)
def test_each_service_is_watched_bounded_and_confined(name: str) -> None:
    service = SERVICES[name]
    assert service["healthcheck"]["test"][0] in ("CMD", "CMD-SHELL")
    assert service["restart"] == "unless-stopped"
    assert service["deploy"]["resources"]["limits"].keys() == {"cpus", "memory"}
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]


def test_kernels_are_compiled_into_a_volume() -> None:
    """The file system is read-only but for volumes and /tmp, from where nothing may be loaded."""
    beside = yaml.safe_load(FILES[1].read_text())
    (image,) = re.findall(r"^ENV TRITON_CACHE_DIR=(.+)$", (DEPLOY / "Dockerfile.gpu").read_text(), re.MULTILINE)
    assert [volume.split(":")[1] for volume in beside["services"]["encoder"]["volumes"]] == [image]
    assert beside["volumes"].keys() == {"triton"}


def test_prometheus_asks_where_each_service_tells() -> None:
    """Each target is a service of the network inside, which listens there for others."""
    scraped = yaml.safe_load((DEPLOY / "prometheus" / "prometheus.yml").read_text())["scrape_configs"]
    targets = [target for job in scraped for group in job["static_configs"] for target in group["targets"]]
    told = {
        f"{name}:{value}"
        for name, service in SERVICES.items()
        for key, value in service.get("environment", {}).items()
        if key.endswith("_METRICS_PORT")
    }
    assert sorted(targets) == sorted(told)
    for target in targets:
        service = SERVICES[target.partition(":")[0]]
        assert service["environment"]["MAMBASEARCH_METRICS_HOST"] == "0.0.0.0"
        assert set(service["networks"]) & set(SERVICES["prometheus"]["networks"])


def test_all_parts_show_one_token_to_the_encoder() -> None:
    for name in ("encoder", "search", "ingest"):
        assert "MAMBASEARCH_ENCODER_TOKEN" in SERVICES[name]["secrets"]


def test_secrets_are_files_and_each_is_made() -> None:
    """None stands in an environment; make-secrets.sh makes each file that is named."""
    made = (DEPLOY / "make-secrets.sh").read_text()
    for secret in COMPOSE["secrets"].values():
        assert list(secret) == ["file"]
        assert Path(secret["file"]).name in made
    named = {
        each if isinstance(each, str) else each["source"]
        for service in SERVICES.values()
        for each in service.get("secrets", [])
    }
    assert named == set(COMPOSE["secrets"])
    for service in SERVICES.values():
        assert not any(word in key for key in service.get("environment", {}) for word in ("TOKEN", "API_KEY"))


def test_files_that_are_mounted_exist() -> None:
    for service in SERVICES.values():
        for volume in service.get("volumes", []):
            source = volume.split(":")[0]
            if source.startswith("."):
                assert (DEPLOY / source).exists(), source
            else:
                assert source in COMPOSE["volumes"]
        build = service.get("build")
        if build:
            assert (DEPLOY / build["context"]).resolve() == ROOT
            assert (ROOT / build["dockerfile"]).exists()
