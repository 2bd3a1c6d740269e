"""A user's own features: computed in batch and stream alike; one that looks ahead or too far back is caught at load."""

# ruff: noqa: E501  # a case is one line

from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl
import pytest
from feature_bars import differences, make_bars, streamed

from barcast.bars.calendar import Calendar
from barcast.config.features import FeaturesConfig
from barcast.errors import ConfigError, DataError
from barcast.features import StreamEngine, catalogue, compute

ALWAYS = Calendar.of("24/7")
GOOD = """
import numpy as np

def surprise(bars):
    r = np.append(np.nan, np.diff(np.log(bars["close"])))
    out = np.full(len(r), np.nan)
    for t in range(10, len(r)):
        out[t] = r[t] / np.std(r[t - 9 : t + 1])
    return out

FEATURES = [
    dict(name="my_surprise", formula="log return by its deviation over 10 bars", lookback_bars=11, unit="deviations",
         source="my notebook", function=surprise),
    dict(name="my_body", formula="(close - open) / close", lookback_bars=1, unit="ratio", source="my notebook",
         function=lambda bars: (bars["close"] - bars["open"]) / bars["close"]),
]
"""


def config(tmp_path: Path, text: str) -> FeaturesConfig:
    path = tmp_path / "mine.py"
    path.write_text(text)
    return FeaturesConfig(user_features=str(path), categories=("ohlcv",))


def one(expression: str, lookback: int = 5, name: str = "mine") -> str:
    return (
        "import numpy as np\n"
        f"FEATURES = [dict(name={name!r}, formula='f', lookback_bars={lookback}, unit='u', source='s',"
        f" function=lambda bars: {expression})]\n"
    )


def test_user_features_are_the_same_in_batch_and_stream(tmp_path: Path) -> None:
    settings = config(tmp_path, GOOD)
    frame = make_bars(2, 80, missing=0.05)
    batch = compute(frame, interval="5m", calendar=ALWAYS, config=settings)
    assert batch.columns[-2:] == ["my_surprise", "my_body"]
    assert catalogue("5m", settings)[-1].category == "user"
    first = batch.filter(batch["symbol"] == "S0")
    assert first["my_surprise"].null_count() == 10
    r = np.diff(np.log(frame.filter(frame["symbol"] == "S0")["close"].to_numpy()))
    assert first["my_surprise"][30] == pytest.approx(r[29] / np.std(r[20:30]), rel=1e-5)
    assert differences(batch, streamed(StreamEngine("5m", ALWAYS, settings), frame)) == []


def test_look_back_longer_than_any_kernels_is_the_same_in_batch_and_stream(tmp_path: Path) -> None:
    mean = "np.lib.stride_tricks.sliding_window_view(bars['close'], 300).mean(axis=1)"
    settings = config(tmp_path, one(f"np.append(np.full(299, np.nan), {mean}) / bars['close']", 300))
    frame = make_bars(2, 1300)
    batch = compute(frame, interval="5m", calendar=ALWAYS, config=settings)
    assert batch.filter(batch["symbol"] == "S0")["mine"].null_count() == 299
    engine = StreamEngine("5m", ALWAYS, settings)
    first = frame["event_timestamp"].unique().sort()[450]
    warm = engine.warm(frame.filter(frame["event_timestamp"] <= first))
    rest = streamed(engine, frame.filter(frame["event_timestamp"] > first))
    assert differences(batch, pl.concat([warm, rest]).sort("symbol", "event_timestamp")) == []


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (one("np.append(bars['close'][1:], np.nan) / bars['close']"), "looks ahead"),
        (one("bars['close'] / bars['close'].max()"), "looks ahead|further back"),
        (one("bars['close'] / bars['close'][::-1]"), "looks ahead"),
        (one("np.append(np.full(9, np.nan), bars['close'][9:] / bars['close'][:-9]) if len(bars['close']) > 9 else bars['close'] * np.nan"), "further back"),
        (one("bars['close'] - np.append(bars['close'][:1], bars['close'][:-1]) + 0 * bars['open']", 2), "multiplied by 3|further back"),
        (one("bars['close'] - bars['open']", 1), "multiplied by 3"),
        (one("bars['close'][-1]", 1), "shape"),
        (one("1 / 0", 1), "ZeroDivisionError"),
        (one("bars['closing']", 1), "KeyError"),
        (one("bars['close'] / bars['open']", 0), "lookback_bars"),
        (one("bars['close'] / bars['open']", 5001), "1 to 5000 was expected"),
        ("FEATURES = []", "no list FEATURES"),
        ("FEATURES = [dict(name='a')]", "were expected"),
        ("import nothing_of_this_name", "cannot be loaded"),
        (one("bars['close'] / bars['open']", 1, "close_zscore_50"), "Two features"),
    ],
)  # fmt: skip
def test_bad_user_feature_is_refused_at_load(tmp_path: Path, text: str, words: str) -> None:
    settings = config(tmp_path, text)
    with pytest.raises(ConfigError, match=words):
        catalogue("5m", settings)


def test_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no file"):
        catalogue("5m", FeaturesConfig(user_features=str(tmp_path / "absent.py")))


def test_changed_file_is_loaded_anew(tmp_path: Path) -> None:
    assert "first" in {
        s.name for s in catalogue("5m", config(tmp_path, one("bars['close'] / bars['open']", 1, "first")))
    }
    assert "second" in {
        s.name for s in catalogue("5m", config(tmp_path, one("bars['close'] / bars['open']", 1, "second")))
    }


def test_state_of_another_formula_under_the_same_name_is_refused(tmp_path: Path) -> None:
    """The rows that the live stream keeps beside it would hold values of both formulas."""
    engine = StreamEngine("5m", ALWAYS, config(tmp_path, one("bars['close'] / bars['open']", 1)))
    engine.warm(make_bars(1, 60))
    engine.save(tmp_path / "state")
    same = StreamEngine("5m", ALWAYS, config(tmp_path, one("bars['close'] / bars['open']", 1)))
    same.load(tmp_path / "state")
    other = StreamEngine("5m", ALWAYS, config(tmp_path, one("bars['open'] / bars['close']", 1)))
    with pytest.raises(DataError, match="belongs to another set of features"):
        other.load(tmp_path / "state")
