"""`barcast parity`: is a value the same in batch, stream, store and at the model server?"""

from __future__ import annotations

from typing import Annotated

import typer

from barcast.cli._options import ConfigOption, JsonOption, current, print_json
from barcast.wording import count


def parity(
    symbol: Annotated[str, typer.Argument(help="Symbol to replay.")],
    days: Annotated[float, typer.Option(min=0.01, help="Days to replay, counted from the last bar.")] = 30.0,
    json: JsonOption = False,
    endpoint: Annotated[
        str | None, typer.Option(help="Running model server to pass the requests to, host:port.")
    ] = None,
    config: ConfigOption = None,
) -> None:
    """Replay the last days and compare batch row, streamed row, Feast's rows and window, and the tensor sent.

    Leaves with code 4 when a value differs.
    """
    from barcast.bars.ingest import open_store
    from barcast.errors import QualityError
    from barcast.operations.parity import replay

    settings = current(config)
    workspace = settings.open_workspace()
    bars = open_store(settings, workspace).read()
    result = replay(bars, symbol, settings, days=days, served=workspace, endpoint=endpoint)
    if json:
        print_json(result.to_dict())
    else:
        from rich.table import Table

        from barcast.cli._console import console

        table = Table(
            title=f"{symbol}: {count(result.bars, 'bar')}, {result.start:%F %R} to {result.end:%F %R} UTC",
            title_justify="left",
        )
        table.add_column("compared")
        for name in ("rows", "values", "mismatches", "largest difference"):
            table.add_column(name, justify="right")
        for c in result.comparisons:
            table.add_row(
                c.name,
                f"{c.rows:,}",
                f"{c.values:,}",
                f"{c.mismatches:,}",
                f"{c.max_relative_difference:.2g}",
            )
        out = console()
        out.print(table)
        if result.not_served:
            out.print(f"{result.not_served} bars lay in the warm-up and were not served.")
        if endpoint:
            out.print(f"{result.model_answers} requests were answered by the model server at {endpoint}.")
    if result.mismatches:
        worst = next(c for c in result.comparisons if c.mismatches)
        raise QualityError(
            f"{result.mismatches} values differ; the first: {worst.name}, {worst.first}.",
            hint="A stage computes or carries features differently; do not serve before it is found.",
        )
