"""Options that many commands share: which configuration, which folder, JSON output."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Annotated, Any

import typer

from barcast.config import Config, base_folder, load

ConfigOption = Annotated[
    Path | None,
    typer.Option(
        "--config",
        "-c",
        help="Configuration file; without it BARCAST_CONFIG, else the workspace last run here, else the sample.",
    ),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")]
SetOption = Annotated[
    list[str] | None,
    typer.Option("--set", help="A parameter of the pipeline, NAME=VALUE; may be given several times."),
]
# Kubeflow Pipelines
HostOption = Annotated[
    str | None,
    typer.Option("--host", envvar="KFP_HOST", help="Kubeflow Pipelines API; without it: this machine."),
]
NamespaceOption = Annotated[str, typer.Option("--namespace", help="Kubernetes namespace of the runs.")]
TokenOption = Annotated[
    str | None, typer.Option("--token", envvar="KFP_TOKEN", help="Bearer token, if one is asked for.")
]


def current(path: Path | None) -> Config:
    """The configuration a command works with.

    In this order: `path`, the file named by BARCAST_CONFIG, what `barcast run` used last here, the sample's.
    """
    chosen = path or (Path(os.environ["BARCAST_CONFIG"]) if os.environ.get("BARCAST_CONFIG") else None)
    last = base_folder() / "current.yaml"
    if chosen is None and last.exists():
        chosen = last
    return load(chosen, root=base_folder())


def remember(config: Config) -> None:
    """Make `config` the one that later commands use by default; what was not set in it is left to the defaults."""
    import yaml

    from barcast.durable import write_atomic

    chosen = config.model_dump(mode="json", exclude={"storage"}, exclude_unset=True)
    write_atomic(base_folder() / "current.yaml", yaml.safe_dump(chosen, sort_keys=False))


def print_json(value: Any) -> None:
    """One JSON document on standard output."""
    print(json.dumps(value, indent=2, default=str))
