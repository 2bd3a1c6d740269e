"""`barcast submit`: a compiled pipeline, the same configuration, a cluster."""

from __future__ import annotations

from typing import Annotated

import typer

from barcast.cli._options import (
    ConfigOption,
    JsonOption,
    NamespaceOption,
    SetOption,
    TokenOption,
    current,
    print_json,
)

WhereOption = Annotated[
    str, typer.Option("--host", envvar="KFP_HOST", help="Kubeflow Pipelines API, e.g. http://localhost:8080.")
]


def submit(
    host: WhereOption,
    pipeline: Annotated[
        str,
        typer.Argument(help="training, retraining, tuning, backfill, monitoring or promotion."),
    ] = "training",
    settings_of_run: SetOption = None,
    namespace: NamespaceOption = "kubeflow",
    token: TokenOption = None,
    experiment: Annotated[str, typer.Option(help="Experiment that collects the runs.")] = "barcast",
    service_account: Annotated[
        str | None,
        typer.Option(help="Of the run's pods; `promotion` where it may put models live, without this."),
    ] = None,
    config: ConfigOption = None,
    json_output: JsonOption = False,
) -> None:
    """Upload a pipeline version and start a run of it on Kubeflow Pipelines."""
    from barcast.adapters import kubeflow, kubeflow_cluster
    from barcast.operations.runs import new_run_id

    settings = current(config)
    arguments = kubeflow.read_arguments(pipeline, settings_of_run or [])
    run_id = new_run_id(pipeline)
    cluster_run = kubeflow_cluster.submit(
        pipeline,
        {"config": kubeflow_cluster.for_cluster(settings), "run_id": run_id, **arguments},
        service_account=service_account or kubeflow_cluster.account_of(pipeline, settings),
        host=host,
        namespace=namespace,
        token=token,
        experiment=experiment,
    )
    if json_output:
        print_json({"run_id": cluster_run, "name": run_id, "host": host, "config_hash": settings.hash})
    else:
        print(
            f"Submitted {run_id} as run {cluster_run}.\nWatch it at {host.rstrip('/')}/#/runs/details/{cluster_run}"
        )
