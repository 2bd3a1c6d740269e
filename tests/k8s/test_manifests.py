"""The manifests: valid by the schemas, and a test per rule that the cluster's people rely on."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

ROOT = Path(__file__).parents[2]
_spec = importlib.util.spec_from_file_location("k8s_render", ROOT / "k8s" / "render.py")
assert _spec
assert _spec.loader
render_module = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(render_module)
render = render_module.render

OVERLAYS = ("local", "production")
CUSTOM = {"ServiceMonitor", "PrometheusRule"}  # of the Prometheus Operator: no schema in Kubernetes itself


@pytest.fixture(scope="module", params=OVERLAYS)
def manifests(request: pytest.FixtureRequest) -> list[dict[str, Any]]:
    return list(render(ROOT / "k8s" / "overlays" / request.param))


def pods(manifests: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """Every pod template's spec by its owner's name, with its labels under `labels`."""
    found = {}
    for manifest in manifests:
        spec = manifest.get("spec", {})
        if manifest["kind"] == "CronJob":
            spec = spec["jobTemplate"]["spec"]
        if "template" in spec:
            name = f"{manifest['kind']}/{manifest['metadata']['name']}"
            found[name] = {**spec["template"]["spec"], "labels": spec["template"]["metadata"]["labels"]}
    return found


def test_every_object_fits_the_schema_strictly(manifests: list[dict[str, Any]]) -> None:
    version = kubernetes_validate.latest_version()
    for manifest in manifests:
        if manifest["kind"] not in CUSTOM:
            kubernetes_validate.validate(manifest, version, strict=True)


def test_names_are_unique_and_namespaced(manifests: list[dict[str, Any]]) -> None:
    keys = [(m["kind"], m["metadata"]["name"]) for m in manifests]
    assert len(keys) == len(set(keys))
    assert all(m["metadata"].get("namespace") == "barcast" for m in manifests if m["kind"] != "Namespace")


def test_pods_meet_the_restricted_standard(manifests: list[dict[str, Any]]) -> None:
    for name, pod in pods(manifests).items():
        assert pod["securityContext"]["runAsNonRoot"] is True, name
        assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}, name
        assert not {"hostNetwork", "hostPID", "hostIPC"} & set(pod), name
        for container in pod["containers"]:
            context = container["securityContext"]
            assert context["allowPrivilegeEscalation"] is False, name
            assert context["readOnlyRootFilesystem"] is True, name
            assert context["capabilities"] == {"drop": ["ALL"]}, name
            assert "privileged" not in context, name


def test_containers_have_requests_limits_and_pinned_images(manifests: list[dict[str, Any]]) -> None:
    for name, pod in pods(manifests).items():
        for container in pod["containers"]:
            for kind in ("requests", "limits"):
                assert set(container["resources"][kind]) >= {"cpu", "memory"}, name
            tag = container["image"].rpartition(":")[2]
            assert tag not in ("", "latest"), name


def test_servers_have_probes(manifests: list[dict[str, Any]]) -> None:
    for name, pod in pods(manifests).items():
        for container in pod["containers"]:
            if "ports" in container:
                assert {"readinessProbe", "livenessProbe"} <= set(container), name


def test_no_pod_gets_a_kubernetes_token_and_none_uses_the_default_account(
    manifests: list[dict[str, Any]],
) -> None:
    accounts = {m["metadata"]["name"] for m in manifests if m["kind"] == "ServiceAccount"}
    for name, pod in pods(manifests).items():
        assert pod["serviceAccountName"] in accounts, name
        assert pod["automountServiceAccountToken"] is False, name


def test_no_secret_is_written_down(manifests: list[dict[str, Any]]) -> None:
    assert not [m for m in manifests if m["kind"] == "Secret"]
    for name, pod in pods(manifests).items():
        for container in pod["containers"]:
            for variable in container.get("env", []):
                if "PASSWORD" in variable["name"] or "TOKEN" in variable["name"]:
                    assert "secretKeyRef" in variable["valueFrom"], name


def test_network_is_denied_by_default_and_every_pod_has_a_policy(manifests: list[dict[str, Any]]) -> None:
    policies = [m["spec"] for m in manifests if m["kind"] == "NetworkPolicy"]
    assert any(p["podSelector"] == {} and set(p["policyTypes"]) == {"Ingress", "Egress"} and
               "ingress" not in p and "egress" not in p for p in policies)  # fmt: skip
    named = [p["podSelector"].get("matchLabels", {}) for p in policies]
    for name, pod in pods(manifests).items():
        label = {"app.kubernetes.io/name": pod["labels"]["app.kubernetes.io/name"]}
        assert label in named, name


def test_policies_are_symmetric(manifests: list[dict[str, Any]]) -> None:
    """Who may send to a pod is also let in there, on the same port."""
    key = "app.kubernetes.io/name"
    policies = [m["spec"] for m in manifests if m["kind"] == "NetworkPolicy"]
    out, into = set(), set()
    for policy in policies:
        me = policy["podSelector"].get("matchLabels", {}).get(key)
        for rule in policy.get("egress", []):
            for peer in rule["to"]:
                if "podSelector" in peer and me:
                    out |= {(me, peer["podSelector"]["matchLabels"][key], p["port"]) for p in rule["ports"]}
        for rule in policy.get("ingress", []):
            for peer in rule["from"]:
                if "podSelector" in peer and me:
                    into |= {(peer["podSelector"]["matchLabels"][key], me, p["port"]) for p in rule["ports"]}
    present = {p["labels"][key] for p in pods(manifests).values()}
    assert {e for e in out if e[0] in present} == {e for e in into if e[0] in present}


def test_services_ports_and_selectors_meet_a_pod(manifests: list[dict[str, Any]]) -> None:
    templates = pods(manifests).values()
    for service in (m for m in manifests if m["kind"] == "Service"):
        matching = [p for p in templates if p["labels"].items() >= service["spec"]["selector"].items()]
        assert matching, service["metadata"]["name"]
        named = {port["name"] for p in matching for c in p["containers"] for port in c.get("ports", [])}
        assert {port["targetPort"] for port in service["spec"]["ports"]} <= named


def test_mounted_volumes_config_maps_and_claims_exist(manifests: list[dict[str, Any]]) -> None:
    maps = {m["metadata"]["name"] for m in manifests if m["kind"] == "ConfigMap"}
    claims = {m["metadata"]["name"] for m in manifests if m["kind"] == "PersistentVolumeClaim"}
    templates = {
        m["metadata"]["name"]: {c["metadata"]["name"] for c in m["spec"].get("volumeClaimTemplates", [])}
        for m in manifests
        if m["kind"] == "StatefulSet"
    }
    for name, pod in pods(manifests).items():
        volumes = {v["name"]: v for v in pod.get("volumes", [])}
        for volume in volumes.values():
            assert volume.get("configMap", {"name": None})["name"] in {None, *maps}, name
            assert volume.get("persistentVolumeClaim", {"claimName": None})["claimName"] in {None, *claims}, (
                name
            )
        own = templates.get(name.partition("/")[2], set())
        for container in pod["containers"]:
            assert {m["name"] for m in container.get("volumeMounts", [])} <= set(volumes) | own, name


def test_only_promotion_and_restore_may_write_served_models(manifests: list[dict[str, Any]]) -> None:
    for name, pod in pods(manifests).items():
        for container in pod["containers"]:
            for mount in container.get("volumeMounts", []):
                if mount["name"] == "models" and not mount.get("readOnly"):
                    assert name == "Job/restore"


def test_model_server_scales_spreads_and_survives_a_drain(manifests: list[dict[str, Any]]) -> None:
    kinds = {m["kind"]: m for m in manifests if m["metadata"]["name"] == "model-server"}
    assert {"Deployment", "Service", "HorizontalPodAutoscaler", "PodDisruptionBudget"} <= set(kinds)
    assert kinds["Service"]["spec"]["clusterIP"] == "None"
    pod = kinds["Deployment"]["spec"]["template"]["spec"]
    assert pod["topologySpreadConstraints"]
    minimum = kinds["HorizontalPodAutoscaler"]["spec"]["minReplicas"]
    assert kinds["PodDisruptionBudget"]["spec"]["minAvailable"] < minimum or minimum == 1


def test_base_configuration_is_one_that_barcast_reads() -> None:
    from barcast.config import load

    config = load(ROOT / "k8s" / "base" / "barcast.yaml")
    assert config.approval == "manual"
    assert config.registry.served_base_path == f"/models/{config.workspace}"


def test_alerts_have_a_runbook() -> None:
    rules = yaml.safe_load((ROOT / "k8s/components/monitoring/rules.yaml").read_text())
    runbook = (ROOT / "docs/guides/runbook.md").read_text().lower()
    for group in rules["spec"]["groups"]:
        for rule in group["rules"]:
            assert f"## {rule['alert'].lower()}" in runbook, rule["alert"]


def test_render_refuses_what_it_does_not_know(tmp_path: Path) -> None:
    (tmp_path / "kustomization.yaml").write_text("kind: Kustomization\nnamePrefix: x-\n")
    with pytest.raises(ValueError, match="namePrefix"):
        render(tmp_path)
