"""Expectations on features: Polars profiles each column, Great Expectations judges the profile.

Great Expectations is slow on wide frames themselves. The profile of the training rows is the reference that
later data is compared with.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import polars as pl

from barcast.bars.quality.judge import Limit, judge
from barcast.bars.quality.report import QualityReport
from barcast.config.bars import QualityConfig
from barcast.errors import DataError

if TYPE_CHECKING:
    from barcast.config import Config

NOT_FEATURES = ("symbol", "event_timestamp", "created_timestamp")
_BINS = 10
_MAX_ROWS = 50_000  # rows used for a distribution; more change a decile's share by less than 0.003
_MIN_ROWS = 200  # fewer say nothing about a distribution


@dataclass(frozen=True)
class FeatureProfile:
    """Distributions of features: per feature the inner decile edges and the share of rows in each bin.

    Values equal to an edge belong to the bin below it, so a feature with few values keeps its shares.
    """

    num_rows: int
    edges: Mapping[str, tuple[float, ...]]
    shares: Mapping[str, tuple[float, ...]]

    def to_json(self) -> str:
        return json.dumps({"num_rows": self.num_rows, "edges": dict(self.edges), "shares": dict(self.shares)})

    @staticmethod
    def from_json(text: str) -> FeatureProfile:
        """The profile that `to_json` wrote.

        Raises:
            DataError: the text is something else.
        """
        try:
            data = json.loads(text)
            return FeatureProfile(
                int(data["num_rows"]),
                {k: tuple(v) for k, v in data["edges"].items()},
                {k: tuple(v) for k, v in data["shares"].items()},
            )
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise DataError(
                f"This is no feature profile: {error}.", hint="Write one with profile_features."
            ) from error


def profile_features(frame: pl.DataFrame) -> FeatureProfile:
    """The distributions of `frame`'s features (nulls left out), as reference for `validate_features`."""
    rows = _thinned(frame)
    edges: dict[str, tuple[float, ...]] = {}
    shares: dict[str, tuple[float, ...]] = {}
    for name in _features(frame):
        values = finite(rows[name])
        if values.size < _MIN_ROWS:
            continue
        cuts = np.unique(np.quantile(values, np.linspace(0, 1, _BINS + 1)[1:-1]))
        edges[name] = tuple(cuts.tolist())
        shares[name] = tuple(bin_shares(values, cuts).tolist())
    return FeatureProfile(frame.height, edges, shares)


def stability_index(reference: tuple[float, ...], observed: np.ndarray) -> float:
    """Population stability index: sum of (observed - reference) × ln(observed / reference) over the bins.

    Empty bins count as half a row in a thousand. Below 0.1: alike; above 0.25: commonly called a shift.
    """
    floor = 5e-4
    expected = np.maximum(np.asarray(reference), floor)
    came = np.maximum(observed, floor)
    return float(np.sum((came - expected) * np.log(came / expected)))


def validate_features(
    frame: pl.DataFrame,
    reference: FeatureProfile | None,
    config: QualityConfig | Config,
    *,
    expected: tuple[str, ...] | None = None,
    title: str = "Features",
) -> QualityReport:
    """Judge a features frame.

    Args:
        frame: symbol, event_timestamp, created_timestamp and the features.
        reference: distributions of the training rows; None: drift is not judged.
        expected: the features that must be there; None: those that are.

    Returns:
        the report; NaN or infinite values and features without any value are critical, so is a shift of more
        than `max_drifted_share` of the features; nulls, constants and single shifts are warnings.
    """
    config = config if isinstance(config, QualityConfig) else config.quality
    names = _features(frame)
    columns = (frame.columns, [*NOT_FEATURES, *(expected or names)])
    profile = _profile(frame, names, reference)
    limits = [
        Limit("rows", "at least one row", "critical", low=1),
        Limit("nan_or_infinite", "finite values or nulls only", "critical", high=0),
        Limit("value_share", "some value that is not null", "critical", low=1e-12),
        Limit(
            "null_share", f"at most {config.max_null_share:.0%} nulls", "warning", high=config.max_null_share
        ),
        Limit("late_nulls", "no null after the first value of a symbol", "warning", high=0),
        Limit("distinct_values", "more than one value (2 stands for any more)", "warning", low=2),
        Limit("known_early", "created at the bar's close or later", "critical", high=0),
    ]
    if reference is not None:
        psi = f"stability index of at most {config.max_drift_psi:g} against training"
        share = f"at most {config.max_drifted_share:.0%} of the features shifted against training"
        limits += [
            Limit("drift_psi", psi, "warning", high=config.max_drift_psi),
            Limit("drifted_share", share, "critical", high=config.max_drifted_share),
        ]
        shifted = (profile["drift_psi"] > config.max_drift_psi).sum() / max(profile["drift_psi"].count(), 1)
        profile = profile.with_columns(drifted_share=_on_whole(profile, float(shifted)))
    results = judge(profile, "feature", limits, columns=columns)
    facts = {
        "rows": frame.height,
        "features": len(names),
        "symbols": frame["symbol"].n_unique() if "symbol" in frame.columns else "?",
        "reference rows": reference.num_rows if reference else "none",
    }
    return QualityReport(title, tuple(results), facts)


_WHOLE = "(all)"


def _profile(frame: pl.DataFrame, names: list[str], reference: FeatureProfile | None) -> pl.DataFrame:
    """One row per feature and one for the whole frame; a measure is null where it does not apply."""
    bad = frame.select(pl.col(n).cast(pl.Float64).is_finite().not_().sum() for n in names)
    nulls = frame.select(pl.col(*names).null_count()) if names else pl.DataFrame()
    low, high = frame.select(pl.col(names).min()), frame.select(pl.col(names).max())
    late = _late_nulls(frame, [name for name in names if nulls[name][0]])
    rows = _thinned(frame)
    total = max(frame.height, 1)
    table = []
    for name in names:
        psi = None
        if reference is not None and name in reference.edges:
            values = finite(rows[name])
            if values.size >= _MIN_ROWS:
                psi = stability_index(
                    reference.shares[name], bin_shares(values, np.asarray(reference.edges[name]))
                )
        null_share = nulls[name][0] / total
        table.append(
            {
                "feature": name,
                "nan_or_infinite": bad[name][0] or 0,
                "null_share": null_share,
                "value_share": 1 - null_share if frame.height else 0.0,
                "distinct_values": 0 if low[name][0] is None else 1 + (low[name][0] < high[name][0]),
                "late_nulls": late.get(name, 0),
                "drift_psi": psi,
            }
        )
    early = 0
    if {"created_timestamp", "event_timestamp"} <= set(frame.columns):
        early = int((frame["created_timestamp"] < frame["event_timestamp"]).sum())
    table.append({"feature": _WHOLE, "rows": frame.height, "known_early": early})
    schema = {"feature": pl.String()} | dict.fromkeys(
        [
            "rows",
            "known_early",
            "nan_or_infinite",
            "null_share",
            "value_share",
            "distinct_values",
            "late_nulls",
            "drift_psi",
        ],
        pl.Float64(),
    )
    return pl.DataFrame(table, schema=schema)


def _late_nulls(frame: pl.DataFrame, names: list[str]) -> dict[str, int]:
    """Per feature: nulls that follow a value of the same symbol."""
    if not names or "symbol" not in frame.columns or frame.height == 0:
        return {}
    position = pl.int_range(pl.len())
    counts = frame.group_by("symbol").agg(
        (pl.col(n).is_null() & (position > pl.col(n).is_not_null().arg_max())).sum()
        * pl.col(n).is_not_null().any()
        for n in names
    )
    return counts.drop("symbol").sum().row(0, named=True)


def _on_whole(profile: pl.DataFrame, value: float) -> pl.Expr:
    return pl.when(pl.col("feature") == _WHOLE).then(value)


def _features(frame: pl.DataFrame) -> list[str]:
    return [name for name in frame.columns if name not in NOT_FEATURES]


def _thinned(frame: pl.DataFrame) -> pl.DataFrame:
    return frame.gather_every(max(1, -(-frame.height // _MAX_ROWS)))


def finite(column: pl.Series) -> np.ndarray:
    """The column's finite values as float64."""
    values = column.drop_nulls().to_numpy().astype(np.float64)
    kept: np.ndarray = values[np.isfinite(values)]
    return kept


def bin_shares(values: np.ndarray, edges: np.ndarray) -> np.ndarray:
    """Share of the values in each bin between the inner edges, (edges + 1,)."""
    counts = np.bincount(np.searchsorted(edges, values, side="left"), minlength=edges.size + 1)
    shares: np.ndarray = counts / values.size
    return shares
