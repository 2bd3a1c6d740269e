"""The manifests as rendered, and questions that the tests of `k8s/` ask of them."""

from __future__ import annotations

import importlib.util
from functools import cache
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
OVERLAYS = ("local", "production", "search", "training")
NAME = "app.kubernetes.io/name"
Manifest = dict[str, Any]

_spec = importlib.util.spec_from_file_location("k8s_render", ROOT / "k8s" / "render.py")
assert _spec
assert _spec.loader
render_module = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(render_module)


@cache
def rendered(overlay: str) -> tuple[Manifest, ...]:
    """All objects of an overlay."""
    return tuple(render_module.render(ROOT / "k8s" / "overlays" / overlay))


def pods(manifests: tuple[Manifest, ...]) -> dict[str, Manifest]:
    """Every pod template's spec by "Kind/name" of its owner, with the template's labels under `labels`."""
    found = {}
    for manifest in manifests:
        spec = manifest.get("spec", {})
        if manifest["kind"] == "CronJob":
            spec = spec["jobTemplate"]["spec"]
        if "template" in spec:
            name = f"{manifest['kind']}/{manifest['metadata']['name']}"
            found[name] = {**spec["template"]["spec"], "labels": spec["template"]["metadata"]["labels"]}
    return found


def containers(pod: Manifest) -> list[Manifest]:
    """Containers and init containers of a pod."""
    return [*pod.get("initContainers", []), *pod["containers"]]


def selects(selector: Manifest, labels: dict[str, str]) -> bool:
    """Whether a Kubernetes label selector chooses these labels."""
    if not selector.get("matchLabels", {}).items() <= labels.items():
        return False
    for rule in selector.get("matchExpressions", []):
        value, operator = labels.get(rule["key"]), rule["operator"]
        if operator == "Exists" and value is None:
            return False
        if operator == "In" and value not in rule["values"]:
            return False
        if operator not in ("Exists", "In"):
            raise ValueError(f"the tests don't know the operator {operator}")
    return True


def _peers(
    peers: list[Manifest] | None, port: int, ports: list[Manifest] | None, labels: dict[str, str]
) -> bool:
    if ports is not None and port not in [p["port"] for p in ports]:
        return False
    if peers is None:
        return True
    return any("podSelector" in peer and selects(peer["podSelector"], labels) for peer in peers)


def may_talk(
    manifests: tuple[Manifest, ...], source: dict[str, str], target: dict[str, str], port: int
) -> bool:
    """Whether the network policies let a pod with labels `source` open `port` of a pod with labels `target`.

    Policies add up: a direction is open if one policy that chooses the pod opens it, and if none chooses it.
    """
    policies = [m["spec"] for m in manifests if m["kind"] == "NetworkPolicy"]
    egress = [p for p in policies if "Egress" in p["policyTypes"] and selects(p["podSelector"], source)]
    ingress = [p for p in policies if "Ingress" in p["policyTypes"] and selects(p["podSelector"], target)]
    leaves = not egress or any(
        _peers(r.get("to"), port, r.get("ports"), target) for p in egress for r in p.get("egress", [])
    )
    enters = not ingress or any(
        _peers(r.get("from"), port, r.get("ports"), source) for p in ingress for r in p.get("ingress", [])
    )
    return leaves and enters
