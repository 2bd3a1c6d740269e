"""The compiled pipelines: what the cluster must know of each step is in them."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[2]
COMPILED = sorted((ROOT / "src" / "barcast" / "compiled").glob("*.yaml"))
# All others read or change what lies outside their inputs: the source, the feature store, the registry, a server.
CACHED = {
    "validate-bars",
    "build-features",
    "backfill-features",
    "validate-features",
    "build-dataset",
    "train-universal",
    "train-symbols",
}
TRAINS = {"train-universal", "train-symbols", "renew-models", "search-settings"}
READS_SERVED_MODELS = {"register", "gate", "promote", "canary", "monitor"}
WITHOUT_STATE = CACHED - {"build-dataset"} | {
    "analyze",
    "renew-models",
    "plan-search",
    "score",
    "record-outcome",
}

each_pipeline = pytest.mark.parametrize("path", COMPILED, ids=lambda p: p.stem)


def steps(path: Path) -> Iterator[tuple[str, dict[str, Any], dict[str, Any], dict[str, Any]]]:
    """(component's name, task, container, what only Kubernetes reads) of every step of every nested graph."""
    spec, platform = yaml.safe_load_all(path.read_text())
    executors = platform["platforms"]["kubernetes"]["deploymentSpec"]["executors"]
    graphs = [spec["root"]["dag"], *(c["dag"] for c in spec["components"].values() if "dag" in c)]
    for graph in graphs:
        for task in graph["tasks"].values():
            label = spec["components"][task["componentRef"]["name"]].get("executorLabel")
            if label:
                container = spec["deploymentSpec"]["executors"][label]["container"]
                yield name_of(label), task, container, executors.get(label, {})


def name_of(label: str) -> str:
    name = label.removeprefix("exec-")
    head, _, number = name.rpartition("-")
    return head if number.isdigit() else name


def test_there_are_six_pipelines() -> None:
    assert [p.stem for p in COMPILED] == [
        "backfill",
        "monitoring",
        "promotion",
        "retraining",
        "training",
        "tuning",
    ]


@each_pipeline
def test_steps_use_our_image_and_install_nothing(path: Path) -> None:
    for name, _, container, _ in steps(path):
        assert container["image"].startswith("barcast/steps:"), name
        assert "pip install" not in " ".join(container["command"]), name


@each_pipeline
def test_steps_are_cached_by_data_and_configuration_or_not_at_all(path: Path) -> None:
    for name, task, _, _ in steps(path):
        cached = task.get("cachingOptions", {}).get("enableCache", False)
        assert cached is (name in CACHED), name
        given = task["inputs"]["parameters"]
        if cached:
            assert {"config", "data"} <= set(given), name
            assert "run_id" not in given, f"{name}: a run's name would make every key a new one"


@each_pipeline
def test_every_step_has_resources_retries_and_a_timeout(path: Path) -> None:
    for name, task, container, kubernetes in steps(path):
        resources = container["resources"]
        wanted = {"resourceMemoryLimit", "resourceMemoryRequest", "resourceCpuLimit", "resourceCpuRequest"}
        assert wanted <= set(resources), name
        assert task["retryPolicy"]["maxRetryCount"] >= 1, name
        assert int(kubernetes["activeDeadlineSeconds"]) >= 3600, name


@each_pipeline
def test_steps_that_train_take_gpus_and_their_nodes_from_the_run(path: Path) -> None:
    for name, _, container, kubernetes in steps(path):
        accelerator = container["resources"].get("accelerator")
        assert (accelerator is not None) is (name in TRAINS), name
        if accelerator:
            assert accelerator["resourceType"] == "nvidia.com/gpu", name
            assert "gpus" in accelerator["resourceCount"], name
            assert "componentInputParameter" in str(kubernetes["nodeSelector"]), name
            assert kubernetes["tolerations"], name


@each_pipeline
def test_only_steps_that_need_lasting_state_mount_it(path: Path) -> None:
    for name, _, _, kubernetes in steps(path):
        claims = [mount["constant"] for mount in kubernetes.get("pvcMount", [])]
        wanted = [] if name in WITHOUT_STATE else ["state"]
        assert claims == wanted + (["models"] if name in READS_SERVED_MODELS else []), name


@each_pipeline
def test_every_input_that_a_step_names_is_handed_down_to_it(path: Path) -> None:
    spec = next(yaml.safe_load_all(path.read_text()))
    graphs = {"root": spec["root"]} | {n: c for n, c in spec["components"].items() if "dag" in c}
    for name, graph in graphs.items():
        known = set(graph.get("inputDefinitions", {}).get("parameters", {}))
        for task, body in graph["dag"]["tasks"].items():
            for value in body.get("inputs", {}).get("parameters", {}).values():
                wanted = value.get("componentInputParameter")
                inside = body.get("parameterIterator", {}).get("itemInput")
                assert wanted is None or wanted in known or wanted == inside, (name, task, wanted)


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
