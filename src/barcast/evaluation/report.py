"""The report of a run: one self-contained HTML page, and the same as Markdown for a pull request.

`Evaluation` and `Context` (verdicts, learning curves, importance, facts of the run) in; text out. No file is
written.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import polars as pl

from barcast.evaluation import baselines, report_tables, words
from barcast.evaluation.gate_types import Verdict
from barcast.evaluation.results import Evaluation
from barcast.evaluation.words import number

_WORD = {"promote": "Promote", "keep": "Keep the incumbent", "hold": "Hold for a person"}


@dataclass(frozen=True)
class Context:
    """What the report shows besides the evaluation.

    Attributes:
        title: head of the page.
        verdicts: of the gate, one per model judged in this run.
        learning_curves: model -> {"train_loss": [...], "validation_loss": [...]}, per epoch.
        importance: columns feature, importance and, where known, spread (over folds), any order.
        importance_words: how the importance was measured.
        shuffled: permutation importance, columns as in importance, and shuffled_words: how it was measured.
        attention: mean attention weight of each bar of the window, oldest first.
        operational: what each model costs: trained_model, parameters, training_seconds, latency_ms_p50, ...
        slices: table of the sliced analysis (`blessing.Blessing.table`), blessing: its sentence.
        ladder: `training.symbols.ladder`: log loss of what could answer for each symbol.
        facts: what identifies the run (data version and hash, configuration hash, code version, seeds, ...).
        notes: further sentences, such as dropped rows or a universe chosen in hindsight.
    """

    title: str = "Evaluation"
    verdicts: Sequence[Verdict] = ()
    learning_curves: Mapping[str, Mapping[str, Sequence[float]]] = field(default_factory=dict)
    importance: pl.DataFrame | None = None
    importance_words: str = "Rise of log loss when a feature is shuffled."
    shuffled: pl.DataFrame | None = None
    shuffled_words: str = "Rise of log loss when a feature is shuffled."
    attention: Sequence[float] = ()
    operational: pl.DataFrame | None = None
    slices: pl.DataFrame | None = None
    blessing: str = ""
    ladder: pl.DataFrame | None = None
    facts: Mapping[str, Any] = field(default_factory=dict)
    notes: Sequence[str] = ()


def render(evaluation: Evaluation, context: Context | None = None) -> str:
    """The whole page as HTML; it loads nothing from outside."""
    import jinja2

    context = context or Context()
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("barcast.evaluation"),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.globals["table"] = _html_table
    return environment.get_template("report.html.j2").render(**_view(evaluation, context))


def _view(evaluation: Evaluation, context: Context) -> dict[str, Any]:
    name = evaluation.candidate
    symbols = evaluation.rows[name]["symbol"].unique().sort().to_list()
    shown = ", ".join(symbols[:8]) + (f" and {len(symbols) - 8} more" if len(symbols) > 8 else "")
    costs = evaluation.costs
    return {
        "title": context.title,
        "subtitle": " · ".join(
            (name, shown, words.window(evaluation.window), f"horizon {evaluation.horizon_bars} bars")
        ),
        "lede": words.lede(evaluation),
        "verdicts": [_verdict(v) for v in context.verdicts],
        "cards": _cards(evaluation),
        "block_days": f"{evaluation.block_days:.3g}",
        "notes": evaluation.notes,
        "extra_notes": list(context.notes),
        "charts": _charts(evaluation, context),
        "legend": _legend(evaluation),
        "rival": _rival(evaluation),
        "candidate": name,
        "cost_words": (
            f"Equal capital per symbol, decided at a bar's close, traded at the next bar's "
            f"{costs.trade_at.removeprefix('next_')}; {costs.one_way * 1e4:.3g} bps per side, "
            f"{'short sales pay borrow' if costs.side == 'short' else 'no short sales'}."
        ),
        "models": evaluation.models,
        "comparison": report_tables.comparison(evaluation),
        "tables": report_tables.tables(evaluation, context.slices, context.operational, context.ladder),
        "confusion": _confusion(evaluation),
        "paid_bps": f"{costs.one_way * 1e4:.3g}",
        "blessing": context.blessing,
        "learning_names": ", ".join(context.learning_curves),
        "importance_words": context.importance_words,
        "shuffled_words": context.shuffled_words,
        "method": (
            "Every row was scored by a model that had seen no label ending after the row's bar. All models "
            "answer for the same rows. An order decided at a close trades at the next bar, and positions "
            "overlap so that the account holds what the labels measure. Intervals come from resampling "
            "blocks of calendar time with all symbols together, because they move together."
        ),
        "facts": [(k, str(v)) for k, v in context.facts.items()],
    }


def _verdict(v: Verdict) -> dict[str, Any]:
    marks = {True: ("passed", "ok"), False: ("failed", "fail"), None: ("not done", "none")}
    against = f"{v.candidate} against {v.incumbent}" if v.incumbent else v.candidate
    return {
        "outcome": v.outcome,
        "word": _WORD[v.outcome],
        "headline": f"{against}. {v.reasons[0]}",
        "rest": v.reasons[1:],
        "failed": sum(c.passed is False for c in v.checks),
        "checks": [
            {"name": c.name, "word": marks[c.passed][0], "css": marks[c.passed][1], "detail": c.detail}
            for c in v.checks
        ],
    }


def _cards(evaluation: Evaluation) -> list[dict[str, str]]:
    name = evaluation.candidate
    ml, money = evaluation.metrics[name]["ml"], evaluation.metrics[name]["financial"]
    intervals = evaluation.intervals[name]
    lo, hi = intervals["accuracy"]
    nl, nh = intervals["net_bps_per_row"]
    sl, sh = intervals["sharpe"]
    ll, lh = intervals["log_loss"]

    net = net_bps(evaluation, name)

    def sign(value: float, low: float, high: float) -> str:
        """Colour only what chance does not explain."""
        return "" if math.isnan(low) or low <= 0 <= high else ("pos" if value > 0 else "neg")

    cards = (
        ("Right answers", number(ml["accuracy"], "percent"), words.span(lo, hi, "percent"), ""),
        ("Log loss", number(ml["log_loss"]), words.span(ll, lh, "number"), ""),
        ("Calibration error", number(ml["ece"], "percent"), "0% is perfect", ""),
        (
            "Return a year, net",
            number(money["annual_return"], "percent"),
            f"deepest fall {number(money['max_drawdown'], 'percent')}",
            "",
        ),
        (
            "Sharpe, net",
            number(money["sharpe"], "ratio"),
            words.span(sl, sh, "ratio"),
            sign(money["sharpe"], sl, sh),
        ),
        ("Net bps a decision", number(net, "bps"), words.span(nl, nh, "bps"), sign(net, nl, nh)),
    )
    return [dict(zip(("name", "value", "range", "css"), card, strict=True)) for card in cards]


def net_bps(evaluation: Evaluation, model: str) -> float:
    """Mean net return per decision of a model, in bps."""
    table = evaluation.tables[model]["by_symbol"]
    return float(np.average(table["net_bps_per_row"].to_numpy(), weights=table["rows"].to_numpy()))


def _curve_names(evaluation: Evaluation, most: int = 6) -> list[str]:
    """The models drawn: buy-and-hold always, the rest in order."""
    names = [m for m in evaluation.models if m not in (baselines.BUY_AND_HOLD, baselines.PERSISTENCE)]
    tail = [m for m in (baselines.BUY_AND_HOLD, baselines.PERSISTENCE) if m in evaluation.models]
    return [*names[: most - len(tail)], *tail]


def _rival(evaluation: Evaluation) -> str | None:
    """What the candidate's account is held against: the present champion, else the linear baseline."""
    return next((m for m in ("champion", "linear") if m in evaluation.models[1:]), None)


def _legend(evaluation: Evaluation) -> list[dict[str, str]]:
    from barcast.evaluation import charts

    return [{"name": n, "css": charts.css_variable(k)} for k, n in enumerate(_curve_names(evaluation))]


def _charts(evaluation: Evaluation, context: Context) -> dict[str, str]:
    from barcast.evaluation import charts

    name = evaluation.candidate
    tables = evaluation.tables
    rivals = [m for m in evaluation.models if m not in (baselines.BUY_AND_HOLD, baselines.PERSISTENCE)]
    covered = tables[name]["coverage"]
    out = {
        "equity": charts.equity_and_drawdown(
            {
                m: (
                    evaluation.backtests[m]
                    .portfolio["event_timestamp"]
                    .dt.replace_time_zone(None)
                    .to_numpy(),
                    evaluation.backtests[m].portfolio["equity"].to_numpy(),
                )
                for m in _curve_names(evaluation)
            }
        ),
        "calibration": charts.calibration({m: tables[m]["reliability"].to_dicts() for m in rivals[:3]}),
        "coverage": charts.coverage(
            {
                str(kind): (part["coverage"].to_numpy(), part["accuracy"].to_numpy())
                for (kind,), part in covered.group_by("answer", maintain_order=True)
            }
        ),
        "costs": charts.cost_curve(
            {
                m: (
                    tables[m]["cost_curve"]["cost_bps"].to_numpy(),
                    tables[m]["cost_curve"]["annual_return"].to_numpy(),
                )
                for m in rivals[:4]
            },
            evaluation.costs.one_way * 1e4,
        ),
        "periods": charts.per_period(
            tables[name]["by_period"]["period_start"].dt.replace_time_zone(None).to_numpy(),
            tables[name]["by_period"]["accuracy"].to_numpy(),
            evaluation.metrics[name]["ml"]["majority_accuracy"],
        ),
    }
    rival = _rival(evaluation)
    if rival is not None:
        ours, theirs = (evaluation.backtests[m].portfolio for m in (name, rival))
        ratio = ours["equity"].to_numpy() / np.maximum(theirs["equity"].to_numpy(), 1e-12)
        out["gain"] = charts.gain(ours["event_timestamp"].dt.replace_time_zone(None).to_numpy(), ratio)
    if context.learning_curves:
        out["learning"] = charts.learning_curves(context.learning_curves)
    for key, table in (("importance", context.importance), ("shuffled", context.shuffled)):
        if table is not None and table.height:
            top = table.sort("importance", descending=True).head(20)
            spread = top["spread"].to_list() if "spread" in top.columns else None
            out[key] = charts.importance(
                top["feature"].to_list(), top["importance"].to_list(), spread, chart=key
            )
    if len(context.attention):
        out["attention"] = charts.attention(context.attention)
    return out


def _confusion(evaluation: Evaluation) -> list[dict[str, Any]]:
    counts = evaluation.confusion[evaluation.candidate]
    rows = counts.sum(axis=1, keepdims=True)
    share = np.divide(counts, np.maximum(rows, 1))
    return [
        {
            "name": label,
            "cells": [
                {
                    "count": f"{counts[i, j]:,}",
                    "share": f"{share[i, j]:.0%}",
                    "weight": round(float(share[i, j]) * 70),
                }
                for j in range(3)
            ],
        }
        for i, label in enumerate(("SELL", "HOLD", "BUY"))
    ]


def _html_table(table: report_tables.Table) -> Any:
    """A table as HTML, every text escaped."""
    import markupsafe

    head = "".join(f"<th>{markupsafe.escape(h)}</th>" for h in table.head)
    body = "".join(
        "<tr>" + "".join(f"<td>{markupsafe.escape(c)}</td>" for c in row) + "</tr>" for row in table.rows
    )
    return markupsafe.Markup(
        f'<div class="scroll"><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'
    )


def markdown(evaluation: Evaluation, context: Context | None = None) -> str:
    """The report as Markdown: first paragraph, verdicts, comparison and the main tables; no charts."""
    context = context or Context()
    name = evaluation.candidate
    out = [f"# {context.title}", "", words.lede(evaluation), ""]
    for v in context.verdicts:
        seen = _verdict(v)
        out += [f"**{seen['word']}**: {seen['headline']}", *(f"- {r}" for r in seen["rest"]), ""]
        out += [
            f"- [{'x' if c['css'] == 'ok' else ' '}] {c['name']} ({c['word']}): {c['detail']}"
            for c in seen["checks"]
        ]
        out.append("")
    out += ["## All models on the same rows", "", "| | " + " | ".join(evaluation.models) + " |"]
    out.append("|---|" + "---:|" * len(evaluation.models))
    for group in report_tables.comparison(evaluation):
        for row in group["rows"]:
            cells = (f"**{c['text']}**" if c["best"] else c["text"] for c in row["cells"])
            out.append(f"| {row['name']} | " + " | ".join(cells) + " |")
    shown = report_tables.tables(evaluation, context.slices, context.operational, context.ladder)
    for title, key in (
        ("By answer and band of confidence", "bands"),
        ("If one acts only above a confidence", "thresholds"),
        ("If one acts as decisions do, from a side confidence", "side_thresholds"),
        ("Cost curve", "cost_curve"),
        ("Break-even and capacity", "capacity"),
        (f"{name} by symbol", "by_symbol"),
        (f"{name} by regime", "by_regime"),
        ("Log loss of what could answer, by symbol", "ladder"),
        ("TFX model analysis", "slices"),
        ("What each model costs", "operational"),
    ):
        if key in shown:
            out += ["", f"## {title}", "", *shown[key].markdown()]
    notes = [*evaluation.notes, *context.notes]
    if notes:
        out += ["", "## Notes", "", *(f"- {n}" for n in notes)]
    if context.facts:
        out += ["", "## Run", "", *(f"- {k}: `{v}`" for k, v in context.facts.items())]
    return "\n".join(out) + "\n"
