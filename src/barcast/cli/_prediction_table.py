"""The table of predictions that `barcast predict` and `barcast run` print."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

from barcast.cli._console import console, show_table
from barcast.serving.types import Prediction

_NUMBERS = ("SELL", "HOLD", "BUY", "confidence", "exp. return", "price")
_COLUMNS = ("symbol", "action", *_NUMBERS, "advice", "model", "features of (UTC)")
_NAMED = 10  # symbols a line names


def show(answers: Sequence[Prediction]) -> None:
    """Print one row per symbol, then what stood against trades, refusals and explanations in words."""
    out = console()
    show_table(_COLUMNS, [_cells(answer) for answer in answers], right=_NUMBERS, out=out)
    for line in (*_against(answers), *_fallen_back(answers)):
        out.print(line, markup=False)
    for answer in answers:
        if answer.status == "refused":
            out.print(f"{answer.symbol}: {answer.reason}", markup=False)
        if answer.explanation is not None:
            out.print(f"\n{answer.symbol}: {answer.explanation.rationale}", markup=False)


def _fallen_back(answers: Sequence[Prediction]) -> Iterator[str]:
    """What answered in a model's place and why, a line for all symbols of which the same is true."""
    found: dict[str, list[str]] = {}
    for answer in answers:
        if answer.fallback is not None and answer.status != "refused":
            reasons = "; ".join(answer.fallback.reasons)
            found.setdefault(f"answered by {answer.fallback.link} ({reasons})", []).append(answer.symbol)
    for words, symbols in found.items():
        yield f"{words}: {_some(symbols)}"


def _some(symbols: Sequence[str]) -> str:
    more = len(symbols) - _NAMED
    return ", ".join([*symbols[:_NAMED], *([f"{more} more"] if more > 0 else [])])


def _against(answers: Sequence[Prediction]) -> Iterator[str]:
    """Why nothing is advised: a line for each rule that refused first, with its words where all symbols share them."""
    found: dict[str, dict[str, str]] = {}
    for answer in answers:
        if answer.decision is not None and answer.decision.refusals:
            first = answer.decision.refusals[0]
            found.setdefault(first.rule, {})[answer.symbol] = first.message
    for rule, messages in found.items():
        words = set(messages.values())
        yield f"no trade by {rule}: {_some([*messages])}" + (f". {words.pop()}" if len(words) == 1 else "")


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
