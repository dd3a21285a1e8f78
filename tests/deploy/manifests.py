"""The files of deploy/, as the tests look at them."""

import copy
import functools
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parent.parent.parent
DEPLOY = ROOT / "deploy"
KUBERNETES = DEPLOY / "kubernetes"
OVERLAYS = ("cpu", "gpu", "incremental-upgrade")
Manifest = dict[str, Any]


def read_all(path: Path) -> list[Manifest]:
    return [document for document in yaml.safe_load_all(path.read_text(encoding="utf-8")) if document]


@functools.cache
def _built(overlay: str) -> tuple[Manifest, ...]:
    done = subprocess.run(
        ["kubectl", "kustomize", str(KUBERNETES / overlay)], capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
    return tuple(yaml.safe_load_all(done.stdout))


def build(overlay: str) -> list[Manifest]:
    """Build an overlay as `kubectl apply -k` does; needs kubectl, and no cluster."""
    if shutil.which("kubectl") is None:
        pytest.skip("kubectl, which builds overlays, is not installed")
    return copy.deepcopy(list(_built(overlay)))


def base() -> list[Manifest]:
    listed = read_all(KUBERNETES / "base" / "kustomization.yaml")[0]["resources"]
    return [manifest for name in listed for manifest in read_all(KUBERNETES / "base" / name)]


def find(manifests: list[Manifest], kind: str, name: str) -> Manifest:
    (found,) = [each for each in manifests if (each["kind"], each["metadata"]["name"]) == (kind, name)]
    return found


def pod_templates(manifest: Manifest) -> Iterator[Manifest]:
    """Give the pod templates of a workload, Ray's included."""
    spec = manifest.get("spec", {})
    if manifest["kind"] in ("Deployment", "StatefulSet"):
        yield spec["template"]
    if manifest["kind"] == "RayService":
        cluster = spec["rayClusterConfig"]
        yield from (group["template"] for group in (cluster["headGroupSpec"], *cluster["workerGroupSpecs"]))


def containers(manifests: list[Manifest]) -> Iterator[tuple[str, Manifest]]:
    """Give every container with its workload's name."""
    for manifest in manifests:
        for template in pod_templates(manifest):
            for container in template["spec"]["containers"]:
                yield manifest["metadata"]["name"], container


def variables(manifests: list[Manifest], container: Manifest) -> dict[str, str]:
    """Give a container's environment; what comes of secrets has an empty value."""
    found: dict[str, str] = {}
    for source in container.get("envFrom", []):
        found |= find(manifests, "ConfigMap", source["configMapRef"]["name"])["data"]
    return found | {each["name"]: each.get("value", "") for each in container.get("env", [])}
