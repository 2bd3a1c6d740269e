"""Settings of the bars: where they come from, which symbols exist, what counts as good data."""

from __future__ import annotations

from datetime import date
from typing import Annotated, Any, Literal
from zoneinfo import ZoneInfo

from pydantic import AfterValidator, BeforeValidator, Field

from barcast import clock
from barcast.config.base import Section
from barcast.errors import ConfigError


def _time(text: str) -> str:
    try:
        clock.instant(text, "It")
    except ConfigError as error:
        raise ValueError(f"{error.message} {error.hint}") from error
    return text


# YAML reads 2024-01-31 as a date; a time may be written with or without quotes.
Moment = Annotated[
    str, BeforeValidator(lambda v: v.isoformat() if isinstance(v, date) else v), AfterValidator(_time)
]


def _zone(name: str) -> str:
    try:
        ZoneInfo(name)
    except (KeyError, ValueError, OSError) as error:
        raise ValueError(f"there is no time zone {name!r}; write one like Europe/Berlin") from error
    return name


class FilesConfig(Section):
    """A folder of Parquet or CSV files, one per symbol, or one file with a symbol column."""

    path: str = Field(
        default="",
        description="Folder or single file; a symbol is the column `symbol`, else the file's name.",
    )
    timestamp: Literal["open", "close"] = Field(
        default="open", description="Whether the time column is the bar's open (exchanges) or its close."
    )
    timezone: Annotated[str, AfterValidator(_zone)] = Field(
        default="UTC", description="Time zone of times that carry none; daily dates need none."
    )
    time_format: str = Field(
        default="", description="strptime format of text times; empty: ISO 8601 and epoch numbers."
    )
    columns: dict[str, str] = Field(
        default_factory=dict,
        description="Your column name for a canonical one, e.g. {close: Last, volume: Vol}.",
    )


class SimulatorConfig(Section):
    """The seeded market of tests and load measurements."""

    num_symbols: int = Field(default=4, ge=1, le=10_000, description="Symbols SIM0000, SIM0001 and on.")
    num_bars: int = Field(default=3000, ge=2, description="Bars per symbol.")
    seed: int = Field(default=7, ge=0, description="Same seed, same bars.")
    start: Moment = Field(
        default="2020-01-01", description="Date from which the first bar is sought (ISO 8601, UTC)."
    )
    volatility_annual: float = Field(
        default=0.35, gt=0, description="Typical volatility of a year, as a fraction."
    )
    correlation: float = Field(
        default=0.55, ge=0, lt=1, description="Share of return variance common to all symbols."
    )


class CcxtConfig(Section):
    """A crypto exchange reached through ccxt."""

    exchange: str = Field(default="binance", description="ccxt's name of the exchange.")
    symbols: tuple[str, ...] = Field(default=(), description="Pairs in ccxt's form, e.g. BTC/USDT.")
    start: Moment = Field(
        default="", description="First bar to fetch (ISO 8601, UTC); empty: the last `page_bars` bars."
    )
    page_bars: int = Field(default=1000, ge=1, description="Bars asked for in one request.")
    timeout_seconds: float = Field(default=20.0, gt=0, description="Limit for one request.")
    max_retries: int = Field(
        default=5, ge=0, description="Attempts after a network failure, with growing pauses."
    )
    options: dict[str, Any] = Field(default_factory=dict, description="Passed to the ccxt exchange as it is.")


class IbConfig(Section):
    """Interactive Brokers, reached through a running TWS or IB Gateway."""

    host: str = Field(default="127.0.0.1", description="Where TWS or IB Gateway listens.")
    port: int = Field(
        default=4002, ge=1, le=65535, description="4002: paper gateway, 4001: live gateway, 7497/7496: TWS."
    )
    client_id: int = Field(
        default=17, ge=0, description="Distinct for each program connected to the gateway."
    )
    symbols: tuple[str, ...] = Field(
        default=(), description="Stock symbols, or TYPE:SYMBOL:EXCHANGE:CURRENCY."
    )
    exchange: str = Field(default="SMART", description="Exchange of plain stock symbols.")
    currency: str = Field(default="USD", description="Currency of plain stock symbols.")
    what_to_show: Literal["TRADES", "MIDPOINT", "BID", "ASK"] = Field(
        default="TRADES",
        description="Which prices; TRADES are split-adjusted by the broker and carry volume.",
    )
    regular_hours_only: bool = Field(default=True, description="Leave out bars outside the regular session.")
    start: Moment = Field(
        default="", description="First bar to fetch (ISO 8601, UTC); empty: one request's worth."
    )
    timeout_seconds: float = Field(default=60.0, gt=0, description="Limit for one request.")


class FeedConfig(Section):
    """The live feed over a source."""

    delay_seconds: float = Field(
        default=1.0, ge=0, description="Pause after a close before bars are asked for."
    )
    poll_seconds: float = Field(
        default=2.0, gt=0, description="Pause between questions while bars are missing."
    )
    deadline_seconds: float = Field(
        default=10.0,
        ge=0,
        description="How long after a close a symbol is waited for; then it counts as missing.",
    )
    overlap_bars: int = Field(
        default=2, ge=0, description="Newest bars asked for again, to notice late and corrected ones."
    )
    late_bars: int = Field(
        default=60, ge=0, description="How many bars back a missing bar is still looked for."
    )
    max_backoff_seconds: float = Field(
        default=60.0, gt=0, description="Longest pause between attempts to reconnect."
    )
    max_failures: int = Field(default=0, ge=0, description="Failures in a row that end the feed; 0: never.")
    max_clock_skew_seconds: float = Field(
        default=2.0, ge=0, description="Difference to the source's clock that is reported."
    )
    flush_bars: int = Field(
        default=500, ge=1, description="Bars in the local log that are moved to the table."
    )
    flush_seconds: float = Field(default=300.0, gt=0, description="Longest stay of a bar in the local log.")


class CustomConfig(Section):
    """Your own source: one Python file with one class or function."""

    factory: str = Field(
        default="", description="path/to/file.py:Name or package.module:Name; called with the options."
    )
    options: dict[str, Any] = Field(default_factory=dict, description="Keyword arguments of the factory.")


class SourceConfig(Section):
    """Where bars come from."""

    kind: Literal["sample", "files", "simulator", "ccxt", "ib", "custom"] = Field(
        default="sample", description="Which source; its settings stand in the part of the same name."
    )
    symbols: tuple[str, ...] = Field(
        default=(), description="Take only these symbols; empty: all that the source has."
    )
    start: Moment = Field(
        default="", description="Take bars that close after this time (ISO 8601, UTC); empty: from the first."
    )
    end: Moment = Field(
        default="", description="Take bars that close up to this time (ISO 8601, UTC); empty: to the last."
    )
    files: FilesConfig = Field(default=FilesConfig(), description="Settings of kind `files`.")
    simulator: SimulatorConfig = Field(default=SimulatorConfig(), description="Settings of kind `simulator`.")
    ccxt: CcxtConfig = Field(default=CcxtConfig(), description="Settings of kind `ccxt`.")
    ib: IbConfig = Field(default=IbConfig(), description="Settings of kind `ib`.")
    feed: FeedConfig = Field(default=FeedConfig(), description="Settings of the live feed.")
    custom: CustomConfig = Field(default=CustomConfig(), description="Settings of kind `custom`.")


class UniverseConfig(Section):
    """Which symbols exist, since when, on which calendar."""

    path: str = Field(
        default="",
        description="Universe file (YAML); empty: the packaged one for the sample, else all symbols seen.",
    )
    calendar: str = Field(
        default="XNYS",
        description="Calendar of symbols that the file does not place: 24/7 or an exchange_calendars name.",
    )
    currency: str = Field(default="USD", description="Currency of symbols that the file does not place.")


class QualityConfig(Section):
    """When data is good enough to go on. Critical breaches stop a run; the others are warnings."""

    max_gap_share: float = Field(
        default=0.02, ge=0, le=1, description="Critical: missing bars as a share of expected ones."
    )
    max_stale_bars: int = Field(
        default=0,
        ge=0,
        description="Warning: expected bars missing between the last bar and `as_of`; 0: not checked.",
    )
    max_off_calendar_share: float = Field(
        default=0.001, ge=0, le=1, description="Critical: bars whose close is not a close of the calendar."
    )
    max_constant_bars: int = Field(
        default=50,
        ge=1,
        description="Warning: longest run of bars with one unchanged close price and no range.",
    )
    max_jump_ratio: float = Field(
        default=4.0,
        gt=1,
        description="Warning: largest adjusted close over the previous one, or its inverse.",
    )
    min_bars: int = Field(
        default=62, ge=1, description="Warning: bars a symbol needs to be predicted at all."
    )
    clock_tolerance_seconds: float = Field(
        default=0.0,
        ge=0,
        description="How far after `as_of` a bar may close before it counts as from the future.",
    )
    max_null_share: float = Field(
        default=0.6, ge=0, le=1, description="Warning: nulls of a feature, warm-up included."
    )
    max_drift_psi: float = Field(
        default=0.5,
        gt=0,
        description="Warning: population stability index of a feature against the training reference.",
    )
    max_drifted_share: float = Field(
        default=0.5, gt=0, le=1, description="Critical: share of features beyond `max_drift_psi`."
    )
