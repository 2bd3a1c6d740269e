"""What each kind of step asks of the cluster; one machine ignores it.

A step hands its results on as artifacts. What must outlast a run lies behind services (MLflow, PostgreSQL, Redis) and
on two claims that any node can mount: `state` (bars, ledger) and `models` (what is served). Only the steps that need
a claim mount it; all others see no disk but their own.
"""

from typing import Any

from kfp import kubernetes

from barcast.adapters.kubeflow_cluster import CLUSTER_MODELS, CLUSTER_ROOT

HOUR = 3600
NO_NODES: dict[str, str] = {}  # defaults of pipelines' parameters
NO_OPTIONS: list[str] = []
_SECRET = "barcast-credentials"  # as in k8s/base; libpq reads PGPASSWORD by itself
_PASSWORDS = ("PGPASSWORD", "REDIS_PASSWORD")


def light(task: Any, *, cached: bool = False) -> Any:
    """A step that moves data or decides: a core, 4 GiB, an hour; tried three times.

    Args:
        cached: its result depends on its data and configuration alone. All that read or change anything else (bars'
            source, feature store, registry, model server) run each time.
    """
    task.set_cpu_request("500m").set_cpu_limit("2").set_memory_request("2Gi").set_memory_limit("4Gi")
    return _patient(task, retries=2, hours=1, cached=cached)


def heavy(task: Any, *, cached: bool = False) -> Any:
    """A step that trains or scores: two cores, 8 GiB, twelve hours; tried twice."""
    task.set_cpu_request("2").set_cpu_limit("4").set_memory_request("4Gi").set_memory_limit("8Gi")
    return _patient(task, retries=1, hours=12, cached=cached)


def on_gpus(task: Any, gpus: Any, gpu_nodes: Any) -> Any:
    """Let a run give the step GPUs (0 by default) and name the nodes that have them."""
    task.set_accelerator_type("nvidia.com/gpu").set_accelerator_limit(gpus)
    task.register_pipeline_channels(
        [gpus]
    )  # kfp 2.17.0 forgets to hand the number into loops and exit handlers
    kubernetes.add_node_selector_json(task, gpu_nodes)
    kubernetes.add_toleration(task, key="nvidia.com/gpu", operator="Exists", effect="NoSchedule")
    return task


def stateful(task: Any, *, models: bool = False) -> Any:
    """Mount lasting state, and the served models where asked; hand over passwords and the addresses of the stores."""
    kubernetes.mount_pvc(task, pvc_name="state", mount_path=CLUSTER_ROOT)
    if models:
        kubernetes.mount_pvc(task, pvc_name="models", mount_path=CLUSTER_MODELS)
    kubernetes.use_secret_as_env(task, _SECRET, {name: name for name in _PASSWORDS})
    kubernetes.use_config_map_as_volume(task, config_map_name="barcast-config", mount_path="/etc/barcast")
    return task


def _patient(task: Any, *, retries: int, hours: int, cached: bool) -> Any:
    task.set_retry(num_retries=retries, backoff_duration="30s", backoff_factor=2, backoff_max_duration="10m")
    kubernetes.set_timeout(task, hours * HOUR)
    task.set_caching_options(cached)
    return task
