"""When a schedule fires: triggers made from a cron line, an interval or a moment, and said in few words."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from barcast import clock
from barcast.errors import ConfigError
from barcast.operations import cron as cron_lines


def make(
    *,
    cron: str | None = None,
    every: timedelta | None = None,
    at: datetime | None = None,
    until: datetime | None = None,
) -> Any:
    """An APScheduler trigger that will fire at least once after now.

    Raises:
        ConfigError: not exactly one of cron, every and at; the times lie in the past; it would never fire.
    """
    from apscheduler.triggers.date import DateTrigger
    from apscheduler.triggers.interval import IntervalTrigger

    if sum(given is not None for given in (cron, every, at)) != 1:
        raise ConfigError("A schedule needs one of cron, every and at.", hint="E.g. --cron '30 6 * * 1-5'.")
    now = clock.now()
    for word, moment in (("at", at), ("until", until)):
        if moment is not None and moment <= now:
            raise ConfigError(
                f"The schedule lies in the past: {word} {moment:%Y-%m-%d %H:%M:%S} UTC, now is "
                f"{now:%Y-%m-%d %H:%M:%S} UTC.",
                hint="Give a time to come.",
            )
    if at is not None:
        return DateTrigger(at, timezone=UTC)
    if every is not None:
        if every < timedelta(seconds=1):
            raise ConfigError(f"The interval {every} is too short.", hint="Give a second at least.")
        made = IntervalTrigger(seconds=int(every.total_seconds()), end_date=until, timezone=UTC)
    else:
        made = cron_lines.trigger(cron or "", end=until)
    if made.get_next_fire_time(None, now) is None:
        what = f"{cron!r}" if cron is not None else f"every {every}"
        limit = f" until {until:%Y-%m-%d %H:%M:%S} UTC" if until is not None else ""
        raise ConfigError(
            f"The schedule {what}{limit} never fires.", hint="Check day and month (30 February never comes)."
        )
    return made


def when(trigger: Any) -> str:
    """A trigger in few words: a cron line, `every 1:00:00`, or the moment."""
    from apscheduler.triggers.cron import CronTrigger
    from apscheduler.triggers.interval import IntervalTrigger

    if isinstance(trigger, IntervalTrigger):
        return f"every {trigger.interval}"
    if isinstance(trigger, CronTrigger):
        field = {f.name: str(f) for f in trigger.fields}
        return " ".join(field[name] for name in ("minute", "hour", "day", "month", "day_of_week"))
    return f"at {trigger.run_date:%Y-%m-%d %H:%M:%S} UTC"
