"""Great Expectations judges a profile: one row per subject (a symbol, a feature), one column per measure."""

from __future__ import annotations

import os
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import polars as pl

from barcast.bars.quality.report import CheckResult

Severity = Literal["critical", "warning"]


@dataclass(frozen=True)
class Limit:
    """A measure and the values it may take.

    Attributes:
        measure: column of the profile.
        expectation: what is expected, in words.
        severity: whether a breach stops the run.
        low, high: bounds, included; None for none.
    """

    measure: str
    expectation: str
    severity: Severity
    low: float | None = None
    high: float | None = None


def judge(
    profile: pl.DataFrame,
    subject: str,
    limits: Sequence[Limit],
    *,
    columns: tuple[list[str], list[str]] | None = None,
) -> list[CheckResult]:
    """Each limit's result, in the order of `limits`; first the columns' if given.

    Args:
        profile: `subject` (text, unique) and a numeric column per measure; a null is not judged.
        columns: (what came, what was expected) of the data itself.
    """
    results = []
    if columns is not None:
        results.append(_columns(*columns))
    if profile.height == 0 or not limits:
        return results
    gx, expectations = _great_expectations()
    table = profile.to_pandas()
    suite = [
        expectations.ExpectColumnValuesToBeBetween(
            column=limit.measure, min_value=limit.low, max_value=limit.high, severity=limit.severity
        )
        for limit in limits
    ]
    outcome = _batch(gx, table).validate(
        gx.ExpectationSuite(name=f"by_{subject}", expectations=suite),
        result_format={"result_format": "COMPLETE", "unexpected_index_column_names": [subject]},
    )
    answers = {r.expectation_config.kwargs["column"]: r for r in outcome.results}
    return [*results, *(_result(limit, answers[limit.measure], subject) for limit in limits)]


def _columns(came: list[str], expected: list[str]) -> CheckResult:
    gx, expectations = _great_expectations()
    table = pl.DataFrame({name: pl.Series([], dtype=pl.Float64) for name in came}).to_pandas()
    batch = _batch(gx, table)
    outcome = batch.validate(
        expectations.ExpectTableColumnsToMatchSet(column_set=expected, exact_match=False)
    )
    missing = [name for name in expected if name not in came]
    return CheckResult(
        name="columns",
        expectation=f"the columns {', '.join(expected)}"
        if len(expected) < 15
        else f"{len(expected)} columns",
        severity="critical",
        passed=bool(outcome.success),
        observed=f"missing: {', '.join(missing)}" if missing else "all present",
        failing=tuple(missing),
    )


def _result(limit: Limit, answer: Any, subject: str) -> CheckResult:
    failing = {row[subject]: row[limit.measure] for row in answer.result.get("unexpected_index_list") or []}
    worst = sorted(failing.items(), key=lambda item: -abs(float(item[1])))
    shown = ", ".join(f"{name}: {float(value):.6g}" for name, value in worst[:8])
    more = f" and {len(worst) - 8} more" if len(worst) > 8 else ""
    return CheckResult(
        name=limit.measure,
        expectation=limit.expectation,
        severity=limit.severity,
        passed=bool(answer.success),
        observed=shown + more if failing else "within the limit",
        failing=tuple(name for name, _ in worst),
    )


def _batch(gx: Any, table: Any) -> Any:
    context = gx.get_context(mode="ephemeral")
    context.variables.progress_bars = {"globally": False}
    asset = context.data_sources.add_pandas("profiles").add_dataframe_asset("profile")
    return asset.add_batch_definition_whole_dataframe("whole").get_batch({"dataframe": table})


def _great_expectations() -> tuple[Any, Any]:
    os.environ.setdefault("GX_ANALYTICS_ENABLED", "False")  # no message leaves this machine
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # its imports warn about other packages
        import great_expectations as gx
        import great_expectations.expectations as expectations
    return gx, expectations
