"""The model card (D9): one Markdown page per registered version, rendered from its metadata.

After Mitchell et al., "Model cards for model reporting" (2019). A plain mapping of what the registry keeps
comes in, so that a card can be rendered again from the registry alone.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from barcast.evaluation.words import number

# what a reader looks for, with the words and the unit of the report
_METRICS = (
    ("ml_accuracy", "Right answers", "percent"),
    ("ml_majority_accuracy", "Always the commonest class", "percent"),
    ("ml_log_loss", "Log loss", "number"),
    ("ml_log_loss_prior", "Log loss of the class shares", "number"),
    ("ml_ece", "Calibration error", "percent"),
    ("ml_mcc", "Matthews correlation", "number"),
    ("ml_rank_ic", "Rank correlation with the return", "number"),
    ("financial_annual_return", "Return a year, after costs", "percent"),
    ("financial_sharpe", "Sharpe, after costs", "ratio"),
    ("financial_max_drawdown", "Deepest fall", "percent"),
    ("financial_break_even_bps", "Break-even cost, bps one way", "bps"),
    ("operational_latency_ms_p50", "One answer in process, median ms", "ratio"),
    ("operational_size_mib", "Files, MiB", "ratio"),
)
ALWAYS_TRUE = (
    "Measured on past bars; markets change, and nothing here is advice to trade.",
    "Answers hold for the interval, horizon and symbols named above only.",
    "A confidence is calibrated over all rows of the calibration slice, not for each regime apart.",
)


def render(metadata: Mapping[str, Any]) -> str:
    """The card as Markdown.

    Args:
        metadata: name, kind, symbol, interval, horizon_bars, data (mapping), architecture (mapping), training
            (mapping), features (list), selected_features (those that the model reads), metrics (flat mapping as
            `Evaluation.flat_metrics`, and `operational_...`), baselines (model -> flat mapping), reliability (mapping
            of `Reliability.to_dict`, or the index alone), limits (list of sentences), made (mapping: what identifies
            configuration, code and files).
            Whatever is missing is said to be missing.
    """
    out = [f"# Model card: {metadata.get('name', 'unnamed model')}", "", _summary(metadata), ""]
    out += ["## Intended use", "", _use(metadata)]
    out += ["", "## Metrics out of sample", "", *_metrics(metadata)]
    out += ["", "## Reliability", "", *_reliability(metadata.get("reliability"))]
    limits = [*(metadata.get("limits") or ()), *ALWAYS_TRUE]
    out += ["", "## Limits", "", *(f"- {x}" for x in limits)]
    for title, key in (
        ("Data", "data"),
        ("Architecture", "architecture"),
        ("Training", "training"),
        ("What made it", "made"),
    ):
        out += ["", f"## {title}", "", *_pairs(metadata.get(key))]
    # the longest part last: MLflow's pages cut a description
    features = _features(metadata.get("features"), metadata.get("selected_features"))
    out += ["", "## Features", "", *features, ""]
    return "\n".join(out)


def _use(metadata: Mapping[str, Any]) -> str:
    symbol = metadata.get("symbol")
    whom = (
        f"`{symbol}`" if symbol else "every symbol of the workspace, and symbols without a model of their own"
    )
    ahead = (
        f"{metadata['horizon_bars']} bars of {metadata['interval']} ahead"
        if metadata.get("horizon_bars") and metadata.get("interval")
        else "over the configured horizon"
    )
    return (
        f"SELL, HOLD or BUY with a calibrated confidence for {whom}, {ahead}, "
        "as one input of a decision with risk controls."
    )


def _summary(metadata: Mapping[str, Any]) -> str:
    metrics = metadata.get("metrics") or {}
    kind = str(metadata.get("kind", "model"))
    article = "An" if kind[0] in "aeiou" else "A"
    accuracy, base = metrics.get("ml_accuracy"), metrics.get("ml_majority_accuracy")
    if accuracy is None or base is None:
        return f"{article} {kind}. It has not been evaluated."
    word = (
        "more often than" if accuracy > base else ("as often as" if accuracy == base else "less often than")
    )
    return (
        f"{article} {kind}. Out of sample it was right {number(accuracy, 'percent')} of the time, {word} always "
        f"answering the commonest class ({number(base, 'percent')})."
    )


def _pairs(values: Mapping[str, Any] | None) -> list[str]:
    if not values:
        return ["Not recorded."]
    return ["| | |", "|---|---|", *(f"| {_cell(k)} | {_cell(v)} |" for k, v in values.items())]


def _cell(value: Any) -> str:
    if isinstance(value, float):
        text = number(value)
    elif isinstance(value, (list, tuple)):
        text = ", ".join(str(v) for v in value)
    else:
        text = str(value)
    return text.replace("|", "\\|").replace("\n", " ")


def _features(names: Sequence[str] | None, selected: Sequence[str] | None) -> list[str]:
    if not names:
        return ["Not recorded."]
    given = [f"{len(names)} features, in this order:", "", ", ".join(f"`{n}`" for n in names)]
    if not selected or len(selected) == len(names):
        return given
    reads = [f"It reads {len(selected)} of them:", "", ", ".join(f"`{n}`" for n in selected), ""]
    return [*reads, f"It is given {given[0]}", *given[1:]]


def _metrics(metadata: Mapping[str, Any]) -> list[str]:
    metrics = metadata.get("metrics")
    if not metrics:
        return ["Not recorded."]
    baselines: Mapping[str, Mapping[str, float]] = metadata.get("baselines") or {}
    lines = [
        "| | this model | " + "".join(f"{b} | " for b in baselines),
        "|---|---:|" + "---:|" * len(baselines),
    ]
    for key, words, kind in _METRICS:
        if key in metrics:
            cells = [metrics[key], *(b.get(key, math.nan) for b in baselines.values())]
            lines.append(f"| {words} | " + " | ".join(number(float(c), kind) for c in cells) + " |")
    return lines


def _reliability(reliability: Mapping[str, Any] | float | None) -> list[str]:
    if reliability is None:
        return ["Not computed."]
    if isinstance(reliability, (int, float)):
        return [f"Index **{reliability:.2f}** of 1."]
    parts = reliability.get("parts", {})
    unknown = reliability.get("unknown") or ()
    lines = [f"Index **{reliability['index']:.2f}** of 1 ({reliability.get('word', '')})."]
    lines += ["", "| part | value |", "|---|---:|"]
    lines += [
        f"| {k.replace('_', ' ')} | {'not known' if k in unknown else f'{v:.2f}'} |" for k, v in parts.items()
    ]
    return lines
