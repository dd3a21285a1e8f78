"""deploy/kubernetes: what Kubernetes and the operators' schemas accept, and what we promise."""

import runpy
import subprocess
import sys
import warnings
from collections.abc import Iterator
from typing import Any

import jsonschema
import kubernetes_validate
import pytest
import yaml

from tests.deploy.manifests import (
    DEPLOY,
    KUBERNETES,
    OVERLAYS,
    ROOT,
    Manifest,
    base,
    build,
    containers,
    find,
    pod_templates,
    read_all,
    variables,
)

KUBERNETES_VERSION = "1.34"
CUSTOM = yaml.safe_load((ROOT / "tests/deploy/custom_resources.yaml").read_text())


def check(manifest: Manifest) -> None:
    """Validate a resource by Kubernetes' schema, or by ours of a custom one; its pods by Kubernetes' in either case."""
    schema = CUSTOM.get(manifest["kind"])
    if schema is None:
        check_by_kubernetes(manifest)
        return
    jsonschema.validate(manifest, schema)
    for template in pod_templates(manifest):
        metadata = {"name": "pod", **template.get("metadata", {})}
        check_by_kubernetes({"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": template["spec"]})
    service = manifest["spec"].get("serveService")
    if service:
        check_by_kubernetes({"apiVersion": "v1", "kind": "Service", **service})


def check_by_kubernetes(manifest: Manifest) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of the validator's own
        kubernetes_validate.validate(manifest, KUBERNETES_VERSION, strict=True)


@pytest.mark.parametrize("manifest", base(), ids=lambda each: f"{each['kind']}-{each['metadata']['name']}")
def test_the_base_is_valid(manifest: Manifest) -> None:
    check(manifest)


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_what_an_overlay_builds_is_valid(overlay: str) -> None:
    manifests = build(overlay)
    assert {each["metadata"].get("namespace", "mamba-search") for each in manifests} == {"mamba-search"}
    for manifest in manifests:
        check(manifest)


def test_the_secrets_are_templates_of_all_that_is_asked_for() -> None:
    secrets = read_all(KUBERNETES / "secrets.yaml")
    for secret in secrets:
        check(secret)
        assert not any(secret["stringData"].values()), "a template holds no value"
    known = {each["metadata"]["name"]: set(each["stringData"]) for each in secrets}
    manifests = [*base(), *read_all(KUBERNETES / "qdrant-values.yaml")]
    wanted = {(found["name"], found["key"]) for found in _values_of(manifests, "secretKeyRef")}
    wanted |= {
        (found["secretName"], item["key"])
        for found in _values_of(manifests, "secret")
        for item in found.get("items", [])
    }
    assert {name for name, _ in wanted} <= set(known)
    assert all(key in known[name] for name, key in wanted)
    assert {found["secretName"] for found in _values_of(manifests, "secret")} <= set(known)


def _values_of(node: Any, name: str) -> Iterator[Any]:
    if isinstance(node, dict):
        for key, value in node.items():
            if key == name and isinstance(value, dict):
                yield value
            yield from _values_of(value, name)
    elif isinstance(node, list):
        for each in node:
            yield from _values_of(each, name)


@pytest.mark.parametrize("change", ["a field that is unknown", "a pod's field", "an upgrade without a gateway"])
def test_what_is_wrong_is_noticed(change: str) -> None:
    """The schemas are no rubber stamp."""
    service = find(base(), "RayService", "encoder")
    if change == "a field that is unknown":
        service["spec"]["upgradeStrategi"] = {}
    elif change == "a pod's field":
        service["spec"]["rayClusterConfig"]["headGroupSpec"]["template"]["spec"]["containers"][0]["imagee"] = "x"
    else:
        service["spec"]["upgradeStrategy"]["clusterUpgradeOptions"] = {"stepSizePercent": 5, "intervalSeconds": 10}
    with pytest.raises((jsonschema.ValidationError, kubernetes_validate.ValidationError)):
        check(service)


def test_qdrants_values_are_known_to_its_chart() -> None:
    jsonschema.validate(read_all(KUBERNETES / "qdrant-values.yaml")[0], CUSTOM["QdrantValues"])


def test_the_overlays_serve_what_serve_yaml_does() -> None:
    """`make manifests` writes them; the CPU one differs in arguments of the machine alone."""
    found = runpy.run_path(str(KUBERNETES / "serve_config.py"))
    for path, text in found["patches"]().items():
        assert path.read_text() == text, "run `make manifests`"
    served = read_all(DEPLOY / "serve.yaml")[0]
    (application,) = found["for_cpus"](served)["applications"]
    assert application["args"].items() >= {"encoder_device": "cpu", "encoder_num_gpus": 0}.items()
    assert set(found["GPU_ALONE"]) <= set(served["applications"][0]["args"]) - set(application["args"])


@pytest.mark.parametrize("overlay", ["cpu", "gpu"])
def test_rays_schema_accepts_what_the_overlays_serve(overlay: str) -> None:
    """In a process of its own: Ray reads its environment once."""
    code = (
        "import sys, yaml\nfrom ray.serve.schema import ServeDeploySchema\n"
        "from services.encoder_service import SERVICER_FUNCTIONS, encoder\n"
        "patch = yaml.safe_load(open(sys.argv[1]))\n"
        "config = ServeDeploySchema.model_validate(yaml.safe_load(patch['spec']['serveConfigV2']))\n"
        "assert tuple(config.grpc_options.grpc_servicer_functions) == SERVICER_FUNCTIONS\n"
        "print(encoder(config.applications[0].args)._bound_deployment.name)\n"
    )
    path = str(KUBERNETES / overlay / "encoder.yaml")
    run = subprocess.run([sys.executable, "-c", code, path], cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert run.stdout == "Encoder\n", run.stderr


def test_pods_are_confined() -> None:
    """As the Pod Security Standard "restricted" wants it, which the namespace enforces."""
    manifests = base()
    for manifest in manifests:
        for template in pod_templates(manifest):
            pod = template["spec"]
            assert pod["securityContext"]["runAsNonRoot"]
            assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    for _, container in containers(manifests):
        context = container["securityContext"]
        assert context["allowPrivilegeEscalation"] is False
        assert context["capabilities"] == {"drop": ["ALL"]}
        assert container["resources"]["limits"]["memory"] if container["name"] != "ray-worker" else True


@pytest.mark.parametrize("overlay", ["cpu", "gpu"])
def test_rays_workers_have_what_a_replica_reserves(overlay: str) -> None:
    manifests = build(overlay)
    (worker,) = [each for _, each in containers(manifests) if each["name"] == "ray-worker"]
    assert worker["image"] == f"registry.example.com/mamba-search:{overlay}"
    limits = worker["resources"]["limits"]
    assert limits["nvidia.com/gpu" if overlay == "gpu" else "cpu"] == ("1" if overlay == "gpu" else "4")


@pytest.mark.parametrize(("name", "port"), [("search", 50051), ("ingest", 50052)])
def test_doors_are_probed_and_drain(name: str, port: int) -> None:
    manifests = base()
    deployment = find(manifests, "Deployment", name)
    pod = deployment["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    assert container["readinessProbe"]["exec"]["command"] == ["entrypoint", "health", f"127.0.0.1:{port}", "--tls"]
    assert container["livenessProbe"]["tcpSocket"]["port"] == "grpc"
    given = variables(manifests, container)
    draining_s = float(given["MAMBASEARCH_DRAIN_DELAY_S"]) + float(given["MAMBASEARCH_DRAIN_TIMEOUT_S"])
    assert pod["terminationGracePeriodSeconds"] >= draining_s + 10
    assert find(manifests, "PodDisruptionBudget", name)["spec"]["maxUnavailable"] == 1
    scaler = find(manifests, "HorizontalPodAutoscaler", name)["spec"]
    assert scaler["scaleTargetRef"]["name"] == name
    assert 2 <= scaler["minReplicas"] < scaler["maxReplicas"]


def test_only_search_and_ingestion_reach_encoder_and_index() -> None:
    policies = {each["metadata"]["name"]: each["spec"] for each in base() if each["kind"] == "NetworkPolicy"}
    assert policies["default-deny"] == {"podSelector": {}, "policyTypes": ["Ingress", "Egress"]}
    assert _who_reaches(policies["encoder"], 9000) == {"search", "ingest", "encoder"}
    assert _who_reaches(policies["qdrant"], 6334) == {"search", "ingest"}
    assert _who_reaches(policies["journal"], 5432) == {"ingest"}
    for name, port in (("search", 50051), ("ingest", 50052)):
        doors = [each for each in policies[name]["ingress"] if {"protocol": "TCP", "port": port} in each["ports"]]
        assert [each["from"] for each in doors] == [[{"namespaceSelector": {}}]]
    for name, port in (("search", 9101), ("ingest", 9102), ("encoder", 9104)):
        (rule,) = [
            each for each in policies[name]["ingress"] if {"protocol": "TCP", "port": port} in each.get("ports", [])
        ]
        assert rule["from"][0]["namespaceSelector"]["matchLabels"] == {"kubernetes.io/metadata.name": "monitoring"}


def _who_reaches(policy: Manifest, port: int) -> set[str]:
    found: set[str] = set()
    for rule in policy["ingress"]:
        if "ports" in rule and port not in [each["port"] for each in rule["ports"]]:
            continue
        for peer in rule["from"]:
            selector = peer["podSelector"]
            found |= set(selector.get("matchLabels", {}).values())
            found |= {value for each in selector.get("matchExpressions", []) for value in each["values"]}
    return found


def test_metrics_are_scraped_where_pods_have_them() -> None:
    manifests = base()
    ports = {name: {each["name"] for each in container["ports"]} for name, container in containers(manifests)}
    monitored = {
        value for each in manifests if each["kind"] == "PodMonitor" for value in _selected(each["spec"]["selector"])
    }
    assert {"search", "ingest", "encoder"} <= monitored
    assert all("metrics" in ports[name] for name in ("search", "ingest", "encoder"))


def _selected(selector: Manifest) -> set[str]:
    return set(selector.get("matchLabels", {}).values()) | {
        value for each in selector.get("matchExpressions", []) for value in each["values"]
    }
