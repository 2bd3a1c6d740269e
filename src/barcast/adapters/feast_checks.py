"""What is refused at the door of the feature store, before anything is written."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

import numpy as np
import polars as pl

from barcast.adapters.feast_definitions import CREATED, EVENT, SYMBOL
from barcast.adapters.feast_online import Float32
from barcast.errors import DataError

TIME = pl.Datetime("us", "UTC")


def columns(features: pl.DataFrame, names: Sequence[str]) -> None:
    """The frame has the keys and exactly the features `names`.

    Raises:
        DataError: a column is missing or unknown.
    """
    expected = {SYMBOL, EVENT, CREATED, *names}
    missing, extra = expected - set(features.columns), set(features.columns) - expected
    if missing or extra:
        raise DataError(
            f"The features frame lacks {sorted(missing)[:5]} and has unknown {sorted(extra)[:5]}.",
            hint=f"It needs symbol, event_timestamp, created_timestamp and the {len(names)} features.",
        )


def history(features: pl.DataFrame, names: Sequence[str]) -> pl.DataFrame:
    """The frame in canonical columns and types; nulls stay.

    Raises:
        DataError: a column is missing or unknown, a key is null, a feature is NaN or infinite.
    """
    columns(features, names)
    rows = features.select(SYMBOL, pl.col(EVENT, CREATED).cast(TIME), pl.col(list(names)).cast(pl.Float32))
    if rows.select(pl.sum_horizontal(pl.col(SYMBOL, EVENT, CREATED).null_count())).item():
        raise DataError("A feature row has no symbol or no time.", hint="Drop such rows.")
    bad = rows.select((~pl.col(list(names)).is_finite()).any()).row(0, named=True)
    lost = [name for name, found in bad.items() if found]
    if lost:
        raise DataError(
            f"Features are NaN or infinite: {', '.join(lost[:5])}.", hint="Unknown values are null."
        )
    return rows


def live(
    rows: pl.DataFrame, names: Sequence[str]
) -> tuple[list[str], list[datetime], list[datetime], Float32]:
    """Symbols, event times, created times and values float32 (n, F) of rows that may be served.

    Raises:
        DataError: a column is missing or unknown, a key or a feature is null, NaN or infinite.
    """
    columns(rows, names)
    symbols, events, created = (rows[column].to_list() for column in (SYMBOL, EVENT, CREATED))
    values = rows.select(names).to_numpy().astype(np.float32, copy=False)
    if None in symbols or None in events or None in created:
        raise DataError("A feature row has no symbol or no time.", hint="Drop such rows.")
    finite = np.isfinite(values).all(axis=0)
    if not finite.all():
        lost = [name for name, good in zip(names, finite, strict=True) if not good]
        raise DataError(
            f"Rows with null, NaN or infinite features cannot be served: {', '.join(lost[:5])}.",
            hint="Push a symbol once its warm-up is over.",
        )
    return symbols, events, created, values


def windows(given: Float32, last: Float32, shape: tuple[int, int]) -> Float32:
    """The windows as float32 (n, T, F).

    Args:
        given: the windows.
        last: the rows they must end with, (n, F).
        shape: (T, F).

    Raises:
        DataError: another shape, a value that is not finite, or another last row.
    """
    whole = np.asarray(given, dtype=np.float32)
    expected = (len(last), *shape)
    if whole.shape != expected:
        raise DataError(
            f"Windows have the shape {whole.shape}, expected {expected} (rows, bars, features).",
            hint="Give one window a row, with all features of the generation.",
        )
    if not np.isfinite(whole).all():
        raise DataError("A window holds a value that is not finite.", hint="Push once its warm-up is over.")
    if not np.array_equal(whole[:, -1], last):
        raise DataError(
            "A window does not end with its row.", hint="Give the windows in the order of the rows."
        )
    return whole
