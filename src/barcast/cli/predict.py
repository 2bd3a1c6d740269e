"""`barcast predict`: ask for predictions and print them."""

from __future__ import annotations

from typing import Annotated

import typer

from barcast.cli._options import ConfigOption, JsonOption, current, print_json


def predict(
    symbols: Annotated[list[str] | None, typer.Argument(help="Symbols to predict.")] = None,
    everything: Annotated[bool, typer.Option("--all", help="All symbols of the workspace.")] = False,
    explain: Annotated[bool, typer.Option("--explain", help="Say why.")] = False,
    json: JsonOption = False,
    endpoint: Annotated[str | None, typer.Option(help="Model server, host:port.")] = None,
    config: ConfigOption = None,
) -> None:
    """Ask for predictions.

    Leaves with code 7 when no symbol could be answered.
    """
    from barcast.errors import ConfigError, ServingError
    from barcast.serving.predictor import open_predictor
    from barcast.serving.state import load_account

    if bool(symbols) == everything:
        raise ConfigError(
            "Name the symbols, or give --all (not both).", hint="For example: barcast predict AAPL"
        )
    settings = current(config)
    workspace = settings.open_workspace()
    with open_predictor(settings, workspace, endpoint) as predictor:
        answers = predictor.predict(
            None if everything else symbols, explain=explain, account=load_account(workspace, settings)
        )
    if json:
        print_json([answer.model_dump(mode="json") for answer in answers])
    else:
        from barcast.cli._prediction_table import show

        show(answers)
    if all(answer.status == "refused" for answer in answers):
        raise ServingError(
            f"None of {len(answers)} symbol(s) could be answered: {answers[0].reason}.",
            hint="Start the model server with `barcast serve`, or look at `barcast status`.",
        )
