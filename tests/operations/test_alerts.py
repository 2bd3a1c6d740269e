"""The catalogue of alerts, the runbook and the cluster's rules name the same things."""

from __future__ import annotations

import re
from pathlib import Path

import yaml

from barcast.operations.monitoring import ALERTS

ROOT = Path(__file__).parents[2]
RUNBOOK = ROOT / "docs" / "guides" / "runbook.md"
RULES = ROOT / "k8s" / "components" / "monitoring" / "rules.yaml"


def test_every_alert_has_a_section_in_the_runbook_and_no_section_is_left_over() -> None:
    sections = re.findall(r"^## (\w+)$", RUNBOOK.read_text(), flags=re.MULTILINE)
    assert sorted(sections) == sorted(ALERTS)


def test_every_alert_of_the_catalogue_is_raised_somewhere() -> None:
    """MonitoringStopped is Prometheus' alone."""
    folder = ROOT / "src" / "barcast" / "operations" / "monitoring"
    code = "\n".join(p.read_text() for p in folder.glob("*.py") if p.name not in ("alerts.py", "respond.py"))
    assert [name for name in ALERTS if f'"{name}"' not in code] == ["MonitoringStopped"]


def test_the_clusters_rules_use_the_catalogues_names_and_severities() -> None:
    found = {}
    for document in yaml.safe_load_all(RULES.read_text()):
        for group in document["spec"]["groups"]:
            for rule in group["rules"]:
                if "alert" in rule:
                    found[rule["alert"]] = (rule["labels"]["severity"], rule["annotations"]["runbook_url"])
    assert sorted(found) == sorted(ALERTS)
    for name, (severity, url) in found.items():
        assert severity == ALERTS[name].severity
        assert url.endswith(f"runbook.md#{name.lower()}")
