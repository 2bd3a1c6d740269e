"""Quality reports: each fault is found, named and graded; good real data passes."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta

import numpy as np
import polars as pl
import pytest

from barcast.bars.quality import FeatureProfile, profile_features, validate_bars, validate_features
from barcast.bars.quality.features import stability_index
from barcast.bars.universe import Listing, Universe
from barcast.config.bars import QualityConfig
from barcast.errors import DataError, QualityError

CONFIG = QualityConfig()
CRYPTO = Universe(calendar="24/7", chosen_on=datetime(2000, 1, 1).date())
AS_OF = datetime(2020, 2, 1, tzinfo=UTC)


def failed(report) -> set[str]:
    return {r.name for r in report.results if not r.passed}


def change(bars: pl.DataFrame, row: int, **values: object) -> pl.DataFrame:
    at = pl.int_range(pl.len()) == row
    return bars.with_columns(
        pl.when(at).then(pl.lit(value)).otherwise(name).cast(bars.schema[name]).alias(name)
        for name, value in values.items()
    )


def test_sample_passes_every_expectation_and_names_hindsight(sample):
    report = validate_bars(
        sample, "1d", datetime(2013, 3, 2, tzinfo=UTC), CONFIG, universe=Universe.packaged()
    )
    assert report.ok
    assert failed(report) == set()
    assert "chosen in hindsight" in report.notes[0]
    assert report.facts["bars"] == 12154


def test_real_minute_bars_pass_with_their_gap_as_warning(shared_data):
    from barcast.bars.sources import open_source
    from barcast.config.bars import FilesConfig, SourceConfig

    config = SourceConfig(kind="files", files=FilesConfig(path=str(shared_data / "crypto_1m")))
    bars = open_source(config, interval="1m", calendar="24/7").fetch()
    report = validate_bars(bars, "1m", datetime(2021, 6, 1, tzinfo=UTC), CONFIG, universe=CRYPTO)
    assert report.ok
    assert {r.name for r in report.warnings} == {"missing_bars"}


FAULTS = {
    "high_below_low": {"high": 1e-6},
    "volume_negative": {"volume": -1.0},
    "price_not_positive": {"low": -1.0},
    "missing_value": {"close": float("nan")},
    "infinite_value": {"close": float("inf")},
    "from_the_future": {
        "event_timestamp": AS_OF + timedelta(hours=1),
        "created_timestamp": AS_OF + timedelta(hours=1),
    },
    "known_before_close": {"created_timestamp": datetime(2019, 1, 1, tzinfo=UTC)},
}


@pytest.mark.parametrize("name", FAULTS)
def test_one_bad_bar_is_critical_and_names_its_symbol(hourly, name):
    report = validate_bars(change(hourly, 205, **FAULTS[name]), "1h", AS_OF, CONFIG)
    result = next(r for r in report.results if r.name == name)
    assert not report.ok
    assert result.critical
    assert result.failing == ("SIM0001",)
    with pytest.raises(QualityError, match=name) as caught:
        report.raise_if_critical()
    assert caught.value.exit_code == 4


def test_duplicate_and_unsorted_times_are_critical(hourly):
    assert "duplicate_times" in failed(
        validate_bars(pl.concat([hourly, hourly.head(1)]), "1h", AS_OF, CONFIG)
    )
    assert "unsorted_times" in failed(validate_bars(hourly.reverse(), "1h", AS_OF, CONFIG))


def test_missing_column_and_no_rows_are_critical(hourly):
    report = validate_bars(hourly.drop("close"), "1h", AS_OF, CONFIG)
    assert report.critical[0].failing == ("close",)
    assert not validate_bars(hourly.head(0), "1h", AS_OF, CONFIG).ok


def test_gaps_warn_and_too_many_stop(hourly):
    one = hourly.filter(pl.col("symbol") == "SIM0000")
    small = pl.concat([one.head(100), one.slice(102)])
    large = pl.concat([one.head(100), one.slice(150)])
    assert validate_bars(small, "1h", AS_OF, CONFIG, universe=CRYPTO).ok
    assert "gap_share" in failed(validate_bars(large, "1h", AS_OF, CONFIG, universe=CRYPTO))


def test_wrong_interval_or_zone_is_off_the_calendar(hourly):
    shifted = hourly.with_columns(pl.col("event_timestamp", "created_timestamp") + timedelta(minutes=30))
    report = validate_bars(shifted, "1h", AS_OF, CONFIG, universe=CRYPTO)
    assert "off_calendar_share" in {r.name for r in report.critical}


def test_warnings_do_not_stop(hourly):
    one = hourly.filter(pl.col("symbol") == "SIM0000")
    flat = one.with_columns(
        **{
            n: pl.when(pl.int_range(pl.len()).is_between(20, 90)).then(7.0).otherwise(n)
            for n in ("open", "high", "low", "close")
        }
    )
    report = validate_bars(flat, "1h", AS_OF, CONFIG, universe=CRYPTO)
    assert report.ok
    assert {r.name for r in report.warnings} >= {"constant_bars", "jump_ratio"}
    assert {r.name for r in validate_bars(one.head(20), "1h", AS_OF, CONFIG).warnings} == {"bars"}


def test_staleness_counts_expected_bars(hourly):
    last = hourly["event_timestamp"].max()
    config = QualityConfig(max_stale_bars=3)
    for hours, stale in ((3, False), (4, True)):
        report = validate_bars(hourly, "1h", last + timedelta(hours=hours), config, universe=CRYPTO)
        assert ("stale_bars" in failed(report)) is stale


def test_bars_outside_a_symbols_life_warn(hourly):
    gone = Universe(
        calendar="24/7",
        symbols={"SIM0000": Listing(delisted=datetime(2020, 1, 5).date())},
        chosen_on=datetime(2000, 1, 1).date(),
    )
    report = validate_bars(hourly, "1h", AS_OF, CONFIG, universe=gone)
    assert next(r for r in report.results if r.name == "outside_listing").failing == ("SIM0000",)


def test_report_is_readable_as_page_and_json(hourly, tmp_path):
    bad = change(hourly, 3, high=1e-6).with_columns(
        symbol=pl.lit("<b>"), event_timestamp=pl.col("event_timestamp")
    )
    report = validate_bars(bad.head(100), "1h", AS_OF, CONFIG)
    page, data = report.write(tmp_path / "reports", "bars")
    assert "&lt;b&gt;" in page.read_text()
    assert "<b>" not in page.read_text()
    parsed = json.loads(data.read_text())
    assert parsed["ok"] is False
    assert parsed["num_critical"] == len(report.critical)


def features(rows: int = 3000, seed: int = 0, width: int = 12) -> pl.DataFrame:
    rng = np.random.default_rng(seed)
    times = [datetime(2020, 1, 1, tzinfo=UTC) + timedelta(hours=i) for i in range(rows)]
    base = pl.DataFrame({"symbol": "X", "event_timestamp": times, "created_timestamp": times})
    return base.with_columns(
        pl.Series(f"f{i}", rng.normal(size=rows), dtype=pl.Float32) for i in range(width)
    )


def test_features_like_the_reference_pass():
    reference = profile_features(features())
    report = validate_features(
        features(seed=1), reference, CONFIG, expected=tuple(f"f{i}" for i in range(12))
    )
    assert report.ok
    assert failed(report) == set()


def test_feature_faults_are_found_each_by_name():
    frame = features().with_columns(
        f0=pl.lit(None, pl.Float32),
        f1=pl.when(pl.int_range(pl.len()) == 5).then(float("inf")).otherwise("f1"),
        f2=pl.lit(1.0),
        f3=pl.when(pl.int_range(pl.len()) == 50).then(None).otherwise("f3"),
        f4=pl.when(pl.int_range(pl.len()) < 60).then(None).otherwise("f4"),
        f5=pl.col("f5") * 4 + 3,
    )
    report = validate_features(frame, profile_features(features()), CONFIG, expected=("f0", "f99"))
    by_name = {r.name: r for r in report.results if not r.passed}
    assert by_name["columns"].failing == ("f99",)
    assert by_name["value_share"].failing == ("f0",)
    assert by_name["nan_or_infinite"].failing == ("f1",)
    assert set(by_name["distinct_values"].failing) == {"f0", "f2"}
    assert by_name["late_nulls"].failing == ("f3",)  # the warm-up of f4 is no fault
    assert {"f5", "f2"} == set(by_name["drift_psi"].failing)


def test_a_whole_shift_is_critical():
    shifted = features(seed=2).with_columns(pl.col("^f.*$") + 3)
    report = validate_features(shifted, profile_features(features()), CONFIG)
    assert {r.name for r in report.critical} == {"drifted_share"}


def test_profile_round_trips_and_other_text_is_refused():
    profile = profile_features(features())
    assert FeatureProfile.from_json(profile.to_json()) == profile
    with pytest.raises(DataError, match="no feature profile"):
        FeatureProfile.from_json("[]")


def test_stability_index_by_hand():
    # (0.4-0.5)·ln(0.4/0.5) + (0.6-0.5)·ln(0.6/0.5)
    assert stability_index((0.5, 0.5), np.array([0.4, 0.6])) == pytest.approx(0.0405465, abs=1e-6)
    assert stability_index((0.5, 0.5), np.array([0.5, 0.5])) == 0
