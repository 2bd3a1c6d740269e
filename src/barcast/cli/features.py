"""`barcast features …`: which features there are, and their values of the bars in the table."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Annotated

import typer

from barcast.cli._options import ConfigOption, JsonOption, current, print_json
from barcast.wording import count

app = typer.Typer(add_completion=False, help="List or compute features.", no_args_is_help=True)

Interval = Annotated[str, typer.Option(help="Bars of this interval, such as 5m; without it the workspace's.")]


@app.command("list")
def list_features(
    config: ConfigOption = None,
    interval: Interval = "",
    category: Annotated[str, typer.Option(help="Only this category.")] = "",
    json: JsonOption = False,
) -> None:
    """Every feature: name, category, formula in words, look-back in bars, unit, source, cross-symbol or not."""
    from barcast.errors import ConfigError, did_you_mean
    from barcast.features import catalogue

    settings = current(config)
    specs = catalogue(interval or settings.interval, settings.features)
    counts = Counter(spec.category for spec in specs)
    if category:
        if category not in counts:
            raise ConfigError(
                f"There is no category {category!r}.",
                hint=did_you_mean(category, counts) or f"One of {', '.join(counts)}.",
            )
        specs = tuple(spec for spec in specs if spec.category == category)
    if json:
        print_json([spec.as_dict() for spec in specs])
        return
    from rich.table import Column, Table
    from rich.text import Text

    from barcast.cli._console import console

    table = Table(
        Column("name", no_wrap=True), "category", "formula", "look-back", "unit", "source", "cross", box=None
    )
    for spec in specs:
        cross = "yes" if spec.cross_symbol else ""
        cells = (spec.category, spec.formula, str(spec.lookback_bars), spec.unit, spec.source, cross)
        table.add_row(spec.name, *(Text(cell) for cell in cells))  # a formula may hold [brackets]
    out = console()
    out.print(table)
    out.print(
        ", ".join(f"{name} {count}" for name, count in counts.items()) + f": {sum(counts.values())} in all"
    )


@app.command()
def show(
    name: Annotated[str, typer.Argument(help="The feature's name.")],
    config: ConfigOption = None,
    interval: Interval = "",
    json: JsonOption = False,
) -> None:
    """One feature in words."""
    from barcast.errors import DataError, did_you_mean
    from barcast.features import catalogue

    settings = current(config)
    bars = interval or settings.interval
    specs = {spec.name: spec for spec in catalogue(bars, settings.features)}
    if name not in specs:
        raise DataError(
            f"There is no feature {name!r} on {bars} bars.",
            hint=did_you_mean(name, specs) or "See `barcast features list`.",
        )
    facts = specs[name].as_dict()
    if json:
        print_json(facts)
        return
    for key, value in facts.items():
        print(f"{key.replace('_', ' '):15} {'-' if value is None else value}")


@app.command()
def compute(
    symbols: Annotated[list[str] | None, typer.Argument(help="Only these symbols; without any: all.")] = None,
    config: ConfigOption = None,
    out: Annotated[Path | None, typer.Option(help="Write the table to this Parquet file.")] = None,
    json: JsonOption = False,
) -> None:
    """Compute all features of the bars in the table, and report the rows still warming up.

    Cross-symbol features of the asked symbols use every symbol in the table.
    """
    import polars as pl

    from barcast import features
    from barcast.bars import adjusted, calendars_of
    from barcast.bars.ingest import open_store
    from barcast.errors import DataError, did_you_mean

    settings = current(config)
    bars = open_store(settings, settings.open_workspace()).read()
    if bars.height == 0:
        raise DataError("The bar table is empty.", hint="Run `barcast ingest` first.")
    known = bars["symbol"].unique().sort().to_list()
    for symbol in symbols or []:
        if symbol not in known:
            raise DataError(
                f"The bar table has no symbol {symbol!r}.",
                hint=did_you_mean(symbol, known) or f"It has {known[:10]}.",
            )
    frame = features.compute(
        adjusted(bars),
        interval=settings.interval,
        calendar=calendars_of(settings),
        config=settings.features,
    )
    if symbols:
        frame = frame.filter(pl.col("symbol").is_in(symbols))
    whole = frame.drop_nulls()
    per_symbol = (
        frame.group_by("symbol", maintain_order=True)
        .len("rows")
        .join(whole.group_by("symbol").len("complete"), on="symbol", how="left")
        .with_columns(pl.col("complete").fill_null(0).cast(pl.UInt32))
        .with_columns(warming_up=pl.col("rows") - pl.col("complete"))
    )
    if out is not None:
        frame.write_parquet(out)
    warmup = features.warmup_bars(settings.interval, settings.features)
    facts = {
        "features": len(frame.columns) - 3,
        "rows": frame.height,
        "complete_rows": whole.height,
        "dropped_warming_up": frame.height - whole.height,
        "warmup_bars": warmup,
        "file": None if out is None else str(out),
        "symbols": per_symbol.to_dicts(),
    }
    if json:
        print_json(facts)
        return
    print(
        f"{count(len(frame.columns) - 3, 'feature')} of {count(frame.height, 'bar')}; "
        f"{whole.height:,} of them complete, "
        f"{facts['dropped_warming_up']:,} are still warming up ({count(warmup, 'bar')} per symbol)."
    )
    for row in per_symbol.to_dicts():
        print(f"  {row['symbol']:12} {row['complete']:>9,} complete  {row['warming_up']:>6,} warming up")
    if out is not None:
        print(f"Written to {out}.")
