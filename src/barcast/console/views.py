"""What the pages show, made from registry state: plain dictionaries and lists, ready for the templates."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from markupsafe import Markup

from barcast import names
from barcast.registry import Registry, audit
from barcast.registry.state import Model, Version

# What a person who approves looks at first: (metric, name, more is better, format). Others follow on the
# version's page.
SHOWN = (
    ("financial_total_return", "Total return after costs", True, "percent"),
    ("financial_annual_return", "Annual return after costs", True, "percent"),
    ("financial_excess_annual_return", "Annual return over buy-and-hold", True, "percent"),
    ("financial_sharpe", "Sharpe ratio", True, "number"),
    ("financial_sortino", "Sortino ratio", True, "number"),
    ("financial_max_drawdown", "Largest drawdown", True, "percent"),
    ("financial_profit_factor", "Profit factor", True, "number"),
    ("financial_win_rate", "Winning trades", True, "percent"),
    ("financial_break_even_bps", "Cost at break-even, bps", True, "number"),
    ("financial_turnover_per_year", "Turnover a year", False, "number"),
    ("ml_accuracy", "Accuracy", True, "percent"),
    ("ml_balanced_accuracy", "Balanced accuracy", True, "percent"),
    ("ml_f1_macro", "F1 (macro)", True, "number"),
    ("ml_mcc", "Matthews correlation", True, "number"),
    ("ml_auc_roc_macro", "AUC-ROC (macro)", True, "number"),
    ("ml_log_loss", "Log loss", False, "number"),
    ("ml_brier", "Brier score", False, "number"),
    ("ml_ece", "Calibration error (ECE)", False, "number"),
    ("learning_profit_weighted_accuracy", "Profit-weighted accuracy", True, "percent"),
    ("operational_latency_ms_p50", "One answer in process, median ms", False, "number"),
    ("operational_size_mib", "Files, MiB", False, "number"),
)
ACTIONS = {
    "registered": "Registered",
    "tried": "Configuration tried",
    "judged": "Judged by the gate",
    "reported": "Report kept",
    "challenger": "Waits for approval",
    "approved": "Approved",
    "rejected": "Rejected",
    "promoted": "Promoted",
    "rolled_back": "Rolled back",
    "retired": "Retired",
    "traffic": "Traffic changed",
    "abandoned": "Undone",
    "alarm": "Alarm",
    "repaired": "Repaired",
    "confirmed": "Served answer confirmed",
    "unconfirmed": "Served answer wrong",
    "degraded": "Degradation found",
}


def spoken(word: str) -> str:
    """A model's name for people."""
    shared = {"universal": "Universal model", "_linear": "Linear baseline", "_ensemble": "Ensemble"}
    return shared.get(word, word)


def markdown(text: str) -> Markup:
    """A model card as HTML: headings, lists and tables. Markup in the text is shown, never obeyed; no pictures."""
    from markdown_it import MarkdownIt

    reader = MarkdownIt("commonmark", {"html": False}).enable("table").disable("image")
    tokens = reader.parse(text)
    for token in tokens:  # the page's policy lets no style attribute through: a class says the same
        if "right" in str(token.attrs.pop("style", "")):
            token.attrs["class"] = "n"
    return Markup(reader.renderer.render(tokens, reader.options, {}))


def when(moment: datetime | None) -> str:
    """A time to the minute, UTC."""
    return f"{moment:%Y-%m-%d %H:%M}" if moment else "now"


def number(value: float | None, form: str = "number") -> str:
    """A figure for a table; a dash where there is none."""
    if value is None:
        return "–"
    return f"{value * 100:.1f}%" if form == "percent" else f"{value:,.3f}"


def overview(registry: Registry) -> dict[str, Any]:
    """Waiting challengers first, then what is live."""
    rows = registry.list()
    state = registry.state()  # after the rows: a model registered in between stands in it, and harms nothing
    waiting, live = [], []
    for row in rows:
        model = state.models[row["model"]]
        entry = {**row, "title": spoken(row["symbol"])}
        if model.waiting or (model.challenger and row["challenger_status"] == "approved"):
            waiting.append(
                {**entry, "challenger": version_view(model, model.versions[model.challenger or 0])}
            )
        if model.champion is not None:
            champion = model.versions[model.champion]
            entry["metrics"] = [
                number(champion.registered.details["metrics"].get(k), f)
                for k, f in (
                    ("ml_accuracy", "percent"),
                    ("ml_log_loss", "number"),
                    ("financial_sharpe", "number"),
                )
            ]
            entry["since"] = when(datetime.fromisoformat(row["since"]))
            live.append(entry)
    return {"waiting": waiting, "live": live}


def version_view(model: Model, version: Version) -> dict[str, Any]:
    """One version with its verdict, for side-by-side reading."""
    details = version.registered.details
    judged = version.judged.details if version.judged else None
    return {
        "number": version.number,
        "kind": details["kind"],
        "status": version.status,
        "registered": when(version.registered.time),
        "digest": details["digest"],
        "data_version": details["data_version"],
        "data_hash": details["data_hash"],
        "config_hash": details["config_hash"],
        "code_version": details["code_version"],
        "num_features": details["num_features"],
        "parent": details["parent"],
        "reliability": details["reliability"],
        "trained_until": (details.get("trained_until") or "")[:10],
        "evaluated": _span(details.get("evaluated_from"), details.get("evaluated_until")),
        "metrics": details["metrics"],
        "verdict": judged,
        "decided": version.decided,
        "labels": sorted(label for label, number in model.labels.items() if number == version.number),
    }


def _span(first: str | None, last: str | None) -> str:
    return f"{first[:10]} to {last[:10]}" if first and last else "–"


def comparison(champion: dict[str, Any] | None, challenger: dict[str, Any]) -> list[dict[str, Any]]:
    """Rows of the side-by-side table: name, both figures, which one is better."""
    rows = []
    ours = challenger["metrics"]
    theirs = champion["metrics"] if champion else {}
    for key, name, more, form in SHOWN:
        a, b = ours.get(key), theirs.get(key)
        if a is None and b is None:
            continue
        better = "" if a is None or b is None or a == b else ("challenger" if (a > b) == more else "champion")
        rows.append(
            {
                "name": name,
                "champion": number(b, form),
                "challenger": number(a, form),
                "better": better,
                "direction": "more is better" if more else "less is better",
            }
        )
    if not rows:  # metrics of another naming: show what is there
        for key in sorted({*ours, *theirs})[:20]:
            rows.append(
                {
                    "name": key,
                    "champion": number(theirs.get(key)),
                    "challenger": number(ours.get(key)),
                    "better": "",
                    "direction": "",
                }
            )
    return rows


def model_view(registry: Registry, word: str) -> dict[str, Any]:
    """Everything the page of one model shows.

    Raises:
        RegistryError: the registry knows no such model.
    """
    model = registry.model(registry.state(), word)
    champion = version_view(model, model.versions[model.champion]) if model.champion else None
    challenger = None
    if model.challenger is not None and model.versions[model.challenger].status in ("challenger", "approved"):
        challenger = version_view(model, model.versions[model.challenger])
    answers = registry.incumbent(word)
    return {
        "word": word,
        "title": spoken(word),
        "name": model.name,
        "champion": champion,
        "champion_number": model.champion,
        "challenger": challenger,
        "comparison": comparison(champion, challenger) if challenger else [],
        "answers": answers,
        "earlier": [
            number
            for number, v in sorted(model.versions.items(), reverse=True)
            if v.was_champion and number != model.champion
        ],
        "next_back": model.earlier_champion(),
        "versions": [version_view(model, v) for _, v in sorted(model.versions.items(), reverse=True)],
        "spans": audit.spans(model),
        "history": history_rows(registry, word),
        "traffic": model.traffic,
    }


def history_rows(registry: Registry, word: str | None = None, most: int = 200) -> list[dict[str, Any]]:
    """Ledger lines, newest first; of one model, or of all."""
    name = registry.model_name(word) if word is not None else None
    rows = []
    for entry in reversed(registry.ledger.read()):
        if entry.action == "begun" or (name is not None and entry.model != name):
            continue
        outcome = f"{entry.details['outcome'].capitalize()}." if entry.action == "judged" else ""
        rows.append(
            {
                "number": entry.number,
                "time": when(entry.time),
                "action": ACTIONS.get(entry.action, entry.action),
                "kind": entry.action,
                "word": names.word_of(entry.model) if entry.model else "",
                "title": spoken(names.word_of(entry.model)) if entry.model else "",
                "version": entry.version,
                "by": entry.by,
                "reason": f"{outcome} {entry.reason}".strip(),
            }
        )
        if len(rows) == most:
            break
    return rows
