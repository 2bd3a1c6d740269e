"""B3 on higher intervals: hours and days on intraday bars, weeks and months on daily ones; closed ones only.

A higher bar is closed by the bar that ends it, or by the first bar after it where that one is missing. The first higher
bar of a history may have begun before it, so it is left out.
"""

# numba compiles the kernels and infers their types
# mypy: disable-error-code="no-untyped-def"
# ruff: noqa: E501  # a feature is one line of its table

from __future__ import annotations

import math

from barcast.features.compiling import njit
from barcast.features.kernels import TINY, clip
from barcast.features.series import DAY, HOUR, C, H, L, O
from barcast.features.spec import Category

higher = Category("price_action")

_MURPHY = "Murphy, Technical Analysis of the Financial Markets (1999), several time frames"
_NEUTRAL = "; 0 until six are closed"


def _level(prefix: str, what: str) -> tuple[tuple[str, str, int, str, str], ...]:
    return (
        (f"{prefix}_available", f"1 once six {what} are closed", 1, "flag", _MURPHY),
        (f"{prefix}_return_1", f"log return of the last of the closed {what}{_NEUTRAL}", 1, "log return", _MURPHY),
        (f"{prefix}_return_4", f"log return over the last four closed {what}{_NEUTRAL}", 1, "log return", _MURPHY),
        (f"{prefix}_position", f"place of the close within the range of the last of the closed {what}, within -2..3{_NEUTRAL}", 1, "share", _MURPHY),
        (f"{prefix}_distance", f"log of the close by the close of the last of the closed {what}{_NEUTRAL}", 1, "log return", _MURPHY),
        (f"{prefix}_body", f"body by range of the last of the closed {what}{_NEUTRAL}", 1, "-1..1", _MURPHY),
        (f"{prefix}_volatility_5", f"root mean square log return of the last five closed {what}{_NEUTRAL}", 1, "log return", _MURPHY),
    )  # fmt: skip


SIZE = 16  # state of a level: 0 id, 1 begun, 2-5 running open high low close, 6-9 last closed, 10-15 closed closes, newest first


@njit
def level(x, t, bucket, n, s, at, out, first):
    """One higher interval: bucket is its row of x (the next row tells where it ends), s[at:] its state."""
    c = x[C, t]
    now = x[bucket, t]
    if n == 1:
        s[at + 1] = -1.0  # closed bars; the first does not count
    elif s[at] != now and s[at + 2] > 0.0:
        close_level(s, at)
    s[at] = now
    if s[at + 2] == 0.0:
        s[at + 2], s[at + 3], s[at + 4] = x[O, t], x[H, t], x[L, t]
    s[at + 3], s[at + 4], s[at + 5] = max(s[at + 3], x[H, t]), min(s[at + 4], x[L, t]), c
    if x[bucket + 1, t] > 0.0:
        close_level(s, at)
    for j in range(7):
        out[first + j] = 0.0
    if s[at + 1] < 6.0:
        return
    out[first] = 1.0
    out[first + 1] = math.log(s[at + 10] / s[at + 11])
    out[first + 2] = math.log(s[at + 10] / s[at + 14])
    span = s[at + 7] - s[at + 8]
    if span > TINY * c:
        out[first + 3] = clip((c - s[at + 8]) / span, -2.0, 3.0)
        out[first + 5] = (s[at + 9] - s[at + 6]) / span
    else:
        out[first + 3] = 0.5
    out[first + 4] = math.log(c / s[at + 10])
    a = 0.0
    for j in range(5):
        r = math.log(s[at + 10 + j] / s[at + 11 + j])
        a += r * r
    out[first + 6] = math.sqrt(a / 5.0)


@njit
def close_level(s, at):
    """The running higher bar is complete: it becomes the last closed one."""
    s[at + 1] += 1.0
    if s[at + 1] > 0.0:
        for j in range(4):
            s[at + 6 + j] = s[at + 2 + j]
        for j in range(15, 10, -1):
            s[at + j] = s[at + j - 1]
        s[at + 10] = s[at + 5]
    s[at + 2] = 0.0


@higher.group(
    *_level("hour", "hours from the session's open (four at a time from 30-minute bars up)"), *_level("day", "sessions"), state=2 * SIZE, intervals="intraday"
)  # fmt: skip
def hours_and_days(x, t, n, s, out):
    level(x, t, HOUR, n, s, 0, out, 0)
    level(x, t, DAY, n, s, SIZE, out, 7)


@higher.group(*_level("week", "weeks"), *_level("month", "months"), state=2 * SIZE, intervals="daily")
def weeks_and_months(x, t, n, s, out):
    level(x, t, HOUR, n, s, 0, out, 0)
    level(x, t, DAY, n, s, SIZE, out, 7)
