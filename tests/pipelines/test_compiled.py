"""The compiled pipelines: committed ones fit their definitions, and say what the cluster must know."""

from __future__ import annotations

import ast
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[2]
COMPILED = sorted((ROOT / "src" / "barcast" / "compiled").glob("*.yaml"))
SIDE_EFFECTS = {"ingest", "materialize", "register", "gate", "promote", "canary", "record-outcome"}


def tasks(spec: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Every task of every (nested) graph by its component's name."""
    graphs = [spec["root"]["dag"], *(c["dag"] for c in spec["components"].values() if "dag" in c)]
    return {name: task for graph in graphs for name, task in graph["tasks"].items()}


@pytest.mark.parametrize("path", COMPILED, ids=lambda p: p.stem)
def test_steps_use_our_image_and_install_nothing(path: Path) -> None:
    spec = yaml.safe_load(path.read_text().split("\n---\n")[0])
    for name, executor in spec["deploymentSpec"]["executors"].items():
        container = executor["container"]
        assert container["image"].startswith("barcast/steps:"), name
        assert "pip install" not in " ".join(container["command"]), name


@pytest.mark.parametrize("path", COMPILED, ids=lambda p: p.stem)
def test_steps_with_side_effects_are_never_cached_and_the_others_are(path: Path) -> None:
    spec = yaml.safe_load(path.read_text().split("\n---\n")[0])
    for name, task in tasks(spec).items():
        if "dag" in spec["components"][task["componentRef"]["name"]]:
            continue
        cached = task.get("cachingOptions", {}).get("enableCache", False)
        assert cached is (name not in SIDE_EFFECTS), name


def test_training_steps_ask_for_resources() -> None:
    spec = yaml.safe_load((ROOT / "src/barcast/compiled/training.yaml").read_text().split("\n---\n")[0])
    for name in ("exec-train-universal", "exec-evaluate", "exec-ingest"):
        resources = spec["deploymentSpec"]["executors"][name]["container"]["resources"]
        assert {"resourceMemoryLimit", "resourceCpuRequest"} <= set(resources), name


@pytest.mark.parametrize(
    "path", sorted((ROOT / "components").glob("*/component.py")), ids=lambda p: p.parent.name
)
def test_components_import_only_kfp_and_typing_at_the_top(path: Path) -> None:
    allowed = {"kfp", "typing", "components"}
    for node in ast.parse(path.read_text()).body:
        if isinstance(node, ast.Import):
            assert {a.name.partition(".")[0] for a in node.names} <= allowed
        elif isinstance(node, ast.ImportFrom):
            assert (node.module or "").partition(".")[0] in allowed
