"""`barcast ab report`: champion against challenger on what they really answered."""

from __future__ import annotations

from json import loads as parse
from pathlib import Path
from typing import Annotated, Any

import typer

from barcast.cli._options import ConfigOption, JsonOption, current, print_json
from barcast.wording import count

app = typer.Typer(add_completion=False, no_args_is_help=True, help="Shadow and A/B runs.")


@app.callback()
def _group() -> None:
    """Keep `report` a sub-command, though it is the only one."""


@app.command()
def report(
    symbol: Annotated[str, typer.Argument(help="A symbol, or `universal`.")] = "universal",
    json: JsonOption = False,
    config: ConfigOption = None,
) -> None:
    """Compare the served answers of champion and canary with the gate's test."""
    from barcast.errors import RegistryError
    from barcast.registry import Registry, ab
    from barcast.serving.prediction_log import PredictionLog, with_times

    settings = current(config)
    workspace = settings.open_workspace()
    registry = Registry(workspace, settings)
    model = registry.model(registry.state(), symbol)
    if model.champion is None or not model.traffic:
        raise RegistryError(
            f"{model.name} has no challenger that gets requests.",
            hint="`barcast models traffic SYMBOL --by NAME --reason TEXT` starts a shadow or A/B run.",
        )
    challenger = int(model.traffic["version"])
    log = PredictionLog(workspace.logs / "predictions.db")
    try:
        answers = with_times(log.predictions())
    finally:
        log.close()
    found = ab.compare(
        answers,
        _outcomes(settings, workspace, registry.live.directory(model.name, model.champion)),
        model=model.name,
        champion=model.champion,
        challenger=challenger,
        policy=settings.gate,
        costs=settings.costs,
        horizon_bars=settings.horizon_bars,
    )
    if json:
        print_json(found.to_dict())
        return
    print(f"{model.name}: challenger v{challenger} against champion v{model.champion}: {found.outcome}.")
    for sentence in found.sentences:
        print(f"  {sentence}")
    for name, arm in (("champion", found.champion), ("challenger", found.challenger)):
        print(
            f"  {name} v{arm.version}: {count(arm.answers, 'answer')}, {arm.with_outcome} with outcome, {arm.acted} "
            f"acted, accuracy {arm.accuracy:.1%}, net {arm.net_bps:+.2f} bps per answer, log loss {arm.log_loss:.4f}"
        )


def _outcomes(settings: Any, workspace: Any, champion: Path) -> Any:
    """Labels of all bars, with the class limits that the champion was trained with."""
    from barcast import labels
    from barcast.bars import adjusted
    from barcast.bars.store import BarStore
    from barcast.known_outcomes import known_outcomes

    trained = parse((champion / "assets.extra" / "model.json").read_text(encoding="utf-8"))
    bars = adjusted(BarStore(workspace.bars, settings.interval).read())
    return labels.classify(known_outcomes(bars, settings), labels.Thresholds(**trained["info"]["thresholds"]))
