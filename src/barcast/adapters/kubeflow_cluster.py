"""Kubeflow Pipelines on a cluster: submit a compiled pipeline, see, end and repeat its runs, schedule it.

Beside `adapters/kubeflow.py` the only module that imports kfp.
"""

from __future__ import annotations

import contextlib
import io
from collections.abc import Iterator
from datetime import datetime
from typing import TYPE_CHECKING, Any

from barcast import clock
from barcast.adapters.kubeflow import compiled
from barcast.errors import ClusterError, ConfigError, RefusedError, did_you_mean, first_line

if TYPE_CHECKING:
    from barcast.config import Config

# Where a pod finds lasting state and the served models (claims mounted by `pipelines/resources.py`).
CLUSTER_ROOT = "/var/lib/barcast"
CLUSTER_MODELS = "/models"
# The one service account whose pods may write served models (k8s/components/kubeflow).
PROMOTION_ACCOUNT = "promotion"


def _client(host: str, namespace: str, token: str | None) -> Any:
    import httpx
    import kfp

    headers = {"Authorization": f"Bearer {token}"} if token else {}

    def health(version: str) -> httpx.Response:
        return httpx.get(f"{host.rstrip('/')}/apis/{version}/healthz", headers=headers, timeout=10)

    try:  # asked once here: kfp.Client itself repeats a refusal for half a minute
        answer = health("v2beta1")
        if answer.status_code == 404 and health("v1beta1").is_success:
            raise ClusterError(
                f"Kubeflow Pipelines at {host} speaks the API v1beta1 only; v2beta1 is needed.",
                hint="Upgrade it to version 2, or name the address of one that is.",
            )
        if answer.is_redirect or (answer.is_success and "json" not in answer.headers.get("content-type", "")):
            raise ClusterError(
                f"{host} answers with a page, not with the API of Kubeflow Pipelines.",
                hint="It may be the user interface or a login: forward to svc/ml-pipeline, or give --token.",
            )
        answer.raise_for_status()
        return kfp.Client(host=host, namespace=namespace, existing_token=token)
    except ClusterError:
        raise
    except Exception as error:
        raise _unreachable(host, error) from error


@contextlib.contextmanager
def _asking(host: str) -> Iterator[None]:
    """Keep kfp's own lines off standard output, and make its errors ours."""
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            yield
    except Exception as error:
        raise _unreachable(host, error) from error


def _unreachable(host: str, error: Exception) -> ClusterError:
    reason = first_line(getattr(error, "reason", "") or error)[:300]
    return ClusterError(
        f"Kubeflow Pipelines at {host} did not accept the request: {reason}",
        hint="Check the address (e.g. http://localhost:8080 behind a port-forward), the token and the namespace.",
    )


def for_cluster(config: Config) -> str:
    """The configuration as JSON for a pod: the same, but for where state lies."""
    storage = config.storage.model_copy(update={"root": CLUSTER_ROOT, "models": CLUSTER_MODELS})
    return config.model_copy(update={"storage": storage}).model_dump_json()


def account_of(pipeline: str, config: Config) -> str | None:
    """The service account of a run: that of promotions where it may change what is live, else the namespace's own."""
    trains = pipeline in ("training", "retraining") and config.approval == "automatic"
    return PROMOTION_ACCOUNT if trains or pipeline in ("promotion", "monitoring") else None


def submit(
    name: str,
    arguments: dict[str, Any],
    *,
    host: str,
    namespace: str = "kubeflow",
    token: str | None = None,
    experiment: str = "barcast",
    version: str = "",
    service_account: str | None = None,
) -> str:
    """Upload a pipeline version and start a run of it.

    Args:
        name: which compiled pipeline.
        arguments: its parameters.
        host: the API's address.
        namespace: where the run lives.
        token: a bearer token, if the API asks for one.
        experiment: the experiment that collects the runs.
        version: the uploaded version's name; unique on the server.
        service_account: what the run's pods act as; the server's default where not given.

    Returns:
        The run's id.

    Raises:
        ClusterError: nothing listens there, or it refuses.
    """
    package = compiled(name)
    client = _client(host, namespace, token)
    pipeline_name = f"barcast-{name}"
    with _asking(host):
        experiment_id = client.create_experiment(experiment, namespace=namespace).experiment_id
        pipeline_id = client.get_pipeline_id(pipeline_name)
        if pipeline_id is None:
            pipeline_id = client.upload_pipeline(str(package), pipeline_name=pipeline_name).pipeline_id
        uploaded = client.upload_pipeline_version(
            str(package), pipeline_version_name=version or arguments["run_id"], pipeline_id=pipeline_id
        )
        run = client.run_pipeline(
            experiment_id=experiment_id,
            job_name=arguments["run_id"],
            pipeline_id=pipeline_id,
            version_id=uploaded.pipeline_version_id,
            params=arguments,
            service_account=service_account,
        )
    return str(run.run_id)


def promote(
    config: Config,
    *,
    host: str,
    namespace: str = "kubeflow",
    token: str | None = None,
    **rollback: Any,
) -> str:
    """Start the promotion pipeline for what was approved, as the account that may write served models.

    Args:
        rollback: the pipeline's `rollback`, `to`, `by` and `reason`, to serve an earlier version again instead.

    Returns:
        The run's id.

    Raises:
        ClusterError: as for `submit`.
    """
    return submit(
        "promotion",
        {
            "config": for_cluster(config),
            "run_id": f"promotion-{clock.now():%Y%m%d-%H%M%S-%f}",
            **rollback,
        },
        host=host,
        namespace=namespace,
        token=token,
        service_account=PROMOTION_ACCOUNT,
    )


def list_runs(*, host: str, namespace: str = "kubeflow", token: str | None = None) -> list[dict[str, Any]]:
    """The newest runs: run_id, name, state, created.

    Raises:
        ClusterError: as for `submit`.
    """
    client = _client(host, namespace, token)
    with _asking(host):
        found = client.list_runs(page_size=100, sort_by="created_at desc", namespace=namespace).runs or []
    return [
        {
            "run_id": r.run_id,
            "name": r.display_name,
            "state": r.state or "UNKNOWN",
            "created": str(r.created_at),
        }
        for r in found
    ]


def run_state(run_id: str, *, host: str, namespace: str = "kubeflow", token: str | None = None) -> str:
    """The state of a run: PENDING, RUNNING, SUCCEEDED, FAILED, CANCELED, ..."""
    return str(_on_run("get_run", run_id, host, namespace, token).state)


def cancel_run(run_id: str, *, host: str, namespace: str = "kubeflow", token: str | None = None) -> None:
    """Ask the cluster to end a run."""
    _on_run("terminate_run", run_id, host, namespace, token)


def retry_run(run_id: str, *, host: str, namespace: str = "kubeflow", token: str | None = None) -> None:
    """Start a failed run again from where it failed."""
    client = _client(host, namespace, token)
    with _asking(host):  # kfp.Client has no word for it; the API has
        client._run_api.run_service_retry_run(run_id=run_id)


def _on_run(method: str, run_id: str, host: str, namespace: str, token: str | None) -> Any:
    client = _client(host, namespace, token)
    with _asking(host):
        return getattr(client, method)(run_id)


def create_recurring(
    name: str,
    pipeline: str,
    arguments: dict[str, Any],
    *,
    cron: str | None = None,
    every_seconds: int | None = None,
    until: datetime | None = None,
    catch_up: bool = True,
    host: str,
    namespace: str = "kubeflow",
    token: str | None = None,
    experiment: str = "barcast",
    service_account: str | None = None,
) -> dict[str, Any]:
    """Upload a pipeline version and start it again and again; a run never begins while the last one goes on.

    Args:
        name: the schedule's name, unique on the server.
        arguments: the pipeline's parameters but `run_id`, which the server makes from each run's scheduled time.
        cron: six fields, seconds first, in UTC; or `every_seconds`.
        until: the last moment it may fire (aware).

    Returns:
        The schedule as `list_recurring` shows it.

    Raises:
        ClusterError: as for `submit`.
        RefusedError: there is a schedule of this name.
    """
    package = compiled(pipeline)
    client = _client(host, namespace, token)
    if any(row["name"] == name for row in list_recurring(host=host, namespace=namespace, token=token)):
        raise RefusedError(
            f"There is a schedule {name!r} at {host} already.",
            hint="Delete it first, or choose another name.",
        )
    pipeline_name = f"barcast-{pipeline}"
    with _asking(host):
        experiment_id = client.create_experiment(experiment, namespace=namespace).experiment_id
        pipeline_id = client.get_pipeline_id(pipeline_name)
        if pipeline_id is None:
            pipeline_id = client.upload_pipeline(str(package), pipeline_name=pipeline_name).pipeline_id
        uploaded = client.upload_pipeline_version(
            str(package),
            pipeline_version_name=f"{name}-{clock.now():%Y%m%d-%H%M%S-%f}",
            pipeline_id=pipeline_id,
        )
        made = client.create_recurring_run(
            experiment_id=experiment_id,
            job_name=name,
            cron_expression=cron,
            interval_second=every_seconds,
            end_time=until.strftime("%Y-%m-%dT%H:%M:%SZ") if until is not None else None,
            max_concurrency=1,
            no_catchup=not catch_up,
            params={**arguments, "run_id": f"{pipeline}-[[ScheduledTime]]"},
            pipeline_id=pipeline_id,
            version_id=uploaded.pipeline_version_id,
            service_account=service_account,
        )
    return _recurring_row(made)


def list_recurring(
    *, host: str, namespace: str = "kubeflow", token: str | None = None
) -> list[dict[str, Any]]:
    """All schedules of the server: name, action, when, state (active, paused), catch_up, id.

    Raises:
        ClusterError: as for `submit`.
    """
    client = _client(host, namespace, token)
    found: list[Any] = []
    page = ""
    with _asking(host):
        while True:
            answer = client.list_recurring_runs(page_token=page, page_size=100, namespace=namespace)
            found += answer.recurring_runs or []
            page = answer.next_page_token or ""
            if not page:
                break
    return sorted((_recurring_row(run) for run in found), key=lambda row: str(row["name"]))


def change_recurring(
    action: str, name: str, *, host: str, namespace: str = "kubeflow", token: str | None = None
) -> None:
    """Pause, resume or delete the schedule `name`.

    Raises:
        ClusterError: as for `submit`.
        ConfigError: there is no schedule of this name.
    """
    rows = {row["name"]: row for row in list_recurring(host=host, namespace=namespace, token=token)}
    if name not in rows:
        raise ConfigError(f"There is no schedule {name!r} at {host}.", hint=did_you_mean(name, rows))
    client = _client(host, namespace, token)
    method = {
        "pause": "disable_recurring_run", "resume": "enable_recurring_run", "delete": "delete_recurring_run"
    }[action]  # fmt: skip
    with _asking(host):
        getattr(client, method)(rows[name]["id"])


def _recurring_row(run: Any) -> dict[str, Any]:
    trigger = run.trigger
    cron, periodic = trigger.cron_schedule, trigger.periodic_schedule
    parameters = (run.runtime_config.parameters if run.runtime_config is not None else None) or {}
    return {
        "name": run.display_name,
        "action": str(parameters.get("run_id", "")).rpartition("-")[0] or "other",
        "when": f"cron[{cron.cron}]" if cron is not None else f"every {periodic.interval_second} s",
        "state": "active" if run.status == "ENABLED" else "paused",
        "catch_up": not run.no_catchup,
        "id": run.recurring_run_id,
    }
