"""Rules, dashboards and ServiceMonitors ask for metrics that exist, from ports that exist."""

from __future__ import annotations

import json
import re
from datetime import UTC, datetime
from typing import Any

import promql_parser
import pytest
import yaml
from cluster_files import ROOT, rendered

FOLDER = ROOT / "k8s" / "components" / "monitoring"


def rule_expressions() -> list[str]:
    groups = yaml.safe_load((FOLDER / "rules.yaml").read_text())["spec"]["groups"]
    return [rule["expr"] for group in groups for rule in group["rules"]]


def dashboard() -> dict[str, Any]:
    return dict(json.loads((FOLDER / "overview.json").read_text()))


def names(node: Any) -> set[str]:
    """Metric names of a parsed expression."""
    found: set[str] = set()
    if isinstance(node, promql_parser.VectorSelector):
        found.add(node.name)
    for part in ("expr", "lhs", "rhs", "vector_selector"):
        inner = getattr(node, part, None)
        if inner is not None:
            found |= names(inner)
    for inner in getattr(node, "args", None) or []:
        found |= names(inner)
    return found


@pytest.fixture(scope="module")
def exposed() -> set[str]:
    """Every series that gateway, monitor and model servers give, by their own code."""
    from prometheus_client import generate_latest

    from barcast.operations.monitoring.metrics import Page
    from barcast.operations.monitoring.types import Report
    from barcast.serving.metrics import Metrics

    page = Page()
    day = datetime(2026, 1, 1, tzinfo=UTC)
    page.report = Report(workspace="daily", at=day, as_of=day, models=(), whole=(), alerts=())
    texts = [Metrics().text().decode(), generate_latest(page.registry).decode()]
    found = {"up"}
    for text in texts:
        for name, kind in re.findall(r"^# TYPE (\S+) (\w+)$", text, flags=re.MULTILINE):
            found |= (
                {name, f"{name}_bucket", f"{name}_sum", f"{name}_count"} if kind == "histogram" else {name}
            )
    source = (ROOT / "src/barcast/serving/model_server/metrics.py").read_text()
    for path in re.findall(r'"(/tensorflow/serving/[\w/]+)"', source):
        name = path.replace("/", ":")
        found |= {name, f"{name}_bucket", f"{name}_sum", f"{name}_count"}
    return found


def test_every_expression_parses_and_its_metrics_exist(exposed: set[str]) -> None:
    panels = [target["expr"] for panel in dashboard()["panels"] for target in panel["targets"]]
    assert len(panels) > 5
    for text in [*rule_expressions(), *panels]:
        asked = names(promql_parser.parse(text))
        assert asked, text
        assert asked <= exposed, f"{text}: {asked - exposed}"


def test_every_alert_of_the_catalogue_has_a_rule() -> None:
    from barcast.operations.monitoring import ALERTS

    groups = yaml.safe_load((FOLDER / "rules.yaml").read_text())["spec"]["groups"]
    assert [rule["alert"] for group in groups for rule in group["rules"]] == list(ALERTS)


def test_the_dashboard_is_one_that_grafana_takes() -> None:
    panels = dashboard()["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    (variable,) = dashboard()["templating"]["list"]
    assert all(panel["datasource"]["uid"] == f"${{{variable['name']}}}" for panel in panels)
    spots = [panel["gridPos"] for panel in panels]
    assert all(spot["x"] + spot["w"] <= 24 for spot in spots)
    cells = [
        (x, y) for s in spots for x in range(s["x"], s["x"] + s["w"]) for y in range(s["y"], s["y"] + s["h"])
    ]
    assert len(cells) == len(set(cells))  # no panel lies on another


def test_service_monitors_meet_a_port_and_prometheus_is_let_in() -> None:
    manifests = rendered("production")
    services = {m["metadata"]["name"]: m for m in manifests if m["kind"] == "Service"}
    monitors = [m for m in manifests if m["kind"] == "ServiceMonitor"]
    assert {m["metadata"]["name"] for m in monitors} == {"model-server", "gateway", "monitor"}
    for monitor in monitors:
        wanted = monitor["spec"]["selector"]["matchLabels"]
        (service,) = [s for s in services.values() if wanted.items() <= s["metadata"]["labels"].items()]
        ports = {p["name"]: p["port"] for p in service["spec"]["ports"]}
        for endpoint in monitor["spec"]["endpoints"]:
            port = ports[endpoint["port"]]
            let_in = [
                rule
                for policy in manifests
                if policy["kind"] == "NetworkPolicy"
                and policy["spec"]["podSelector"].get("matchLabels") == service["spec"]["selector"]
                for rule in policy["spec"].get("ingress", [])
                if port in [p["port"] for p in rule["ports"]]
                and any("namespaceSelector" in peer for peer in rule["from"])
            ]
            assert let_in, monitor["metadata"]["name"]


def test_the_dashboard_reaches_grafana_as_a_labelled_config_map() -> None:
    (found,) = [m for m in rendered("production") if m["metadata"]["name"] == "barcast-dashboards"]
    assert found["metadata"]["labels"]["grafana_dashboard"] == "1"
    assert json.loads(found["data"]["overview.json"]) == dashboard()
