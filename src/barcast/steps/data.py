"""Steps that move data: ingest, validate_bars, build_features, validate_features."""

from __future__ import annotations

import hashlib
import tempfile
from pathlib import Path
from typing import Any

import polars as pl

from barcast import clock, user_file
from barcast.config import Config
from barcast.steps._record import Run, step
from barcast.wording import count


@step
def ingest(run: Run, bars_path: str, start: str = "", end: str = "") -> dict[str, Any]:
    """Source → table; the snapshot this run sees → `bars_path` (Parquet).

    Args:
        start, end: ask the source for bars that close in (start, end] only; empty: no bound.

    Returns:
        Lineage: table version, content hash, rows, symbols, first and last close; and `cache_key`, which with the
        configuration names all that a cached step may lean on.
    """
    from barcast.bars.ingest import ingest as bring

    report = bring(
        run.config, run.workspace, start=clock.instant(start, "start"), end=clock.instant(end, "end")
    )
    store = report.store
    snapshot = store.read()
    snapshot.write_parquet(bars_path)
    data_hash = store.content_hash()
    lineage = {
        "data_version": store.version,
        "data_hash": data_hash,
        "cache_key": _cache_key(run.config, data_hash),
        "rows": snapshot.height,
        "symbols": ",".join(snapshot["symbol"].unique().sort()),
        "first": snapshot["event_timestamp"].min().isoformat(),  # type: ignore[union-attr]
        "last": snapshot["event_timestamp"].max().isoformat(),  # type: ignore[union-attr]
        "notice": report.notice,
    }
    run.note(
        f"{count(snapshot.height, 'bar')} of {count(snapshot['symbol'].n_unique(), 'symbol')}, {report.added:,} new, "
        f"{report.replaced:,} corrected"
    )
    return lineage


def _cache_key(config: Config, data_hash: str) -> str:
    """The hash of the bars, and of the user's own files: the configuration holds only their paths."""
    files = {
        "features.user_features": config.features.user_features,
        "labels.user_labels": config.labels.user_labels,
    }
    digests = [user_file.content_of(path, setting)[1] for setting, path in files.items() if path]
    return hashlib.sha256("\n".join([data_hash, *digests]).encode()).hexdigest() if digests else data_hash


@step
def validate_bars(run: Run, bars_path: str, report_path: str) -> None:
    """Judge the snapshot; the report is written before a breach stops the run.

    Raises:
        QualityError: a critical expectation failed.
    """
    from barcast.bars.quality import validate_bars as judge
    from barcast.bars.universe import open_universe

    config = run.config
    bars = pl.read_parquet(bars_path)
    universe = open_universe(
        config.universe, source_kind=config.source.kind, symbols=bars["symbol"].unique().to_list()
    )
    report = judge(bars, config.interval, clock.now(), config.quality, universe=universe)
    _keep(run, report, report_path, "bars-quality.html")


@step
def build_features(run: Run, bars_path: str, features_path: str) -> dict[str, Any]:
    """Adjusted bars → every feature of the generation (Parquet).

    Returns:
        Number of features and rows.
    """
    from barcast.bars import adjusted, calendars_of
    from barcast.features import compute

    config = run.config
    frame = compute(
        adjusted(pl.read_parquet(bars_path)),
        interval=config.interval,
        calendar=calendars_of(config),
        config=config.features,
    )
    return _written(run, frame, features_path)


@step
def backfill_features(
    run: Run, runner: str, options: list[str], bars_path: str, features_path: str
) -> dict[str, Any]:
    """As `build_features`, on Apache Beam."""
    from barcast.adapters import beam_features

    with tempfile.TemporaryDirectory(prefix="barcast-backfill-") as folder:
        made = beam_features.backfill(
            Path(bars_path), Path(folder) / "out", run.config, runner=runner, options=options
        )
        return _written(run, beam_features.read(made), features_path)


def _written(run: Run, frame: pl.DataFrame, features_path: str) -> dict[str, Any]:
    from barcast.features import feature_names

    frame.write_parquet(features_path)
    names = feature_names(run.config.interval, run.config.features)
    whole = frame.drop_nulls(list(names)).height
    run.note(f"{len(names)} features, {frame.height:,} rows, {frame.height - whole:,} still warming up")
    return {"features": len(names), "rows": frame.height, "whole_rows": whole}


@step
def validate_features(run: Run, features_path: str, report_path: str) -> None:
    """Judge a per-column profile of the features, against the champion's training reference where there is one.

    Raises:
        QualityError: a critical expectation failed.
    """
    from barcast.bars.quality import validate_features as judge
    from barcast.features import feature_names

    names = feature_names(run.config.interval, run.config.features)
    report = judge(pl.read_parquet(features_path), None, run.config.quality, expected=names)
    _keep(run, report, report_path, "features-quality.html")


def _keep(run: Run, report: Any, report_path: str, name: str) -> None:
    page = report.to_html()
    Path(report_path).write_text(page)
    (run.folder / name).write_text(page)
    report.raise_if_critical()
    warnings = len(report.warnings)
    seen = f", {count(warnings, 'warning')}: see {name}" if warnings else " met"
    run.note(count(len(report.results), "expectation") + seen)
