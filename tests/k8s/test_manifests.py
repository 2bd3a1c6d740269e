"""The manifests: valid by the schemas, and a test per rule that the cluster's people rely on."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import cluster_files as files
import kubernetes_validate
import pytest
import yaml
from cluster_files import NAME, ROOT, Manifest, containers, pods, rendered

CUSTOM = {"ServiceMonitor", "PrometheusRule"}  # of the Prometheus Operator: no schema in Kubernetes itself
# Oldest and newest Kubernetes that the manifests are meant for; both must know every field.
VERSIONS = ("1.31.0", kubernetes_validate.latest_version())
NEEDS_TOKEN: set[str] = set()  # pods that talk to the Kubernetes API: none of ours


@pytest.fixture(scope="module", params=files.OVERLAYS)
def manifests(request: pytest.FixtureRequest) -> tuple[Manifest, ...]:
    return rendered(request.param)


@pytest.fixture(scope="module", params=("local", "production"))
def whole(request: pytest.FixtureRequest) -> tuple[Manifest, ...]:
    """The overlays that stand alone."""
    return rendered(request.param)


@pytest.mark.parametrize("version", VERSIONS)
def test_every_object_fits_the_schema_strictly(manifests: tuple[Manifest, ...], version: str) -> None:
    for manifest in manifests:
        if manifest["kind"] not in CUSTOM:
            kubernetes_validate.validate(manifest, version, strict=True)


def test_names_are_unique_namespaced_and_legal(manifests: tuple[Manifest, ...]) -> None:
    keys = [(m["kind"], m["metadata"]["name"]) for m in manifests]
    assert len(keys) == len(set(keys))
    for manifest in manifests:
        meta = manifest["metadata"]
        assert re.fullmatch(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?", meta["name"]), meta["name"]
        if manifest["kind"] != "Namespace":
            assert meta.get("namespace") == "barcast"
        assert meta["labels"]["app.kubernetes.io/part-of"] == "barcast"


def quantity(value: Any) -> float:
    number, unit = re.fullmatch(r"([0-9.]+)([a-zA-Z]*)", str(value)).groups()  # type: ignore[union-attr]
    return float(number) * {"": 1, "m": 1e-3, "Ki": 2**10, "Mi": 2**20, "Gi": 2**30}[unit]


def test_what_the_api_server_checks_beyond_the_schema(manifests: tuple[Manifest, ...]) -> None:
    """Rules of the server's own validation (pkg/apis/*/validation) that no JSON schema says."""
    for manifest in manifests:
        name, spec = f"{manifest['kind']}/{manifest['metadata']['name']}", manifest.get("spec", {})
        if manifest["kind"] in ("Deployment", "StatefulSet"):
            labels = spec["template"]["metadata"]["labels"]
            assert files.selects(spec["selector"], labels), name
        if manifest["kind"] == "HorizontalPodAutoscaler":
            assert 1 <= spec["minReplicas"] <= spec["maxReplicas"], name
        if manifest["kind"] == "CronJob":
            assert len(spec["schedule"].split()) == 5, name
            assert "/" in spec["timeZone"], name
        if manifest["kind"] == "Service":
            assert all(re.fullmatch(r"[a-z0-9-]{1,15}", p["name"]) for p in spec["ports"]), name
    for name, pod in pods(manifests).items():
        kind = name.partition("/")[0]
        policy = pod.get("restartPolicy", "Always")
        assert (
            policy == "Always" if kind in ("Deployment", "StatefulSet") else policy in ("Never", "OnFailure")
        )
        names = [c["name"] for c in containers(pod)]
        assert len(names) == len(set(names)), name
        for container in containers(pod):
            paths = [m["mountPath"] for m in container.get("volumeMounts", [])]
            assert len(paths) == len(set(paths)), name
            ports = [p["name"] for p in container.get("ports", [])]
            assert all(len(p) <= 15 for p in ports), name
            assert len(ports) == len(set(ports)), name
            for resource, least in container["resources"]["requests"].items():
                assert quantity(least) <= quantity(container["resources"]["limits"][resource]), name
            for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
                ask = container.get(probe, {})
                kinds = {"httpGet", "tcpSocket", "exec", "grpc"} & set(ask)
                assert len(kinds) == (1 if ask else 0), name
                for how in (ask.get("httpGet"), ask.get("tcpSocket")):
                    assert how is None or how["port"] in ports, name
        for constraint in pod.get("topologySpreadConstraints", []):
            assert files.selects(constraint["labelSelector"], pod["labels"]), name


def test_pods_meet_the_restricted_standard(manifests: tuple[Manifest, ...]) -> None:
    for name, pod in pods(manifests).items():
        assert pod["securityContext"]["runAsNonRoot"] is True, name
        assert pod["securityContext"]["runAsUser"] > 0, name
        assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}, name
        assert not {"hostNetwork", "hostPID", "hostIPC"} & set(pod), name
        allowed = {"configMap", "emptyDir", "persistentVolumeClaim", "secret", "projected"}
        assert all(set(v) - {"name"} <= allowed for v in pod.get("volumes", [])), name
        for container in containers(pod):
            context = container["securityContext"]
            assert context["allowPrivilegeEscalation"] is False, name
            assert context["readOnlyRootFilesystem"] is True, name
            assert context["capabilities"] == {"drop": ["ALL"]}, name
            assert "privileged" not in context, name
            assert not any("hostPort" in p for p in container.get("ports", [])), name


def test_namespace_enforces_the_restricted_standard(whole: tuple[Manifest, ...]) -> None:
    (namespace,) = [m for m in whole if m["kind"] == "Namespace"]
    assert namespace["metadata"]["labels"]["pod-security.kubernetes.io/enforce"] == "restricted"


def test_containers_have_requests_limits_and_pinned_images(manifests: tuple[Manifest, ...]) -> None:
    for name, pod in pods(manifests).items():
        for container in containers(pod):
            for kind in ("requests", "limits"):
                assert set(container["resources"][kind]) >= {"cpu", "memory"}, name
            tag = container["image"].rpartition(":")[2]
            assert tag not in ("", "latest"), name


def test_servers_have_probes(manifests: tuple[Manifest, ...]) -> None:
    for name, pod in pods(manifests).items():
        for container in pod["containers"]:
            if "ports" in container and not name.startswith("Job/"):
                assert {"readinessProbe", "livenessProbe"} <= set(container), name


def test_the_gateway_is_not_restarted_for_what_others_lack() -> None:
    """/healthz fails while there are no bars: a reason to send no one there, none to start it anew."""
    (container,) = pods(rendered("production"))["Deployment/gateway"]["containers"]
    assert container["readinessProbe"]["httpGet"]["path"] == "/healthz"
    assert "tcpSocket" in container["livenessProbe"]
    assert "tcpSocket" in container["startupProbe"]


def test_no_pod_gets_a_kubernetes_token_or_the_services_addresses(manifests: tuple[Manifest, ...]) -> None:
    """Kubernetes would otherwise set MLFLOW_PORT=tcp://... and the like, which some programs read as settings."""
    for name, pod in pods(manifests).items():
        assert pod["automountServiceAccountToken"] is (name in NEEDS_TOKEN), name
        assert pod["enableServiceLinks"] is False, name


def test_no_pod_uses_the_default_account(whole: tuple[Manifest, ...]) -> None:
    accounts = {m["metadata"]["name"] for m in whole if m["kind"] == "ServiceAccount"}
    for name, pod in pods(whole).items():
        assert pod["serviceAccountName"] in accounts, name


def test_roles_grant_no_wildcard_and_nothing_cluster_wide(whole: tuple[Manifest, ...]) -> None:
    assert not [m for m in whole if m["kind"].startswith("ClusterRole")]
    for role in (m for m in whole if m["kind"] == "Role"):
        for rule in role["rules"]:
            assert "*" not in [*rule["apiGroups"], *rule["resources"], *rule["verbs"]]
            assert not {"create", "update", "delete", "escalate", "bind"} & set(rule["verbs"]) or rule[
                "resources"
            ] == ["workflowtaskresults"]
            if set(rule["resources"]) & {"secrets", "configmaps"}:
                assert rule["resourceNames"]


def test_no_secret_is_written_down(manifests: tuple[Manifest, ...]) -> None:
    assert files.render_module.secrets(list(manifests)) == []


@pytest.mark.parametrize(
    "planted",
    [
        "env: [{name: PGPASSWORD, value: hunter2}]",
        "data: {api_token: abc}",
        "args: ['--backend=postgresql://barcast:hunter2@postgres/mlflow']",
        'data: {feature_store.yaml: "offline_store:\\n  password: hunter2\\n"}',
        'data: {key.pem: "-----BEGIN RSA PRIVATE KEY-----"}',
        "kind: Secret",
    ],
)
def test_a_manifest_with_a_secret_in_it_is_refused_by_name(tmp_path: Path, planted: str) -> None:
    kind = "" if planted.startswith("kind") else "kind: ConfigMap\n"
    (tmp_path / "a.yaml").write_text(f"{kind}{planted}\nmetadata: {{name: planted}}\n")
    (tmp_path / "kustomization.yaml").write_text("resources: [a.yaml]\n")
    done = subprocess.run(
        [sys.executable, str(ROOT / "k8s" / "render.py"), str(tmp_path)],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 1
    assert done.stdout == ""
    assert "/planted" in done.stderr
    assert "secretKeyRef" in done.stderr
    assert "hunter2" not in done.stderr


def test_every_secret_named_is_explained_in_the_guide(whole: tuple[Manifest, ...]) -> None:
    guide = (ROOT / "docs" / "guides" / "kubernetes.md").read_text()
    named: set[str] = set()
    for pod in pods(whole).values():
        for container in containers(pod):
            named |= {e["secretRef"]["name"] for e in container.get("envFrom", []) if "secretRef" in e}
            named |= {
                e["valueFrom"]["secretKeyRef"]["name"]
                for e in container.get("env", [])
                if "secretKeyRef" in e.get("valueFrom", {})
            }
    assert named
    for name in named:
        assert f"secret generic {name}" in guide, name


# Who may open which port of whom; everything else inside the namespace is closed.
STORES = [("redis", 6379), ("postgres", 5432), ("mlflow", 5000), ("model-server", 8500)]
READERS = ("gateway", "console", "worker", "retraining", "monitor")
CONNECTIONS = {(reader, *store) for reader in READERS for store in STORES} | {
    ("console", "gateway", 8600),
    ("monitor", "gateway", 8600),
    ("mlflow", "postgres", 5432),
}
PRODUCTION = {("step", *store) for store in STORES} | {
    ("backup", "postgres", 5432),
    ("feature-server", "redis", 6379),
    ("feature-server", "postgres", 5432),
}


@pytest.mark.parametrize("overlay", ["local", "production"])
def test_network_is_closed_but_for_this_table(overlay: str) -> None:
    manifests = rendered(overlay)
    who = {pod["labels"][NAME]: pod["labels"] for pod in pods(manifests).values()}
    if overlay == "production":
        who["step"] = {"workflows.argoproj.io/workflow": "run", "pipelines.kubeflow.org/v2_component": "true"}
    who["stranger"] = {NAME: "stranger"}
    ports = {8500, 8501, 8600, 8601, 6379, 5432, 5000, 6566, 8602}
    is_open = {
        (source, target, port)
        for source, labels in who.items()
        for target, others in who.items()
        if source != target
        for port in ports
        if files.may_talk(manifests, labels, others, port)
    }
    assert is_open == (CONNECTIONS | PRODUCTION if overlay == "production" else CONNECTIONS)


def test_training_workers_find_one_another() -> None:
    import json

    from barcast.training import multi_worker

    manifests = rendered("training")
    (pod,) = pods(manifests).values()
    job, service = (next(m for m in manifests if m["kind"] == kind) for kind in ("Job", "Service"))
    assert job["spec"]["completionMode"] == "Indexed"
    assert pod["subdomain"] == service["metadata"]["name"]
    assert service["spec"]["clusterIP"] == "None"
    assert service["spec"]["publishNotReadyAddresses"]  # names must resolve before the workers are ready
    export = pod["containers"][0]["args"][0].partition(" && exec")[0]
    for index in range(job["spec"]["completions"]):
        script = f'{export} && printf %s "$TF_CONFIG"'
        done = subprocess.run(
            ["sh", "-c", script],
            env={"JOB_COMPLETION_INDEX": str(index)},
            capture_output=True,
            text=True,
            timeout=20,
        )
        assert multi_worker.place({"TF_CONFIG": done.stdout}) == (index, job["spec"]["completions"])
        hosts = json.loads(done.stdout)["cluster"]["worker"]
        assert hosts[index] == f"{job['metadata']['name']}-{index}.{pod['subdomain']}:2222"
    assert files.may_talk(manifests, pod["labels"], pod["labels"], 2222)


def test_services_ports_and_selectors_meet_a_pod(whole: tuple[Manifest, ...]) -> None:
    templates = pods(whole).values()
    for service in (m for m in whole if m["kind"] == "Service"):
        matching = [p for p in templates if p["labels"].items() >= service["spec"]["selector"].items()]
        assert matching, service["metadata"]["name"]
        named = {port["name"] for p in matching for c in p["containers"] for port in c.get("ports", [])}
        assert {port["targetPort"] for port in service["spec"]["ports"]} <= named


def test_mounted_volumes_config_maps_and_claims_exist(whole: tuple[Manifest, ...]) -> None:
    maps = {m["metadata"]["name"] for m in whole if m["kind"] == "ConfigMap"}
    claims = {m["metadata"]["name"] for m in whole if m["kind"] == "PersistentVolumeClaim"}
    templates = {
        m["metadata"]["name"]: {c["metadata"]["name"] for c in m["spec"].get("volumeClaimTemplates", [])}
        for m in whole
        if m["kind"] == "StatefulSet"
    }
    for name, pod in pods(whole).items():
        volumes = {v["name"]: v for v in pod.get("volumes", [])}
        for volume in volumes.values():
            assert volume.get("configMap", {"name": None})["name"] in {None, *maps}, name
            claim = volume.get("persistentVolumeClaim", {"claimName": None})["claimName"]
            assert claim in {None, *claims}, name
        own = templates.get(name.partition("/")[2], set())
        for container in containers(pod):
            mounted = {m["name"] for m in container.get("volumeMounts", [])}
            assert mounted <= set(volumes) | own, name
            from_maps = {
                e["configMapRef"]["name"] for e in container.get("envFrom", []) if "configMapRef" in e
            }
            assert from_maps <= maps, name
        assert set(volumes) <= {m["name"] for c in containers(pod) for m in c.get("volumeMounts", [])}, name


def test_only_restore_may_write_served_models(whole: tuple[Manifest, ...]) -> None:
    """Of the pods here; the promotion pipeline's are Kubeflow's."""
    for name, pod in pods(whole).items():
        for container in containers(pod):
            for mount in container.get("volumeMounts", []):
                if mount["name"] == "models" and not mount.get("readOnly"):
                    assert name == "Job/restore"


def test_models_lie_where_barcast_the_pipelines_and_the_model_server_look(
    whole: tuple[Manifest, ...],
) -> None:
    from barcast.adapters.kubeflow_cluster import CLUSTER_MODELS, CLUSTER_ROOT
    from barcast.config import load

    config = load(ROOT / "k8s" / "base" / "barcast.yaml")
    assert (config.storage.root, config.storage.models) == (CLUSTER_ROOT, CLUSTER_MODELS)
    assert str(config.open_workspace().models) == config.registry.served_base_path
    for pod in pods(whole).values():
        for container in containers(pod):
            for mount in container.get("volumeMounts", []):
                if mount["name"] in ("models", "state"):
                    assert mount["mountPath"] == (
                        CLUSTER_MODELS if mount["name"] == "models" else CLUSTER_ROOT
                    )
    (server,) = pods(whole)["Deployment/model-server"]["containers"]
    assert f"--model_config_file={config.registry.served_base_path}/models.config" in server["args"]


def test_runs_that_promote_have_their_account() -> None:
    from barcast.adapters.kubeflow_cluster import PROMOTION_ACCOUNT

    accounts = {m["metadata"]["name"] for m in rendered("production") if m["kind"] == "ServiceAccount"}
    assert PROMOTION_ACCOUNT in accounts


def test_pipeline_steps_name_what_the_manifests_have(whole: tuple[Manifest, ...]) -> None:
    """Claims, config maps and secrets of the compiled pipelines; the accounts that runs use."""
    claims = {m["metadata"]["name"] for m in whole if m["kind"] == "PersistentVolumeClaim"}
    maps = {m["metadata"]["name"] for m in whole if m["kind"] == "ConfigMap"}
    for path in (ROOT / "src" / "barcast" / "compiled").glob("*.yaml"):
        for document in yaml.safe_load_all(path.read_text()):
            executors = (
                document.get("platforms", {})
                .get("kubernetes", {})
                .get("deploymentSpec", {})
                .get("executors", {})
            )
            for executor in executors.values():
                named = {
                    m["pvcNameParameter"]["runtimeValue"]["constant"] for m in executor.get("pvcMount", [])
                }
                assert named <= claims
                assert {m["configMapNameParameter"]["runtimeValue"]["constant"] for m in executor.get(
                    "configMapAsVolume", [])} <= maps  # fmt: skip
                for secret in executor.get("secretAsEnv", []):
                    assert secret["secretNameParameter"]["runtimeValue"]["constant"] == "barcast-credentials"


def test_model_server_batches_warms_up_scales_spreads_and_survives_a_drain(
    whole: tuple[Manifest, ...],
) -> None:
    from barcast.serving.model_server.batching_parameters import read_parameters
    from barcast.serving.model_server.messages import read_text

    kinds = {m["kind"]: m for m in whole if m["metadata"]["name"] == "model-server"}
    assert kinds["Service"]["spec"]["clusterIP"] == "None"  # headless: gRPC clients see every pod
    pod = kinds["Deployment"]["spec"]["template"]["spec"]
    assert pod["topologySpreadConstraints"]
    assert "replicas" not in kinds["Deployment"]["spec"]  # the autoscaler's number is not reset by an apply
    minimum = kinds["HorizontalPodAutoscaler"]["spec"]["minReplicas"]
    assert kinds["PodDisruptionBudget"]["spec"]["minAvailable"] < minimum or minimum == 1
    flags = dict(a.removeprefix("--").split("=", 1) for a in pod["containers"][0]["args"])
    assert flags["enable_batching"] == flags["enable_model_warmup"] == "true"
    assert int(flags["model_config_file_poll_wait_seconds"]) > 0
    assert "grpc.max_connection_age_ms" in flags["grpc_channel_arguments"]
    batching = read_parameters(ROOT / "k8s" / "base" / "batching.config")
    assert batching.allowed_batch_sizes[-1] == batching.max_batch_size
    monitoring = read_text("MonitoringConfig", ROOT / "k8s" / "base" / "monitoring.config")
    assert monitoring.prometheus_config.enable


def test_base_configuration_is_one_that_barcast_reads() -> None:
    from barcast.config import load

    config = load(ROOT / "k8s" / "base" / "barcast.yaml")
    assert config.approval == "manual"
    assert config.serving.endpoint.startswith("dns:///")
    assert config.operations.queue.database.startswith("postgresql+psycopg://")
    assert config.operations.schedules.database.startswith("postgresql+psycopg://")
