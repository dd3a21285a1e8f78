"""Dashboard and alert rules: of metrics that there are, by Prometheus's own checks, told in docs/observability.md."""

import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.observing.registries import families

ROOT = Path(__file__).parents[2]
PROMETHEUS = ROOT / "deploy" / "prometheus"
DASHBOARD = json.loads((ROOT / "deploy" / "grafana" / "dashboards" / "mamba-search.json").read_text())
RULES = yaml.safe_load((PROMETHEUS / "alerts.yml").read_text())["groups"][0]["rules"]
PAGE = (ROOT / "docs" / "observability.md").read_text()
OTHERS = {"process_cpu_seconds_total", "process_resident_memory_bytes", "up"}  # of Prometheus and its library
promtool = pytest.mark.skipif(shutil.which("promtool") is None, reason="needs promtool, of Debian's package prometheus")


def panels() -> list[dict[str, Any]]:
    return [panel for panel in DASHBOARD["panels"] if panel["type"] != "row"]


def asked_for(expression: str) -> set[str]:
    without_labels = re.sub(r"\{[^}]*\}|by \([^)]*\)", "", expression)
    return set(re.findall(r"\b(?:mambasearch|process)_\w+|\bup\b", without_labels))


def known_series() -> set[str]:
    return OTHERS | {name for family in families() for name in family.series}


def test_metrics_are_named_as_prometheus_would_have_it() -> None:
    assert len(families()) > 30
    for family in families():
        assert re.fullmatch(r"mambasearch_[a-z_]+", family.name)
        assert family.text.endswith("."), family.name
        assert set(family.labels) <= {
            *("method", "code", "quota", "stage", "lane", "outcome", "state", "gpu", "kind"),
            *("version", "process", "python"),
        }, family.name
        assert not re.search(r"_(ms|milliseconds|minutes|kb|mb|percent)\b", family.name)
        if family.kind == "counter":
            assert family.name.endswith("_total")


def test_every_panel_asks_for_metrics_that_there_are() -> None:
    for panel in panels():
        for target in panel["targets"]:
            names = asked_for(target["expr"])
            assert names, panel["title"]
            assert names <= known_series(), panel["title"]


def test_every_metric_is_on_the_dashboard_or_in_an_alert() -> None:
    shown = set().union(*(asked_for(target["expr"]) for panel in panels() for target in panel["targets"]))
    shown |= set().union(*(asked_for(rule["expr"]) for rule in RULES))
    assert not [family.name for family in families() if not family.series & shown]


def test_panels_have_names_units_and_places_of_their_own() -> None:
    assert len({panel["id"] for panel in DASHBOARD["panels"]}) == len(DASHBOARD["panels"])
    taken: set[tuple[int, int]] = set()
    for panel in DASHBOARD["panels"]:
        place = panel["gridPos"]
        cells = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert not cells & taken, panel["title"]
        assert max(x for x, _ in cells) < 24
        taken |= cells
    for panel in panels():
        assert panel["title"]
        assert panel["description"].endswith(".")
        assert panel["fieldConfig"]["defaults"]["unit"]


def test_every_alert_asks_for_metrics_that_there_are_and_says_what_to_do() -> None:
    for rule in RULES:
        assert asked_for(rule["expr"]) <= known_series(), rule["alert"]
        assert rule["labels"]["severity"] in ("critical", "warning")
        assert rule["annotations"]["summary"]
        assert rule["annotations"]["description"].endswith(".")


def test_panels_that_alerts_name_exist() -> None:
    titles = " ".join(panel["title"] for panel in panels())
    for rule in RULES:
        for name in re.findall(r'"([A-Z][^"]+)"', rule["annotations"]["description"]):
            assert name in titles, rule["alert"]


@promtool
@pytest.mark.parametrize(
    "arguments",
    [
        ("check", "config", "prometheus.yml"),
        ("check", "rules", "--lint=all", "--lint-fatal", "alerts.yml"),
        ("test", "rules", "alerts.test.yml"),
    ],
)
def test_prometheus_accepts_its_files(arguments: tuple[str, ...]) -> None:
    done = subprocess.run(["promtool", *arguments], cwd=PROMETHEUS, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_every_alert_is_tested() -> None:
    told = yaml.safe_load((PROMETHEUS / "alerts.test.yml").read_text())["tests"]
    quiet = {one["alertname"] for one in told[0]["alert_rule_test"]}
    assert quiet == {rule["alert"] for rule in RULES}
    assert told[1]["promql_expr_test"][0]["exp_samples"][0]["value"] == len(RULES)


def test_grafana_is_given_the_dashboard_and_prometheus() -> None:
    folder = ROOT / "deploy" / "grafana" / "provisioning"
    (source,) = yaml.safe_load((folder / "datasources" / "prometheus.yaml").read_text())["datasources"]
    assert source["type"] == DASHBOARD["templating"]["list"][0]["query"] == "prometheus"
    (provider,) = yaml.safe_load((folder / "dashboards" / "mamba-search.yaml").read_text())["providers"]
    assert provider["type"] == "file"


def test_the_table_of_metrics_is_the_codes() -> None:
    _, _, rest = PAGE.partition("<!-- metrics: begin -->\n")
    table, _, _ = rest.partition("<!-- metrics: end -->")
    assert table == render_table(), f"put this between the marks of docs/observability.md:\n{render_table()}"


def render_table() -> str:
    rows = ["| metric | labels | of | |", "|---|---|---|---|"]
    for family in sorted(families(), key=lambda one: one.name):
        processes = "all" if len(family.processes) == 4 else ", ".join(family.processes)
        labels = ", ".join(family.labels)
        rows.append(f"| `{family.name}` | {labels} | {processes} | {family.text} |")
    return "\n".join(rows) + "\n"
