"""Bars: where they come from, where they are kept, when a market is open, whether the data is good enough."""

from barcast.bars.calendar import Calendar
from barcast.bars.calendars import calendars_of
from barcast.bars.schema import BARS, adjusted

__all__ = ["BARS", "Calendar", "adjusted", "calendars_of"]
