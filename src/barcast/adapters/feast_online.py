"""Rows and windows on their way to and from Feast's online store.

Out: arrays become Feast's protobuf values, handed to `OnlineStore.online_write_batch` (Feast's interface for
writers; `push` ends there too, after 30-50 ms of pandas). In: one record holds the window; its bytes become
an array without a copy, and its age is judged here, since Feast applies no TTL online.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import numpy as np
import numpy.typing as npt
from feast.protos.feast.types.EntityKey_pb2 import EntityKey
from feast.protos.feast.types.Value_pb2 import Value

from barcast import intervals
from barcast.adapters.feast_definitions import SYMBOL, WINDOW, WINDOW_CREATED, WINDOW_END
from barcast.bars.calendar import Calendar
from barcast.errors import DataError, ServingError

Record = tuple[EntityKey, dict[str, Value], datetime, datetime | None]
Float32 = npt.NDArray[np.float32]
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_LITTLE = np.dtype("<f4")


@dataclass(frozen=True, eq=False)
class OnlineRow:
    """What the online store knows of a symbol.

    Attributes:
        symbol: whose.
        event_timestamp: close of the window's last bar, UTC.
        created_timestamp: when the newest bar or correction in the window was known.
        row: float32 (F,), the window's last row.
        window: float32 (T, F), oldest bar first; read-only.
        age: time between `event_timestamp` and the moment asked about.
        stale: whether more bars have closed since than the configuration accepts.
    """

    symbol: str
    event_timestamp: datetime
    created_timestamp: datetime
    row: Float32
    window: Float32
    age: timedelta
    stale: bool


class StaleWindowError(ServingError):
    """A window is too old to predict from."""


class MissingWindowError(ServingError):
    """The online store holds no window of a symbol."""


def entity_key(symbol: str) -> EntityKey:
    """Feast's key of a symbol."""
    return EntityKey(join_keys=[SYMBOL], entity_values=[Value(string_val=symbol)])


def row_records(
    symbols: Sequence[str],
    ends: Sequence[datetime],
    created: Sequence[datetime],
    names: Sequence[str],
    values: Float32,
) -> list[Record]:
    """One record a row of `values` float32 (n, len(names))."""
    return [
        (entity_key(symbol), {n: Value(float_val=v) for n, v in zip(names, row, strict=True)}, end, known)
        for symbol, end, known, row in zip(symbols, ends, created, values.tolist(), strict=True)
    ]


def window_records(
    symbols: Sequence[str], ends: Sequence[datetime], created: Sequence[datetime], windows: Float32
) -> list[Record]:
    """One record a window, float32 (n, T, F) written little-endian."""
    whole = np.ascontiguousarray(windows, dtype=_LITTLE)
    return [
        (
            entity_key(symbol),
            {
                WINDOW: Value(bytes_val=window.tobytes()),
                WINDOW_END: Value(int64_val=micros(end)),
                WINDOW_CREATED: Value(int64_val=micros(known)),
            },
            end,
            known,
        )
        for symbol, end, known, window in zip(symbols, ends, created, whole, strict=True)
    ]


def read_window(
    symbol: str, values: Mapping[str, Value], shape: tuple[int, int]
) -> tuple[datetime, datetime, Float32]:
    """Event time, created time and window of a record.

    Raises:
        DataError: the bytes do not make up a window of this shape (another feature set or look-back).
    """
    payload = values[WINDOW].bytes_val
    expected = shape[0] * shape[1] * _LITTLE.itemsize
    if len(payload) != expected:
        raise DataError(
            f"The stored window of {symbol!r} has {len(payload)} bytes, expected {expected} for "
            f"{shape[0]} bars of {shape[1]} features.",
            hint="It was written by another generation or look-back: materialise the features again.",
        )
    window = np.frombuffer(payload, dtype=_LITTLE).reshape(shape)
    return moment(values[WINDOW_END].int64_val), moment(values[WINDOW_CREATED].int64_val), window


def micros(time: datetime) -> int:
    """Microseconds since 1970 of an aware time."""
    return (time - _EPOCH) // timedelta(microseconds=1)


def moment(micros_since_1970: int) -> datetime:
    """The aware UTC time of a number of microseconds since 1970."""
    return _EPOCH + timedelta(microseconds=micros_since_1970)


class Freshness:
    """Judges whether a window is still good to predict from: by bars closed since, on the symbol's calendar.

    A Friday close is fresh on Sunday and on Monday morning, a crypto window of an hour ago is not.

    Args:
        interval: bar interval.
        max_age_bars: bars that may have closed since the window's last one.
        calendar: gives the calendar of a symbol.
    """

    def __init__(self, interval: str, max_age_bars: int, calendar: Callable[[str], Calendar]) -> None:
        self._interval = interval
        self._step = intervals.parse(interval)
        self._max_age_bars = max_age_bars
        self._calendar = calendar
        self._until: dict[tuple[str, datetime], datetime] = {}

    def good_until(self, symbol: str, end: datetime) -> datetime:
        """The close of the first bar that makes a window ending at `end` stale."""
        calendar = self._calendar(symbol)
        key = (calendar.name, end)
        if key not in self._until:
            if len(self._until) > 10_000:
                self._until.clear()
            moment = end
            for _ in range(self._max_age_bars + 1):
                moment = calendar.next_close(moment, self._interval)
            self._until[key] = moment
        return self._until[key]

    def stale(self, symbol: str, end: datetime, as_of: datetime) -> bool:
        """Whether a window ending at `end` is too old at `as_of`."""
        if as_of < end + self._step:  # the usual case, without the calendar
            return self._max_age_bars < 0
        return as_of >= self.good_until(symbol, end)
