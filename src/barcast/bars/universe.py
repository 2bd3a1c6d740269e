"""The universe: which symbols exist, from when to when, on which calendar, in which currency (a YAML file).

name: my-stocks
chosen_on: 2010-01-01          # when this list was made; later than the data begins = hindsight
calendar: XNYS                 # defaults of all symbols
currency: USD
symbols:
  AAPL: {listed: 1980-12-12}
  LEH: {listed: 1994-05-02, delisted: 2008-09-17}
  META: {listed: 2012-05-18, former_names: {FB: 2022-06-09}}   # FB until that day
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import date
from pathlib import Path

import polars as pl
import yaml
from pydantic import Field, ValidationError

from barcast.bars.calendar import Calendar
from barcast.config.bars import UniverseConfig
from barcast.config.base import Section
from barcast.errors import ConfigError, DataError, did_you_mean

_PACKAGED = Path(__file__).with_name("data") / "sample_universe.yaml"


class Listing(Section):
    """One symbol's life."""

    listed: date | None = Field(default=None, description="First trading day; empty: before the data begins.")
    delisted: date | None = Field(default=None, description="First day without trading; empty: still listed.")
    former_names: dict[str, date] = Field(
        default_factory=dict, description="Earlier names, each with the day from which the next name holds."
    )
    calendar: str = Field(default="", description="Calendar, if not the universe's.")
    currency: str = Field(default="", description="Currency of the prices, if not the universe's.")


class Universe(Section):
    """Symbols and their lives. `Universe.load` reads a file, `open_universe` follows the configuration."""

    name: str = Field(default="unnamed", description="For reports.")
    chosen_on: date | None = Field(default=None, description="When the list of symbols was made.")
    note: str = Field(default="", description="Shown in reports.")
    calendar: str = Field(default="XNYS", description="Calendar of symbols without their own.")
    currency: str = Field(default="USD", description="Currency of symbols without their own.")
    symbols: dict[str, Listing] = Field(
        default_factory=dict, description="The symbols by their present name."
    )

    @staticmethod
    def load(path: str | Path) -> Universe:
        """The universe in a YAML file.

        Raises:
            ConfigError: the file is missing, is no YAML, or says something that a universe does not have.
        """
        try:
            universe = Universe.model_validate(yaml.safe_load(Path(path).read_text()) or {})
        except FileNotFoundError as error:
            raise ConfigError(f"There is no universe file {path}.", hint="Correct universe.path.") from error
        except (yaml.YAMLError, ValidationError, UnicodeDecodeError) as error:
            raise ConfigError(
                f"The universe file {path} cannot be used: {error}", hint="See barcast.bars.universe."
            ) from error
        universe.check()
        return universe

    @staticmethod
    def packaged() -> Universe:
        """The universe of the packaged sample."""
        return Universe.load(_PACKAGED)

    def check(self) -> None:
        """Refuse lives that cannot be.

        Raises:
            ConfigError: delisted before listed, or one former name of two symbols on one day.
        """
        taken: dict[str, str] = {}
        for symbol, life in self.symbols.items():
            Calendar.of(life.calendar or self.calendar)
            if life.listed and life.delisted and life.delisted <= life.listed:
                raise ConfigError(
                    f"Universe {self.name}: {symbol} is delisted on {life.delisted},"
                    f" but listed on {life.listed}.",
                    hint="Delisting comes after listing.",
                )
            for former in life.former_names:
                if former in taken:
                    raise ConfigError(
                        f"Universe {self.name}: {former} is a former name of"
                        f" {taken[former]} and of {symbol}.",
                        hint="Keep the one that is right.",
                    )
                taken[former] = symbol

    def listing(self, symbol: str) -> Listing:
        """The life of a symbol.

        Raises:
            DataError: the universe does not have it.
        """
        if symbol not in self.symbols:
            raise DataError(
                f"Universe {self.name} has no symbol {symbol!r}.",
                hint=did_you_mean(symbol, self.symbols) or "Add it to the universe file.",
            )
        return self.symbols[symbol]

    def calendar_of(self, symbol: str) -> Calendar:
        """The symbol's calendar; the universe's for a symbol it does not know."""
        life = self.symbols.get(symbol)
        return Calendar.of((life.calendar if life else "") or self.calendar)

    def currency_of(self, symbol: str) -> str:
        """The symbol's currency; the universe's for a symbol it does not know."""
        life = self.symbols.get(symbol)
        return (life.currency if life else "") or self.currency

    def members(self, on: date) -> list[str]:
        """The symbols that were listed on a day, by their present name, sorted."""
        return sorted(
            symbol
            for symbol, life in self.symbols.items()
            if (life.listed is None or life.listed <= on) and (life.delisted is None or on < life.delisted)
        )

    def resolve(self, name: str, on: date) -> str:
        """The present name of the symbol that was called `name` on a day.

        Raises:
            DataError: nothing was called so.
        """
        for symbol, life in self.symbols.items():
            if name in life.former_names and on < life.former_names[name]:
                return symbol
        self.listing(name)
        return name

    def name_on(self, symbol: str, on: date) -> str:
        """What `symbol` was called on a day."""
        former = sorted(
            (until, name) for name, until in self.listing(symbol).former_names.items() if on < until
        )
        return former[0][1] if former else symbol

    def renamed(self, bars: pl.DataFrame) -> pl.DataFrame:
        """Bars under present names; at the source, bars before a renaming carry the former name."""
        pairs = [(f, s, until) for s, life in self.symbols.items() for f, until in life.former_names.items()]
        symbol = pl.col("symbol")
        for former, present, until in pairs:
            early = (pl.col("symbol") == former) & (day_of("event_timestamp") < until)
            symbol = pl.when(early).then(pl.lit(present)).otherwise(symbol)
        return bars.with_columns(symbol=symbol).sort("symbol", "event_timestamp")

    def hindsight(self, first: date) -> str:
        """A warning for reports if the list was made after `first`, the first day of the data; else empty."""
        if self.chosen_on is not None and self.chosen_on <= first:
            return ""
        when = f"on {self.chosen_on}" if self.chosen_on else "at an unknown date"
        gone = sum(1 for life in self.symbols.values() if life.delisted)
        return (
            f"Universe '{self.name}' was chosen in hindsight: {when}, after the data begins ({first})."
            f" Of its {len(self.symbols)} symbols {gone} were delisted; symbols that failed may be missing,"
            " so results flatter the past."
        )


def day_of(closes: str) -> pl.Expr:
    """The UTC day of bars, by the column of their closes: one that closes at midnight ends the day before."""
    return (pl.col(closes) - pl.duration(microseconds=1)).dt.date()


def open_universe(
    config: UniverseConfig, *, source_kind: str = "sample", symbols: Iterable[str] = ()
) -> Universe:
    """The configured universe: its file, the packaged one for the sample, else `symbols` without dates.

    Symbols that the file does not place have the configuration's calendar and currency.
    """
    if config.path:
        return _beside(Universe.load(config.path), config)
    if source_kind == "sample":
        return _beside(Universe.packaged(), config)
    universe = Universe(
        name="all symbols seen",
        calendar=config.calendar,
        currency=config.currency,
        symbols={symbol: Listing() for symbol in sorted(symbols)},
    )
    universe.check()
    return universe


def _beside(file: Universe, config: UniverseConfig) -> Universe:
    """The file's universe with the configuration's calendar and currency for what it leaves open."""
    said = {"calendar": config.calendar, "currency": config.currency}
    for name in said.keys() & file.model_fields_set:
        said[name] = getattr(file, name)
    symbols = {
        symbol: life.model_copy(
            update={
                "calendar": life.calendar or said["calendar"],
                "currency": life.currency or said["currency"],
            }
        )
        for symbol, life in file.symbols.items()
    }
    return file.model_copy(
        update={"calendar": config.calendar, "currency": config.currency, "symbols": symbols}
    )
