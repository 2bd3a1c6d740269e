"""Sources of bars: `open_source(config.source, ...)` gives the configured one."""

from __future__ import annotations

import importlib
import importlib.util
import sys
from collections.abc import Callable, Sequence
from datetime import datetime
from pathlib import Path

import polars as pl

from barcast.bars.calendar import Calendar
from barcast.bars.calendars import Calendars
from barcast.bars.sources.base import Source, between, selected
from barcast.clock import instant
from barcast.config.bars import CustomConfig, SourceConfig
from barcast.errors import ConfigError, DataError

__all__ = ["Source", "open_source", "between", "instant", "selected"]


def open_source(
    config: SourceConfig,
    *,
    interval: str = "1d",
    calendar: str = "XNYS",
    calendars: Calendars | None = None,
) -> Source:
    """The source that `config.kind` names, limited to `config.symbols`, `config.start` and `config.end`.

    Args:
        config: section `source`.
        interval: the workspace's interval.
        calendar: the default calendar (section `universe`), which closes daily bars.
        calendars: gives each symbol's calendar, for files that hold symbols of several; None: `calendar` for all.

    Raises:
        ConfigError: a setting that this source needs is missing or wrong.
        DataError: the source's data is not there.
    """
    return _Limited(_open(config, interval, calendar, calendars or Calendar.of(calendar)), config)


def _open(config: SourceConfig, interval: str, calendar: str, calendars: Calendars) -> Source:
    if config.kind == "sample":
        from barcast.bars.sources.sample import SampleSource

        return SampleSource(interval)
    if config.kind == "files":
        from barcast.bars.sources.files import FilesSource

        return FilesSource(config.files, interval, calendars)
    if config.kind == "simulator":
        from barcast.bars.sources.simulator import SimulatorSource

        return SimulatorSource(config.simulator, interval, calendar)
    if config.kind == "ccxt":
        from barcast.adapters.ccxt import CcxtSource

        return CcxtSource(config.ccxt, interval, calendar)
    if config.kind == "ib":
        from barcast.adapters.ib import IbSource

        return IbSource(config.ib, interval, calendar)
    return _custom(config.custom, interval, calendar)


class _Limited:
    """A source seen through the configuration's symbols and times."""

    def __init__(self, source: Source, config: SourceConfig) -> None:
        self.inner = source
        self._symbols = config.symbols
        self._start = instant(config.start, "source.start")
        self._end = instant(config.end, "source.end")

    def symbols(self) -> list[str]:
        return selected(self.inner.symbols(), self._symbols or None)

    def fetch(
        self, symbols: Sequence[str] | None = None, start: datetime | None = None, end: datetime | None = None
    ) -> pl.DataFrame:
        wanted = selected(self.symbols(), symbols)
        starts = [t for t in (start, self._start) if t is not None]
        ends = [t for t in (end, self._end) if t is not None]
        return self.inner.fetch(wanted, max(starts, default=None), min(ends, default=None))


def _custom(config: CustomConfig, interval: str, calendar: str) -> Source:
    """The user's own source: `factory(interval=..., calendar=..., **options)`."""
    if not config.factory:
        raise ConfigError(
            "source.kind is custom, but source.custom.factory is empty.", hint="Write path/to/file.py:Name."
        )
    factory = load_object(config.factory)
    source: object = factory(interval=interval, calendar=calendar, **config.options)
    if not isinstance(source, Source):
        raise DataError(
            f"{config.factory} made a {type(source).__name__} without `symbols` and `fetch`.",
            hint="See docs/guides/add-a-source.md.",
        )
    return source


def load_object(reference: str) -> Callable[..., object]:
    """The object named `path/to/file.py:Name` or `package.module:Name`.

    Raises:
        ConfigError: no such file, module or name.
    """
    module_name, _, name = reference.rpartition(":")
    try:
        if module_name.endswith(".py"):
            spec = importlib.util.spec_from_file_location(Path(module_name).stem, module_name)
            assert spec is not None
            assert spec.loader is not None
            module = importlib.util.module_from_spec(spec)
            sys.modules[spec.name] = module
            spec.loader.exec_module(module)
        else:
            module = importlib.import_module(module_name)
        found: Callable[..., object] = getattr(module, name)
    except (ImportError, AttributeError, FileNotFoundError, ValueError) as error:
        raise ConfigError(
            f"{reference!r} cannot be loaded: {error}.",
            hint="Write path/to/file.py:Name or package.module:Name.",
        ) from error
    return found
