"""Bars from Parquet and CSV files.

A folder holds one file per symbol (the file's name is the symbol) or files with a `symbol` column. Column
names are matched without regard to case and by common aliases, or named by you. Times become bar closes:
exchange files stamp a bar at its OPEN, so the interval is added; a date without a time means that day's
session.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, time, timedelta
from pathlib import Path

import polars as pl

from barcast import clock, intervals
from barcast.bars.calendar import Calendar
from barcast.bars.calendars import Calendars, bar_opens, by_calendar
from barcast.bars.schema import check, conform, number
from barcast.bars.sources.base import between, selected
from barcast.bars.sources.times import parse_times
from barcast.bars.splits import with_factors
from barcast.config.bars import FilesConfig
from barcast.errors import ConfigError, DataError
from barcast.names import unslug

_SUFFIXES = (".parquet", ".pq", ".csv", ".csv.gz")
ALIASES = {
    "symbol": ("symbol", "ticker", "instrument", "pair"),
    "timestamp": (
        "timestamp",
        "time",
        "date",
        "datetime",
        "open_time",
        "close_time",
        "event_timestamp",
        "ts",
    ),
    "open": ("open", "o"),
    "high": ("high", "h"),
    "low": ("low", "l"),
    "close": ("close", "c", "last"),
    "volume": ("volume", "vol", "v"),
    "adjusted_close": ("adjusted_close", "adj close", "adj_close", "adjclose", "adjusted close"),
    "price_factor": ("price_factor",),
    "volume_factor": ("volume_factor",),
    "created_timestamp": ("created_timestamp",),
}


class FilesSource:
    """Parquet and CSV files under one path."""

    def __init__(self, config: FilesConfig, interval: str, calendars: Calendars) -> None:
        if not config.path:
            raise ConfigError(
                "source.kind is files, but source.files.path is empty.", hint="Name a folder or a file."
            )
        unknown = set(config.columns) - set(ALIASES)
        if unknown:
            raise ConfigError(
                f"source.files.columns names {sorted(unknown)}.",
                hint=f"Canonical columns are: {', '.join(ALIASES)}.",
            )
        self._config, self._interval, self._calendars = config, interval, calendars
        self._by_symbol: dict[str, list[Path]] | None = None
        self._texts: dict[Path, list[str]] = {}

    def symbols(self) -> list[str]:
        return sorted(self._index())

    def fetch(
        self, symbols: Sequence[str] | None = None, start: datetime | None = None, end: datetime | None = None
    ) -> pl.DataFrame:
        """Bars as `Source.fetch` says, checked row by row.

        Raises:
            DataError: a file is missing, empty, unreadable, lacks columns, has text for a number, is not
                in time order, or a bar breaks a row rule (`barcast.bars.schema.ROW_RULES`) or closes in the
                future.
        """
        index = self._index()
        wanted = selected(list(index), symbols)
        files = sorted({file for symbol in wanted for file in index[symbol]})
        parts = [self._bars(file) for file in files]
        bars = pl.concat(parts).filter(pl.col("symbol").is_in(wanted)).sort("symbol", "event_timestamp")
        check(bars, as_of=clock.now(), origin=str(self._config.path))
        return between(bars, start, end)

    def _index(self) -> dict[str, list[Path]]:
        if self._by_symbol is None:
            found: dict[str, list[Path]] = {}
            for file in list_files(Path(self._config.path)):
                matched = self._match(_read(file, rows=1).columns)
                column = matched.get("symbol")
                # A symbol such as 000001 or TRUE is a name, a time of the user's own format no epoch number.
                written = [column, matched.get("timestamp") if self._config.time_format else None]
                self._texts[file] = [name for name in written if name is not None]
                for name in self._names(file, column) if column else [_stem(file)]:
                    found.setdefault(name, []).append(file)
            self._by_symbol = found
        return self._by_symbol

    def _names(self, file: Path, column: str) -> list[str]:
        names = _read(file, columns=[column], texts=[column])[column].unique().cast(pl.String)
        if names.null_count():
            raise DataError(f"{file}: a row has no symbol.", hint="Remove such rows or name their symbol.")
        return names.to_list()

    def _match(self, columns: Sequence[str]) -> dict[str, str]:
        by_lower = {name.strip().lower(): name for name in columns}
        matched = {}
        for canonical, aliases in ALIASES.items():
            own = self._config.columns.get(canonical)
            if own is not None and own not in columns:
                raise DataError(
                    f"source.files.columns says {canonical}: {own!r}, but the file has {list(columns)}.",
                    hint="Correct the name (case matters).",
                )
            hit = own or next((by_lower[alias] for alias in aliases if alias in by_lower), None)
            if hit is not None:
                matched[canonical] = hit
        return matched

    def _bars(self, file: Path) -> pl.DataFrame:
        raw = _read(file, texts=self._texts[file])
        if raw.height == 0:
            raise DataError(f"{file} holds no rows.", hint="Remove the file or fill it.")
        matched = self._match(raw.columns)
        if "timestamp" not in matched:
            raise DataError(
                f"{file} has no time column; it has {raw.columns}.",
                hint="Name it in the configuration: source: {files: {columns: {timestamp: YourColumn}}}.",
            )
        frame = raw.select(pl.col(name).alias(canonical) for canonical, name in matched.items())
        if "symbol" not in frame.columns:
            frame = frame.with_columns(symbol=pl.lit(_stem(file)))
        frame = frame.with_columns(symbol=pl.col("symbol").cast(pl.String))
        frame = frame.with_columns(event_timestamp=self._closes(frame, file)).drop("timestamp")
        self._spacing(frame, file)
        _ordered(frame, file)
        if {"open", "close", "adjusted_close"} <= set(frame.columns) and "price_factor" not in frame.columns:
            for name in ("open", "close", "adjusted_close"):
                frame = number(frame, name, str(file))
            frame = with_factors(frame)
        return conform(frame.drop("adjusted_close", strict=False), origin=str(file))

    def _closes(self, frame: pl.DataFrame, file: Path) -> pl.Series:
        parsed = parse_times(frame["timestamp"], self._config.timezone, self._config.time_format, str(file))
        length = intervals.parse(self._interval)
        daily = length >= timedelta(days=1)
        if length == timedelta(days=1) and parsed.dtype != pl.Date:
            local = parsed.dt.convert_time_zone(self._config.timezone)
            if (local.dt.time() == time(0)).all():  # dates written as midnights
                parsed = local.dt.date()
                if self._config.timestamp == "close":
                    # Where the market never closes, a midnight is the end of the day before.
                    endless = [s for s in frame["symbol"].unique() if self._calendars(s).always_open]
                    parsed = (parsed - timedelta(days=1)).zip_with(frame["symbol"].is_in(endless), parsed)
        if parsed.dtype == pl.Date:
            if not daily:
                raise DataError(
                    f"{file} has dates without times, but the interval is {self._interval}.",
                    hint="Set interval: 1d, or give times.",
                )
            return self._session_closes(frame["symbol"], parsed, file)
        if self._config.timestamp == "close":
            return parsed
        if daily:
            return parsed + length
        return by_calendar(
            frame["symbol"],
            self._calendars,
            lambda calendar, mine: calendar.bar_closes(parsed.filter(mine), self._interval),
        )

    def _session_closes(self, symbols: pl.Series, dates: pl.Series, file: Path) -> pl.Series:
        """The close of each date's session, by the calendar of the row's symbol."""

        def closes(calendar: Calendar, mine: pl.Series) -> pl.Series:
            days = dates.filter(mine)
            found = calendar.session_closes(days)
            none = found.is_null()
            if none.any():
                raise DataError(
                    f"{file}: {none.sum()} date(s) are no session of calendar "
                    f"{calendar.name}; first: {days.filter(none)[0]}.",
                    hint="Set universe.calendar to the market's calendar (24/7 for crypto), or name the symbol's in "
                    "the universe file.",
                )
            return found

        return by_calendar(symbols, self._calendars, closes)

    def _spacing(self, frame: pl.DataFrame, file: Path) -> None:
        """Refuse a file of another interval: bars closer than the interval, or all of them farther apart."""
        length = intervals.seconds(self._interval)
        times = frame.select("symbol", "event_timestamp")
        if length < 86400:  # the last bar of a session may be short: opens are evenly apart, closes are not
            times = times.with_columns(event_timestamp=bar_opens(times, self._interval, self._calendars))
        steps = (
            times.sort("symbol", "event_timestamp")
            .select(pl.col("event_timestamp").diff().over("symbol").dt.total_seconds())
            .to_series()
        )
        steps = steps.filter(steps > 0)  # a bar that occurs twice is another error
        if steps.len() == 0 or length >= 86400:
            wrong = steps.len() > 0 and int(steps.median() or 0) < 3600 * 6  # type: ignore[arg-type]
        else:
            shortest = steps.min()
            too_close = shortest != length and float((steps < length).cast(pl.Float64).mean() or 0) > 0.01  # type: ignore[arg-type]
            wrong = too_close or int(steps.mode().min() or 0) > length  # type: ignore[arg-type]
        if wrong:
            raise DataError(
                f"{file} holds bars mostly {int(steps.mode()[0])} s apart; the configured interval is "
                f"{self._interval} ({length} s).",
                hint="Set `interval` to the file's interval, or resample the file.",
            )


def list_files(path: Path) -> list[Path]:
    """The bar files at `path`, sorted.

    Raises:
        DataError: nothing is there.
    """
    if path.is_file():
        return [path]
    if not path.is_dir():
        raise DataError(f"{path} does not exist.", hint="Correct source.files.path.")
    files = sorted(f for f in path.iterdir() if f.is_file() and f.name.lower().endswith(_SUFFIXES))
    if not files:
        raise DataError(f"{path} holds no {', '.join(_SUFFIXES)} file.", hint="Correct source.files.path.")
    return files


def _stem(file: Path) -> str:
    name = file.name
    for suffix in sorted(_SUFFIXES, key=len, reverse=True):
        if name.lower().endswith(suffix):
            name = name[: -len(suffix)]
            break
    return unslug(name) if "_2f" in name else name


def _read(
    file: Path, *, rows: int | None = None, columns: list[str] | None = None, texts: Sequence[str] = ()
) -> pl.DataFrame:
    """The file's rows; of a CSV file the columns `texts` stay as they are written."""
    if file.stat().st_size == 0:
        raise DataError(f"{file} is empty (0 bytes).", hint="Remove it or write it again.")
    try:
        if file.suffix.lower() in (".parquet", ".pq"):
            return pl.read_parquet(file, n_rows=rows, columns=columns)
        return pl.read_csv(
            file,
            n_rows=rows,
            columns=columns,
            infer_schema_length=None,
            schema_overrides=dict.fromkeys(texts, pl.String),
        )
    except (pl.exceptions.PolarsError, OSError, ValueError) as error:
        reason = str(error).splitlines()[0]
        raise DataError(
            f"{file} cannot be read: {reason}.", hint="The file is damaged or of another kind."
        ) from error


def _ordered(frame: pl.DataFrame, file: Path) -> None:
    step = frame.select("symbol", t="event_timestamp", d=pl.col("event_timestamp").diff().over("symbol"))
    wrong = step.filter(pl.col("d") <= timedelta(0))
    if wrong.height:
        symbol, when, by = wrong.row(0)
        kind = "occurs twice" if by == timedelta(0) else "comes after a later one"
        raise DataError(
            f"{file}: the bar of {symbol} that closes at {when.astimezone(UTC):%Y-%m-%d %H:%M:%SZ} {kind}"
            f" ({wrong.height} such row(s)).",
            hint="Sort the file by time and keep one row per bar.",
        )


def guess_calendar(config: FilesConfig, interval: str) -> str:
    """The calendar to begin with for files: "24/7" if any bar opens on a Saturday, else "XNYS".

    Raises:
        DataError: the files are not bars.
    """
    source = FilesSource(config, interval, Calendar.of("24/7"))
    for symbol in source.symbols():
        opened = source.fetch([symbol])["event_timestamp"] - intervals.parse(interval)
        if (opened.dt.weekday() == 6).any():
            return "24/7"
    return "XNYS"
