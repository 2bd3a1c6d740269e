"""`barcast runs`: pipeline runs of this machine, or of a cluster with --host."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Annotated, Any

import typer

from barcast.cli._options import (
    ConfigOption,
    HostOption,
    JsonOption,
    NamespaceOption,
    TokenOption,
    current,
    print_json,
)
from barcast.errors import ConfigError
from barcast.wording import state_of_run

if TYPE_CHECKING:
    from barcast.config import Config

app = typer.Typer(add_completion=False, help="Pipeline runs, here or on a cluster.", no_args_is_help=True)
RunId = Annotated[str, typer.Argument(help="The run's id.")]


@app.command("list")
def list_runs(
    host: HostOption = None, namespace: NamespaceOption = "kubeflow", token: TokenOption = None,
    config: ConfigOption = None, json_output: JsonOption = False,
) -> None:  # fmt: skip
    """All runs, newest first."""
    if host:
        from barcast.adapters import kubeflow_cluster

        rows = kubeflow_cluster.list_runs(host=host, namespace=namespace, token=token)
    else:
        from barcast.operations.runs import latest

        rows = latest(current(config))
    if json_output:
        print_json(rows)
        return
    for row in rows:
        print(
            f"{row['run_id']}  {state_of_run(row['state']):12} {row.get('name') or row.get('error', '')}".rstrip()
        )
    if not rows:
        print("No runs yet.")


@app.command()
def show(
    run_id: Annotated[str | None, typer.Argument(help="The run's id; the newest where not given.")] = None,
    config: ConfigOption = None,
    markdown: Annotated[bool, typer.Option("--markdown", help="Print a Markdown table.")] = False,
    json_output: JsonOption = False,
) -> None:
    """The steps of a run on this machine: how long each took (its process's start and imports counted in); why it
    ended, where it did not succeed."""
    from barcast.operations import runs

    settings = current(config)
    folder = settings.open_workspace().runs / runs.find(settings, run_id)
    notes: dict[str, str] = {}
    rows: list[dict[str, Any]] = []
    for line in runs.read_steps(folder):
        if line["event"] == "note":
            notes[line["step"]] = line["text"]
        elif line["event"] in ("done", "failed"):
            done = line["event"] == "done"
            note = notes.get(line["step"], "") if done else f"FAILED: {runs.first_line(line['text'])}"
            state = "succeeded" if done else "failed"
            rows.append({"step": line["step"], "state": state, "seconds": line["seconds"], "note": note})
    how = runs.standing(settings, folder.name)
    state, error = how["state"], how.get("error", "")
    if json_output:
        print_json({"run_id": folder.name, "state": state, "error": error, "steps": rows})
        return
    if markdown:
        print("| step | seconds | what |\n|---|---|---|")
    for row in rows:
        cells = (row["step"], f"{row['seconds']:.1f}", row["note"])
        print("| " + " | ".join(cells) + " |" if markdown else f"{cells[0]:18} {cells[1]:>7} s  {cells[2]}")
    if state != "SUCCEEDED" and not markdown:
        print(f"{folder.name}  {state_of_run(state)}{': ' if error else ''}{error}")


@app.command()
def watch(
    run_id: Annotated[str | None, typer.Argument(help="The run's id; here the newest where not given.")] = None,
    host: HostOption = None, namespace: NamespaceOption = "kubeflow", token: TokenOption = None,
    config: ConfigOption = None,
    every_seconds: Annotated[float, typer.Option(help="Pause between two looks at a cluster.")] = 5.0,
) -> None:  # fmt: skip
    """Follow a run until it ends; leaves with 1 when it did not succeed."""
    if host is None:
        _watch_here(current(config), run_id)
        return
    from barcast.adapters import kubeflow_cluster

    seen = ""
    while True:
        state = kubeflow_cluster.run_state(_named(run_id), host=host, namespace=namespace, token=token)
        if state != seen:
            print(f"{run_id}  {state_of_run(state)}", flush=True)
            seen = state
        if state in ("SUCCEEDED", "SKIPPED"):
            return
        if state in ("FAILED", "CANCELED"):
            raise typer.Exit(1)
        time.sleep(every_seconds)


def _watch_here(settings: Config, run_id: str | None) -> None:
    from barcast.cli.run import show_steps
    from barcast.operations import runs

    chosen = runs.find(settings, run_id)
    print(f"run {chosen}")
    show_steps(runs.watch(settings, chosen))
    state = runs.outcome(settings, chosen).get("state", "UNFINISHED")
    print(f"{chosen}  {state_of_run(state)}")
    if state != "SUCCEEDED":
        raise typer.Exit(1)


def _named(run_id: str | None) -> str:
    if run_id is None:
        raise ConfigError("Which run?", hint="Give its id: barcast runs list.")
    return run_id


@app.command()
def cancel(
    run_id: RunId, host: HostOption = None, namespace: NamespaceOption = "kubeflow", token: TokenOption = None,
    config: ConfigOption = None,
) -> None:  # fmt: skip
    """End a run."""
    if host:
        from barcast.adapters import kubeflow_cluster

        kubeflow_cluster.cancel_run(run_id, host=host, namespace=namespace, token=token)
        print(f"{run_id}  cancel requested")
        return
    from barcast.operations import runs

    runs.cancel(current(config), run_id)
    print(f"{run_id}  cancelled")


@app.command()
def rerun(
    run_id: RunId, host: HostOption = None, namespace: NamespaceOption = "kubeflow", token: TokenOption = None,
    config: ConfigOption = None,
) -> None:  # fmt: skip
    """Start a run again: on a cluster from the step that failed, here anew with the configuration it had."""
    if host:
        from barcast.adapters import kubeflow_cluster

        kubeflow_cluster.retry_run(run_id, host=host, namespace=namespace, token=token)
        print(f"{run_id}  started again")
        return
    from barcast.cli.run import run_watched, show_results
    from barcast.operations import runs

    pipeline, settings, arguments = runs.arguments_of(current(config), run_id)
    show_results(settings, run_watched(settings, pipeline, **arguments))
