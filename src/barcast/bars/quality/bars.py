"""Expectations on bars: Polars counts per symbol what breaks a rule, Great Expectations judges the counts."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING

import polars as pl

from barcast import intervals
from barcast.bars.quality.judge import Limit, judge
from barcast.bars.quality.report import QualityReport
from barcast.bars.schema import BARS, KEY, ROW_RULES, conform, content_hash
from barcast.bars.universe import Universe, day_of, open_universe
from barcast.config.bars import QualityConfig

if TYPE_CHECKING:
    from barcast.config import Config


def validate_bars(
    frame: pl.DataFrame,
    interval: str,
    as_of: datetime,
    config: QualityConfig | Config,
    *,
    universe: Universe | None = None,
    title: str = "Bars",
) -> QualityReport:
    """Judge bars.

    Args:
        frame: bars (`BARS`) as they came: order and duplicates are judged too.
        as_of: the latest time the data may know; staleness is measured from it.
        config: section `quality`, or the whole configuration, which also says the universe.
        universe: calendars and lives of the symbols; without it gaps, closes off the calendar, staleness and
            listings are not judged.

    Returns:
        the report; `raise_if_critical()` stops the run.

    Raises:
        DataError: a value is no number, or a time has no zone (a frame that is not bars at all).
    """
    config, universe = _settled(config, universe, frame)
    columns = (frame.columns, [name for name in BARS.names() if name in {*KEY, *_NEEDED}])
    if set(columns[1]) - set(columns[0]):
        return QualityReport(title, tuple(judge(pl.DataFrame(), "symbol", [], columns=columns)))
    came = frame.select("symbol", "event_timestamp")
    bars = conform(frame)
    limits = _limits(config, universe is not None)
    profile = _profile(bars, came, as_of, config)
    if universe is not None:
        profile = profile.join(_against_universe(bars, interval, as_of, universe), on="symbol")
    empty = Limit("bars", "at least one bar", "critical", low=1)
    if bars.height == 0:
        profile, limits = pl.DataFrame({"symbol": ["(none)"], "bars": [0]}), [empty]
    results = judge(profile, "symbol", limits, columns=columns)
    return QualityReport(title, tuple(results), _facts(bars, interval, as_of), _notes(bars, universe))


def _settled(
    config: QualityConfig | Config, universe: Universe | None, frame: pl.DataFrame
) -> tuple[QualityConfig, Universe | None]:
    if isinstance(config, QualityConfig):
        return config, universe
    if universe is None:
        symbols = frame["symbol"].unique() if "symbol" in frame.columns else ()
        universe = open_universe(config.universe, source_kind=config.source.kind, symbols=symbols)
    return config.quality, universe


_NEEDED = ("open", "high", "low", "close", "volume")


def _limits(config: QualityConfig, with_universe: bool) -> list[Limit]:
    limits = [
        Limit(name, f"{text} in every bar", "critical", high=0) for name, (_, text) in ROW_RULES.items()
    ]
    limits += [
        Limit("duplicate_times", "one bar per symbol and time", "critical", high=0),
        Limit("unsorted_times", "times in ascending order", "critical", high=0),
        Limit("from_the_future", "no bar that closes after as_of", "critical", high=0),
        Limit("nan_share", "no missing value", "critical", high=0),
        Limit("bars", f"at least {config.min_bars} bars for a prediction", "warning", low=config.min_bars),
        Limit(
            "constant_bars",
            f"at most {config.max_constant_bars} bars in a row at one price",
            "warning",
            high=config.max_constant_bars,
        ),
        Limit(
            "jump_ratio",
            f"adjusted closes within a factor of {config.max_jump_ratio:g} of the one before",
            "warning",
            high=config.max_jump_ratio,
        ),
        Limit("zero_volume_share", "at most half of the bars without volume", "warning", high=0.5),
    ]
    if with_universe:
        limits += [
            Limit(
                "gap_share",
                f"at most {config.max_gap_share:.2%} of the expected bars missing",
                "critical",
                high=config.max_gap_share,
            ),
            Limit("missing_bars", "no gap between first and last bar", "warning", high=0),
            Limit(
                "off_calendar_share",
                f"at most {config.max_off_calendar_share:.2%} of the bars closing off the calendar",
                "critical",
                high=config.max_off_calendar_share,
            ),
            Limit("outside_listing", "no bar before listing or after delisting", "warning", high=0),
        ]
        if config.max_stale_bars > 0:
            limits.append(
                Limit(
                    "stale_bars",
                    f"at most {config.max_stale_bars} expected bars missing up to as_of",
                    "warning",
                    high=config.max_stale_bars,
                )
            )
    return limits


def _profile(bars: pl.DataFrame, came: pl.DataFrame, as_of: datetime, config: QualityConfig) -> pl.DataFrame:
    step = pl.col("event_timestamp").diff()
    order = came.group_by("symbol").agg(
        unsorted_times=(step < pl.duration()).sum(),
        duplicate_times=pl.len() - pl.col("event_timestamp").n_unique(),
    )
    limit = as_of + pl.duration(microseconds=round(config.clock_tolerance_seconds * 1e6))
    still = (pl.col("close") == pl.col("close").shift(1)) & (pl.col("high") == pl.col("low"))
    ratio = (pl.col("close") * pl.col("price_factor")).log().diff().abs().exp()
    values = pl.concat_list(pl.col(*_NEEDED).is_null() | pl.col(*_NEEDED).is_nan())
    measured = bars.group_by("symbol").agg(
        bars=pl.len(),
        from_the_future=(pl.col("event_timestamp") > limit).sum(),
        nan_share=values.list.mean().mean(),
        constant_bars=(
            still.fill_null(False).rle().struct.field("len")
            * still.fill_null(False).rle().struct.field("value")
        ).max()
        + 1,
        jump_ratio=ratio.filter(ratio.is_finite()).max(),
        zero_volume_share=(pl.col("volume") == 0).mean(),
        **{name: rule.sum() for name, (rule, _) in ROW_RULES.items()},
    )
    return measured.join(order, on="symbol").sort("symbol")


def _against_universe(bars: pl.DataFrame, interval: str, as_of: datetime, universe: Universe) -> pl.DataFrame:
    rows = []
    for (symbol,), group in bars.group_by("symbol", maintain_order=True):
        name = str(symbol)
        calendar = universe.calendar_of(name)
        unique = group.unique("event_timestamp").sort("event_timestamp")
        last = unique["event_timestamp"][-1]
        missing = int(calendar.gaps(unique, interval)["missing_bars"].sum())
        life = universe.symbols.get(name)
        day = day_of("event_timestamp")
        outside = pl.lit(False)
        if life is not None and life.listed is not None:
            outside = outside | (day < life.listed)
        if life is not None and life.delisted is not None:
            outside = outside | (day >= life.delisted)
        rows.append(
            {
                "symbol": name,
                "missing_bars": missing,
                "gap_share": missing / (missing + unique.height),
                "off_calendar_share": calendar.off_grid(unique, interval).height / unique.height,
                "stale_bars": calendar.close_times(last, as_of, interval).len() if last < as_of else 0,
                "outside_listing": group.filter(outside).height,
            }
        )
    return pl.DataFrame(rows, schema_overrides={"symbol": pl.String})


def _facts(bars: pl.DataFrame, interval: str, as_of: datetime) -> dict[str, object]:
    facts: dict[str, object] = {
        "interval": f"{interval} ({intervals.seconds(interval)} s)",
        "symbols": bars["symbol"].n_unique(),
        "bars": bars.height,
        "as of": f"{as_of:%Y-%m-%d %H:%M:%SZ}",
    }
    if bars.height:
        closes = bars["event_timestamp"].dt.to_string("%Y-%m-%d %H:%M:%SZ")
        facts["first close"], facts["last close"] = closes.min(), closes.max()
        facts["content hash"] = content_hash(bars)
    return facts


def _notes(bars: pl.DataFrame, universe: Universe | None) -> tuple[str, ...]:
    if universe is None or bars.height == 0:
        return ()
    first = bars["event_timestamp"].min()
    assert isinstance(first, datetime)
    return tuple(note for note in (universe.hindsight(first.date()), universe.note) if note)
