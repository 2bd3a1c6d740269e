"""Bar intervals: "1m", "5m", "1h", "1d" and their like."""

from __future__ import annotations

import re
from datetime import timedelta

from barcast.errors import ConfigError

_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400}


def parse(interval: str) -> timedelta:
    """The length of an interval such as "5m".

    Raises:
        ConfigError: the text is not a positive whole number followed by s, m, h or d.
    """
    match = re.fullmatch(r"([1-9]\d*)([smhd])", interval)
    if match is None:
        raise ConfigError(
            f"Interval {interval!r} is not understood.", hint="Write it like '1m', '5m', '1h' or '1d'."
        )
    try:
        return timedelta(seconds=int(match[1]) * _UNITS[match[2]])
    except OverflowError:
        raise ConfigError(
            f"Interval {interval!r} is longer than time itself.",
            hint="Write it like '1m', '5m', '1h' or '1d'.",
        ) from None


def seconds(interval: str) -> int:
    """The length of an interval in seconds."""
    return int(parse(interval).total_seconds())


def is_intraday(interval: str) -> bool:
    """Whether several bars of this interval close on one day."""
    return seconds(interval) < 86400
