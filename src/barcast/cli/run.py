"""`barcast run`: a pipeline on this machine, without more the training from bars to answers; `barcast init`."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from barcast.cli._options import SetOption, current, remember
from barcast.config import Config, base_folder, load
from barcast.errors import ConfigError, RefusedError
from barcast.wording import count

if TYPE_CHECKING:
    from barcast.operations.runs import Event


def run(
    path: Annotated[
        Path | None, typer.Argument(help="Configuration file; none means the packaged sample.")
    ] = None,
    bars: Annotated[
        Path | None, typer.Option(help="Folder of Parquet or CSV files to take the bars from.")
    ] = None,
    interval: Annotated[
        str | None, typer.Option(help="Length of a bar, e.g. 5m; overrides the file.")
    ] = None,
    workspace: Annotated[
        str | None, typer.Option(help="Workspace to keep the results in; overrides the file.")
    ] = None,
    pipeline: Annotated[
        str,
        typer.Option(help="training, retraining, tuning, backfill, monitoring or promotion."),
    ] = "training",
    settings_of_run: SetOption = None,
    config_file: Annotated[
        Path | None,
        typer.Option("--config", "-c", help="The same file as an option, as other commands have it."),
    ] = None,
) -> None:
    """Bars to an approved model that answers over gRPC, with the report and the predictions.

    Another pipeline than `training` goes on with the workspace last run here, where no file is given.
    """
    from barcast.adapters.kubeflow import read_arguments

    if path is not None and config_file is not None:
        raise ConfigError(
            f"Two configuration files are named: {path} and --config {config_file}.", hint="Name one of them."
        )
    path = path or config_file
    arguments = read_arguments(pipeline, settings_of_run or [])
    if pipeline != "training" and path is None and bars is None:
        given = {"interval": interval, "workspace": workspace}
        changed = {name: value for name, value in given.items() if value}
        config = Config.model_validate({**current(None).model_dump(exclude_unset=True), **changed})
    else:
        config = _configuration(path, bars, interval, workspace)
    remember(config)
    show_results(config, run_watched(config, pipeline, **arguments))


def init(
    workspace: Annotated[str, typer.Argument(help="Name of the new workspace.")],
    bars: Annotated[Path, typer.Option(help="Folder of Parquet or CSV files.")],
    interval: Annotated[str, typer.Option(help="Length of a bar, e.g. 5m, 1h, 1d.")],
    output: Annotated[
        Path | None, typer.Option(help="File to write; by default WORKSPACE.yaml here.")
    ] = None,
) -> None:
    """Look at your bars and write a configuration for them."""
    import yaml

    from barcast.bars.sources import open_source

    target = output or Path(f"{workspace}.yaml")
    if target.exists():
        raise RefusedError(
            f"{target} exists already.", hint="Choose another name with --output, or remove it."
        )
    config = _configuration(None, bars, interval, workspace)
    symbols = open_source(
        config.source, interval=config.interval, calendar=config.universe.calendar
    ).symbols()
    changed = config.model_dump(mode="json", exclude_unset=True, exclude={"storage"})
    target.write_text(yaml.safe_dump(changed, sort_keys=False))
    print(
        f"Found {count(len(symbols), 'symbol')}: {', '.join(symbols[:8])}{' …' if len(symbols) > 8 else ''}"
    )
    print(f"Wrote {target}. Next: barcast run {target}")


_PAGES = {
    "report.html": "Report",
    "monitoring.html": "What was seen",
    "best.yaml": "Best configuration",
    "scores.parquet": "Scores",
}


def _configuration(
    path: Path | None, bars: Path | None, interval: str | None, workspace: str | None
) -> Config:
    overrides: dict[str, Any] = {}
    if interval:
        overrides["interval"] = interval
    if workspace:
        overrides["workspace"] = workspace
    config = load(path, root=base_folder(), **overrides)
    if bars is None:
        return config
    if not bars.exists():
        raise ConfigError(f"There is no folder {bars}.", hint="Give --bars a folder of Parquet or CSV files.")
    if path is None and (interval is None or workspace is None):
        raise ConfigError(
            "Bars of your own need a name and an interval.",
            hint="Add --workspace NAME and --interval (1m, 5m, 1h, 1d), or a configuration file.",
        )
    source = {
        **config.source.model_dump(mode="json", exclude_unset=True),
        "kind": "files",
        "files": {
            **config.source.files.model_dump(mode="json", exclude_unset=True),
            "path": str(bars.absolute()),
        },
    }
    if path is None:
        from barcast.bars.sources.files import guess_calendar
        from barcast.config.bars import FilesConfig

        calendar = guess_calendar(FilesConfig.model_validate(source["files"]), str(interval))
        overrides["universe"] = {"calendar": calendar}
    return load(path, root=base_folder(), source=source, **overrides)


def run_watched(config: Config, pipeline: str, **arguments: Any) -> str:
    """Run a pipeline and print a line per finished step; the run's id."""
    from barcast.operations.runs import new_run_id, run_pipeline

    run_id = new_run_id(pipeline)
    print(f"{pipeline} of workspace {config.workspace!r} ({config.interval} bars), run {run_id}")
    show_steps(run_pipeline(config, pipeline, run_id, **arguments))
    return run_id


def show_steps(events: Iterable[Event]) -> None:
    """A line per finished step; on a terminal also what goes on now."""
    from rich.console import Console

    console = Console(highlight=False)
    notes: dict[str, str] = {}
    with console.status("starting") if sys.stdout.isatty() else _Quiet() as status:
        for event in events:
            if event.event == "started":
                status.update(event.step)
            elif event.event == "note":
                notes[event.step] = event.text
                status.update(f"{event.step}: {event.text}")
            elif event.event == "done":
                console.print(
                    f"  {event.step:18} {event.more['seconds']:6.1f} s  {notes.get(event.step, '')}",
                    soft_wrap=True,
                )
            else:
                console.print(f"  {event.step:18} failed", soft_wrap=True)


class _Quiet:
    """Where there is no terminal, a line per finished step is progress enough."""

    def __enter__(self) -> _Quiet:
        return self

    def __exit__(self, *args: object) -> None:
        return None

    def update(self, text: str) -> None:
        """Nothing to redraw."""


def show_results(config: Config, run_id: str) -> None:
    """The verdicts, the table of predictions, where the report lies, and what to type next."""
    import json

    from barcast.cli._prediction_table import show
    from barcast.serving import Prediction

    folder = config.open_workspace().runs / run_id
    verdicts, answers = [], folder / "answers.json"
    if (folder / "verdicts.json").exists():
        verdicts = json.loads((folder / "verdicts.json").read_text())
        print("\nThe gate")
        for item in verdicts:
            print(f"  {item['name']:28} {item['outcome']:8} {item['reasons'][0] if item['reasons'] else ''}")
    live = config.open_workspace().models_config.exists()
    if verdicts and live and not answers.exists():
        from barcast.steps import asking

        # Nothing new went live: what answers now goes on answering.
        with asking.live_server(config) as endpoint:
            answers.write_text(json.dumps(asking.answers(config, endpoint), indent=2))
    if answers.exists():
        print("\nPredictions")
        show([Prediction.model_validate(answer) for answer in json.loads(answers.read_text())])
    waiting = [
        item["symbol"] for item in verdicts if item["outcome"] in ("promote", "hold") and not item.get("live")
    ]
    for name, text in _PAGES.items():
        if (folder / name).exists():
            print(f"\n{text}: {folder / name}")
    command = sys.argv[0] if "/" in sys.argv[0] else "barcast"
    if waiting or answers.exists() or (folder / "best.yaml").exists():
        print("Next:")
    if (folder / "best.yaml").exists():
        print(f"  {command} run {folder / 'best.yaml'}")
    if waiting:
        print(f"  {command} models show {waiting[0]}    # what waits for a person")
        print(f"  {command} models approve {waiting[0]} --by NAME --reason TEXT")
    if answers.exists():
        print(f"  {command} serve                 # keep the model server running")
        print(f"  {command} predict --all         # in another terminal")
