"""The table of predictions that `barcast predict` and `barcast run` print."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

from rich.table import Table

from barcast.cli._console import console
from barcast.serving.types import Prediction

_NAMED = 10  # symbols a line names


def show(answers: Sequence[Prediction]) -> None:
    """Print one row per symbol, then what stood against trades, refusals and explanations in words."""
    out = console()
    table = Table(box=None, pad_edge=False)
    for name, side in (
        ("symbol", "left"), ("action", "left"), ("SELL", "right"), ("HOLD", "right"), ("BUY", "right"),
        ("confidence", "right"), ("exp. return", "right"), ("price", "right"), ("advice", "left"),
        ("model", "left"), ("features of (UTC)", "left"),
    ):  # fmt: skip
        table.add_column(name, justify=side, no_wrap=True)  # type: ignore[arg-type]
    for answer in answers:
        table.add_row(*_cells(answer))
    out.print(table)
    for line in _against(answers):
        out.print(line, markup=False)
    for answer in answers:
        if answer.status == "refused":
            out.print(f"{answer.symbol}: {answer.reason}", markup=False)
        elif answer.fallback is not None:
            reasons = "; ".join(answer.fallback.reasons)
            out.print(f"{answer.symbol}: answered by {answer.fallback.link} ({reasons})", markup=False)
        if answer.explanation is not None:
            out.print(f"\n{answer.symbol}: {answer.explanation.rationale}", markup=False)


def _against(answers: Sequence[Prediction]) -> Iterator[str]:
    """Why nothing is advised: a line for each rule that refused first, with its words where all symbols share them."""
    found: dict[str, dict[str, str]] = {}
    for answer in answers:
        if answer.decision is not None and answer.decision.refusals:
            first = answer.decision.refusals[0]
            found.setdefault(first.rule, {})[answer.symbol] = first.message
    for rule, messages in found.items():
        symbols = [*messages][:_NAMED] + (
            [f"{len(messages) - _NAMED} more"] if len(messages) > _NAMED else []
        )
        words = set(messages.values())
        yield f"no trade by {rule}: {', '.join(symbols)}" + (f". {words.pop()}" if len(words) == 1 else "")


def _cells(answer: Prediction) -> tuple[str, ...]:
    if answer.probabilities is None:
        return (answer.symbol, "refused", "", "", "", "", "", "", "", "", "")
    p, advice = answer.probabilities, answer.decision
    words = "" if advice is None else f"{advice.action} {advice.size:.1%}" if advice.size > 0 else "no trade"
    version = "" if answer.model_version is None else f" v{answer.model_version}"
    return (
        answer.symbol,
        str(answer.action),
        f"{p.SELL:.2f}",
        f"{p.HOLD:.2f}",
        f"{p.BUY:.2f}",
        f"{answer.confidence:.2f}",
        f"{math.expm1(answer.expected_return or 0.0):+.3%}",
        "" if answer.price is None else f"{answer.price:,.6g}",
        words,
        f"{answer.model_kind}{version}",
        f"{answer.feature_timestamp:%Y-%m-%d %H:%M}",
    )
