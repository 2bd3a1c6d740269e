"""Cron lines as crontab(5) writes them: minute, hour, day of month, month, day of week (0 and 7 are Sunday).

One reading for this machine's scheduler, which counts week days from Monday, and for the cluster's, which wants
seconds in front. Lines that the two would read differently are refused.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import Any

from barcast.errors import ConfigError

_DAYS = ("sun", "mon", "tue", "wed", "thu", "fri", "sat")
_ALIASES = {
    "@hourly": "0 * * * *",
    "@daily": "0 0 * * *",
    "@weekly": "0 0 * * 0",
    "@monthly": "0 0 1 * *",
    "@yearly": "0 0 1 1 *",
}


def fields(line: str) -> tuple[str, str, str, str, str]:
    """The five fields, with the days of the week as names.

    Raises:
        ConfigError: not five fields, a day of the week that there is not, or both kinds of days restricted (cron
            fires on either, and schedulers differ).
    """
    parts = _ALIASES.get(line.strip(), line).split()
    if len(parts) != 5:
        raise ConfigError(
            f"The cron line {line!r} has {len(parts)} fields.",
            hint="Give minute, hour, day of month, month and day of week, e.g. '30 6 * * 1-5'.",
        )
    minute, hour, day, month, weekday = parts
    if day not in ("*", "?") and weekday not in ("*", "?"):
        raise ConfigError(
            f"The cron line {line!r} restricts the day of the month and the day of the week.",
            hint="Give one of them and * for the other, or make two schedules.",
        )
    return minute, hour, day.replace("?", "*"), month, _weekdays(weekday, line)


def trigger(line: str, end: datetime | None = None, start: datetime | None = None) -> Any:
    """An APScheduler trigger in UTC that fires when cron would.

    Raises:
        ConfigError: the line cannot be read, or never fires.
    """
    from apscheduler.triggers.cron import CronTrigger

    minute, hour, day, month, weekday = fields(line)
    try:
        made = CronTrigger(
            minute=minute, hour=hour, day=day, month=month, day_of_week=weekday, timezone=UTC,
            start_date=start, end_date=end,
        )  # fmt: skip
    except (ValueError, TypeError) as error:
        raise ConfigError(
            f"The cron line {line!r} cannot be read: {error}.", hint="An example: '30 6 * * 1-5'."
        ) from error
    return made


def for_cluster(line: str) -> str:
    """The line as Kubeflow Pipelines wants it: six fields, seconds first."""
    minute, hour, day, month, weekday = fields(line)
    return f"0 {minute} {hour} {day} {month} {weekday.upper()}"


def _weekdays(field: str, line: str) -> str:
    if field in ("*", "?"):
        return "*"
    chosen: set[int] = set()
    for part in field.lower().split(","):
        found = re.fullmatch(r"(\*|[a-z]{3}|\d)(?:-([a-z]{3}|\d))?(?:/(\d+))?", part)
        if found is None:
            raise ConfigError(
                f"The cron line {line!r} has the day of the week {field!r}.", hint="Use 0-7 or sun-sat."
            )
        first, last, step = found.groups()
        low = 0 if first == "*" else _number(first, line)
        high = 6 if first == "*" or (step and not last) else _number(last, line) if last else low
        if high == 0 and low > 0:  # `fri-sun`: the week's end
            high = 7
        if high < low or (step is not None and int(step) == 0):
            raise ConfigError(f"The cron line {line!r} has the range {part!r}.", hint="Write it as a list.")
        chosen.update(n % 7 for n in range(low, high + 1, int(step or 1)))
    return ",".join(_DAYS[n] for n in sorted(chosen))


def _number(word: str, line: str) -> int:
    if word.isdigit() and int(word) <= 7:
        return int(word)
    if word in _DAYS:
        return _DAYS.index(word)
    raise ConfigError(f"The cron line {line!r} has the day of the week {word!r}.", hint="Use 0-7 or sun-sat.")
