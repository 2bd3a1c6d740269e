"""Backfill of features on Apache Beam: a unit of work is a symbol's own features; the cross-symbol ones are one more.

Bars in one Parquet file (as the pipeline's snapshot) come in; a folder of Parquet files comes out, one a symbol, equal
to what `features.compute` gives for all bars at once. A symbol's own features need its own bars only, so they spread
over workers; the cross-symbol features need every symbol's bars of a moment, so one worker runs through them.
Bars and output lie where all workers can reach them (any runner but the local one).
"""

from __future__ import annotations

import importlib
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import polars as pl

from barcast import names
from barcast.adapters.beam import LOCAL, settings_of
from barcast.config import Config
from barcast.errors import DataError

CROSS = "cross_symbol"
KEYS = ("symbol", "event_timestamp", "created_timestamp")


def backfill(
    bars: Path, output: Path, config: Config, *, runner: str = LOCAL, options: Sequence[str] = ()
) -> Path:
    """Compute every feature of every bar into Parquet files under `output`.

    Args:
        bars: Parquet file of bars as stored, not adjusted.
        output: a folder; what an earlier backfill left there is replaced.
        runner, options: as for `adapters.beam.score`.

    Raises:
        DataError: no bars, or bars that features cannot be computed of.
    """
    beam: Any = importlib.import_module("apache_beam")  # its functions carry no types
    symbols = pl.scan_parquet(bars).select(pl.col("symbol").unique().sort()).collect()["symbol"].to_list()
    if not symbols:
        raise DataError(f"{bars} holds no bars.", hint="Run `barcast ingest` first.")
    shutil.rmtree(output, ignore_errors=True)
    (output / "parts").mkdir(parents=True)
    given = {"bars": str(bars), "output": str(output), "config": config.model_dump_json()}
    units = [*symbols, ""] if CROSS in config.features.categories else symbols
    try:
        with beam.Pipeline(options=settings_of(runner, options)) as pipeline:
            _ = (
                pipeline
                | "Units" >> beam.Create(units)
                | "Spread" >> beam.Reshuffle()
                | "Compute" >> beam.Map(_compute, **given)
                | "Wait for all" >> beam.combiners.ToList()
                | "Symbols" >> beam.FlatMap(lambda _: symbols)
                | "Spread again" >> beam.Reshuffle()
                | "Join" >> beam.Map(_join, **given)
            )
    except Exception as error:  # Beam wraps what a worker raised
        found = next((line for line in str(error).splitlines() if line.strip()), type(error).__name__)
        raise DataError(
            f"The backfill of features failed: {found}", hint="Look at the workers' log, and at those bars."
        ) from error
    shutil.rmtree(output / "parts")
    return output


def read(output: Path) -> pl.DataFrame:
    """The features of a backfill, sorted by symbol and time, as `features.compute` gives them.

    Raises:
        DataError: there are none.
    """
    files = sorted(Path(output).glob("*.parquet"))
    if not files:
        raise DataError(f"{output} holds no features.", hint="Run the backfill first.")
    return pl.concat([pl.read_parquet(file) for file in files]).sort("symbol", "event_timestamp")


def _compute(symbol: str, bars: str, output: str, config: str) -> str:
    """Features of one symbol (its own), or with "" the cross-symbol ones of all, into `parts`."""
    from barcast import features
    from barcast.bars import adjusted, calendars_of

    settings = Config.model_validate_json(config)
    rows = pl.scan_parquet(bars)
    wanted = settings.features
    if symbol:
        rows = rows.filter(pl.col("symbol") == symbol)
        own = tuple(name for name in wanted.categories if name != CROSS)
        wanted = wanted.model_copy(update={"categories": own})
    else:
        wanted = wanted.model_copy(update={"categories": (CROSS,), "user_features": None})
    frame = features.compute(
        adjusted(rows.collect()),
        interval=settings.interval,
        calendar=calendars_of(settings),
        config=wanted,
    )
    folder = Path(output) / "parts"
    for (name,), part in frame.group_by("symbol"):
        _write(
            part.sort("event_timestamp"),
            folder / f"{'own' if symbol else CROSS}-{names.slug(str(name))}.parquet",
        )
    return symbol


def _join(symbol: str, bars: str, output: str, config: str) -> str:
    """One symbol's parts side by side, in the generation's order."""
    from barcast import features

    settings = Config.model_validate_json(config)
    slug, folder = names.slug(symbol), Path(output) / "parts"
    frame = pl.read_parquet(folder / f"own-{slug}.parquet")
    cross = folder / f"{CROSS}-{slug}.parquet"
    if cross.exists():  # a row with cross-symbol features is known when the others' bars were
        frame = frame.drop("created_timestamp").join(
            pl.read_parquet(cross), on=["symbol", "event_timestamp"], how="left", maintain_order="left"
        )
    order = features.feature_names(settings.interval, settings.features)
    _write(frame.select(*KEYS, *order), Path(output) / f"{slug}.parquet")
    return symbol


def _write(frame: pl.DataFrame, path: Path) -> None:
    """Atomically: a unit that is tried again replaces its own file."""
    temporary = path.with_suffix(".tmp")
    frame.write_parquet(temporary)
    temporary.replace(path)
