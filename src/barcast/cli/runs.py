"""`barcast runs`: pipeline runs of this machine, or of a cluster with --host."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Annotated, Any

import typer

from barcast.cli._options import ConfigOption, JsonOption, current, print_json
from barcast.errors import ConfigError, did_you_mean

app = typer.Typer(help="Pipeline runs, here or on a cluster.", no_args_is_help=True)
Host = Annotated[
    str | None,
    typer.Option("--host", envvar="KFP_HOST", help="Kubeflow Pipelines API; without it: this machine."),
]
Token = Annotated[
    str | None, typer.Option("--token", envvar="KFP_TOKEN", help="Bearer token, if one is asked for.")
]
Namespace = Annotated[str, typer.Option("--namespace", help="Kubernetes namespace of the runs.")]
RunId = Annotated[str, typer.Argument(help="The run's id.")]


@app.command("list")
def list_runs(
    host: Host = None, namespace: Namespace = "kubeflow", token: Token = None, config: ConfigOption = None,
    json_output: JsonOption = False,
) -> None:  # fmt: skip
    """All runs, newest first."""
    if host:
        from barcast.adapters import kubeflow

        rows = kubeflow.list_runs(host=host, namespace=namespace, token=token)
    else:
        from barcast.operations.runs import latest

        rows = latest(current(config))
    if json_output:
        print_json(rows)
        return
    for row in rows:
        print(f"{row['run_id']}  {row['state'].lower():12} {row.get('name') or row.get('error', '')}")
    if not rows:
        print("No runs yet.")


@app.command()
def show(
    run_id: Annotated[str | None, typer.Argument(help="The run's id; the newest where not given.")] = None,
    config: ConfigOption = None,
    markdown: Annotated[bool, typer.Option("--markdown", help="Print a Markdown table.")] = False,
    json_output: JsonOption = False,
) -> None:
    """The steps of a run on this machine: how long each took (its process's start and imports counted in)."""
    folder = _folder(config, run_id)
    lines = [json.loads(line) for line in (folder / "steps.jsonl").read_text().splitlines()]
    notes: dict[str, str] = {}
    rows: list[dict[str, Any]] = []
    for line in lines:
        if line["event"] == "note":
            notes[line["step"]] = line["text"]
        elif line["event"] in ("done", "failed"):
            rows.append(
                {"step": line["step"], "seconds": line["seconds"], "note": notes.get(line["step"], "")}
            )
    if json_output:
        print_json({"run_id": folder.name, "steps": rows})
        return
    if markdown:
        print("| step | seconds | what |\n|---|---|---|")
    for row in rows:
        cells = (row["step"], f"{row['seconds']:.1f}", row["note"])
        print("| " + " | ".join(cells) + " |" if markdown else f"{cells[0]:18} {cells[1]:>7} s  {cells[2]}")


def _folder(config: Path | None, run_id: str | None) -> Path:
    runs = current(config).open_workspace().runs
    known = sorted(
        (p.name for p in runs.glob("*-*") if (p / "steps.jsonl").exists()), key=lambda n: n.split("-")[1:]
    )
    if not known:
        raise ConfigError(f"There are no runs in {runs}.", hint="Start one: barcast run.")
    chosen = run_id or known[-1]
    if chosen not in known:
        raise ConfigError(f"There is no run {chosen!r} in {runs}.", hint=did_you_mean(chosen, known))
    return runs / chosen


def _needed(host: str | None) -> str:
    if not host:
        raise ConfigError(
            "This needs a cluster.", hint="Give --host, or set KFP_HOST. Here, Ctrl-C ends a run."
        )
    return host


@app.command()
def watch(
    run_id: RunId, host: Host = None, namespace: Namespace = "kubeflow", token: Token = None,
    every_seconds: Annotated[float, typer.Option(help="Pause between two looks.")] = 5.0,
) -> None:  # fmt: skip
    """Follow a run on the cluster until it ends; leaves with 1 when it failed."""
    from barcast.adapters import kubeflow

    seen = ""
    while True:
        state = kubeflow.run_state(run_id, host=_needed(host), namespace=namespace, token=token)
        if state != seen:
            print(f"{run_id}  {state.lower()}", flush=True)
            seen = state
        if state in ("SUCCEEDED", "SKIPPED"):
            return
        if state in ("FAILED", "CANCELED"):
            raise typer.Exit(1)
        time.sleep(every_seconds)


@app.command()
def cancel(run_id: RunId, host: Host = None, namespace: Namespace = "kubeflow", token: Token = None) -> None:
    """End a run on the cluster."""
    from barcast.adapters import kubeflow

    kubeflow.cancel_run(run_id, host=_needed(host), namespace=namespace, token=token)
    print(f"{run_id}  cancel requested")


@app.command()
def rerun(run_id: RunId, host: Host = None, namespace: Namespace = "kubeflow", token: Token = None) -> None:
    """Start a run on the cluster again, from the step that failed."""
    from barcast.adapters import kubeflow

    kubeflow.retry_run(run_id, host=_needed(host), namespace=namespace, token=token)
    print(f"{run_id}  started again")
