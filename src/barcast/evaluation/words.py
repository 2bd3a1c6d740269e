"""Numbers in words: how the report writes figures, and its honest first paragraph."""

from __future__ import annotations

import math
from collections.abc import Mapping
from datetime import datetime, timedelta

import numpy as np

from barcast.evaluation import baselines, frames
from barcast.evaluation.results import Evaluation

DASH = "–"
ONE_SIDED = 0.8  # share of bars with the same answer from which the first paragraph says so


def number(value: float | None, kind: str = "number") -> str:
    """A figure for people: "percent", "bps", "count", "money", "ratio" or "number"; a dash when undefined."""
    if value is None or math.isnan(value):
        return DASH
    if math.isinf(value):
        return "∞" if value > 0 else "-∞"
    if kind == "percent":
        return f"{value * 100:,.1f}%"
    if kind == "fine_percent":
        return f"{value * 100:,.2f}%"
    if kind == "bps":
        return f"{value:,.2f}"
    if kind == "count":
        return f"{value:,.0f}"
    if kind == "money":
        return _money(value)
    if kind == "ratio":
        return f"{value:.2f}"
    return f"{value:.3f}" if abs(value) < 100 else f"{value:,.0f}"


def _money(value: float) -> str:
    for size, letter in ((1e9, "bn"), (1e6, "m"), (1e3, "k")):
        if abs(value) >= size:
            return f"{value / size:,.1f}{letter}"
    return f"{value:,.0f}"


def span(low: float, high: float, kind: str) -> str:
    """An interval, "1.2 to 3.4"; empty when undefined."""
    return "" if math.isnan(low) or math.isnan(high) else f"{number(low, kind)} to {number(high, kind)}"


def day(moment: datetime) -> str:
    """2024-03-31, with the time of day where it is not midnight."""
    return moment.strftime("%Y-%m-%d" if (moment.hour, moment.minute) == (0, 0) else "%Y-%m-%d %H:%M UTC")


def window(times: tuple[datetime, datetime]) -> str:
    """2024-01-01 to 2024-06-30, with the times of day where it is shorter than two weeks."""
    if times[1] - times[0] >= timedelta(days=14):
        return f"{times[0]:%Y-%m-%d} to {times[1]:%Y-%m-%d}"
    return f"{day(times[0])} to {day(times[1])}"


def lede(evaluation: Evaluation) -> str:
    """The first paragraph: what was right, what it earned, what the baselines did, and what cannot be
    told.
    """
    name = evaluation.candidate
    ml, money = evaluation.metrics[name]["ml"], evaluation.metrics[name]["financial"]
    symbols = evaluation.rows[name]["symbol"].n_unique()
    sentences = [
        f"On {ml['rows']:,.0f} decisions for {symbols} symbol{'s' if symbols > 1 else ''} from "
        f"{window(evaluation.window)}, {name} was right {number(ml['accuracy'], 'percent')} of the time; "
        f"always answering the commonest class would have been right "
        f"{number(ml['majority_accuracy'], 'percent')}."
    ]
    sentences.append(_skill(ml))
    sentences.append(_money_words(evaluation, name, money))
    sentences.append(_one_sided(evaluation, name))
    sentences.append(_rivals(evaluation, name))
    return " ".join(s for s in sentences if s)


def _skill(ml: dict[str, float]) -> str:
    if ml["skill"] > 0:
        return f"Its probabilities carry {ml['skill'] * 100:.2f}% more information than the class shares do."
    return "Its probabilities say less than the plain class shares do: as forecasts they have no skill here."


def _money_words(evaluation: Evaluation, name: str, money: dict[str, float]) -> str:
    if money.get("trades", 0) == 0:
        return "It never traded, so there is nothing to earn or lose."
    verb = "made" if money["annual_return"] > 0 else "lost"
    hold = evaluation.metrics[baselines.BUY_AND_HOLD]["financial"]
    text = (
        f"Followed to the letter it would have {verb} {number(abs(money['annual_return']), 'percent')} a "
        f"year "
        f"after costs (Sharpe {number(money['sharpe'], 'ratio')}), while holding the same symbols "
        f"{'made' if hold['annual_return'] > 0 else 'lost'} {number(abs(hold['annual_return']), 'percent')}."
    )
    low, high = evaluation.intervals[name]["sharpe"]
    if math.isnan(low):
        return text
    if low <= 0 <= high:
        return text + f" The window cannot tell that Sharpe from zero ({span(low, high, 'ratio')})."
    if high < 0:
        return text + " That loss is beyond chance: do not trade it at these costs."
    return (
        text + f" That is beyond chance in this window ({span(low, high, 'ratio')}), which is not a promise."
    )


def _one_sided(evaluation: Evaluation, name: str) -> str:
    """A model that says nearly always the same earns what the market does; its return is no proof of skill."""
    said = np.bincount(frames.actions(evaluation.rows[name]), minlength=3) / evaluation.rows[name].height
    side = int(np.argmax(said))
    if said[side] < ONE_SIDED:
        return ""
    meaning = {
        frames.BUY: "what it made or lost is mostly the market's own move",
        frames.SELL: "what it made or lost is mostly the market's own move, turned",
        frames.HOLD: "it hardly traded",
    }[side]
    return f"It said {frames.CLASSES[side]} on {number(float(said[side]), 'percent')} of the bars: {meaning}."


def _rivals(evaluation: Evaluation, name: str) -> str:
    floor = (baselines.BUY_AND_HOLD, baselines.PERSISTENCE)
    loss = {m: evaluation.metrics[m]["ml"]["log_loss"] for m in evaluation.models if m not in floor}
    if len(loss) < 2:
        return ""
    best = min(loss, key=lambda m: loss[m])
    if best != name:
        return f"On the same rows {best} did better as a forecast (log loss {loss[best]:.4f} against {loss[name]:.4f})."
    second = min((m for m in loss if m != name), key=lambda m: loss[m])
    losses = f"log loss {loss[name]:.4f} against {loss[second]:.4f}"
    return f"On the same rows it forecasts better than {second} ({losses})."


def stability(figures: Mapping[str, float]) -> str:
    """`explain.stability` in a sentence."""
    return (
        f"Between those spans the ranking correlates {number(figures['rank_correlation'], 'ratio')}, and "
        f"{number(figures['top_overlap'], 'percent')} of the largest are the same."
    )
