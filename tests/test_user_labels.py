"""Labels of the user's own file: used where they are right, refused with a reason where they are not."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from barcast import labels
from barcast.config import Config
from barcast.config.models import LabelsConfig
from barcast.errors import ConfigError

START = datetime(2024, 1, 1, tzinfo=UTC)
SAME_AS_FIXED = """
import numpy as np

def label(bars, horizon_bars):
    held = np.full(len(bars["close"]), float(horizon_bars))
    held[len(held) - 1 - horizon_bars :] = np.nan
    return held, None
"""
# Left at the first close more than 1% from the entry; BUY or SELL by its side, HOLD at the horizon.
TOUCH = """
import numpy as np

def label(bars, horizon_bars):
    o, c, n = bars["open"], bars["close"], len(bars["close"])
    held, side = np.full(n, np.nan), np.full(n, np.nan)
    for t in range(n - 1):
        for k in range(1, horizon_bars + 1):
            if t + 1 + k >= n:
                break
            move = c[t + k] / o[t + 1] - 1
            if abs(move) > 0.01 or k == horizon_bars:
                held[t], side[t] = k, np.sign(move) if abs(move) > 0.01 else 0
                break
    return held, side
"""


def make_bars(n: int = 200, seed: int = 0) -> pl.DataFrame:
    close = 100 * np.exp(np.cumsum(np.random.default_rng(seed).normal(0, 0.01, n)))
    return pl.DataFrame(
        {
            "symbol": "A",
            "event_timestamp": [START + timedelta(minutes=5 * i) for i in range(n)],
            "open": np.append(100.0, close[:-1]),
            "high": close * 1.02,
            "low": close * 0.98,
            "close": close,
            "volume": 1.0,
        }
    )


def user(folder: Path, text: str) -> LabelsConfig:
    path = folder / "mine.py"
    path.write_text(text)
    return LabelsConfig(scheme="user", user_labels=str(path))


def test_fixed_horizon_written_by_the_user_equals_ours(tmp_path: Path) -> None:
    bars = make_bars()
    ours = labels.make(bars, horizon_bars=4)
    theirs = labels.make(bars, horizon_bars=4, config=user(tmp_path, SAME_AS_FIXED))
    assert theirs.equals(ours, null_equal=True)


def test_classes_and_holding_times_of_the_user_are_used(tmp_path: Path) -> None:
    bars = make_bars()
    config = user(tmp_path, TOUCH)
    found = labels.make(bars, horizon_bars=6, config=config).filter("valid")
    o, c = bars["open"].to_numpy(), bars["close"].to_numpy()
    for row in found.head(40).iter_rows(named=True):
        t = int((row["event_timestamp"] - START) / timedelta(minutes=5))
        moves = [c[t + k] / o[t + 1] - 1 for k in range(1, 7)]
        first = next((k for k, move in enumerate(moves, 1) if abs(move) > 0.01), None)
        assert row["duration_bars"] == (first or 6)
        assert row["touch"] == (np.sign(moves[first - 1]) if first else 0)
        assert row["label_end_timestamp"] == START + timedelta(minutes=5 * (t + 1 + (first or 6)))
        assert row["forward_log_return"] == pytest.approx(np.log(o[t + 1 + (first or 6)] / o[t + 1]))
    classes = labels.classify(found, labels.fit_thresholds(found, config))
    assert classes["label"].to_list() == (found["touch"] + 1).to_list()
    assert set(classes["label"]) == {0, 1, 2}
    pending = labels.make(bars, horizon_bars=6, config=config).filter(pl.col("reason") == "pending")
    assert 1 <= pending.height <= 7


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("x = 1", "no function label"),
        ("import nothing_of_this_name", "cannot be loaded"),
        ("def label(bars, horizon_bars): return 1", "failed"),
        ("import numpy as np\ndef label(b, h): return np.ones(3), None", "returned shape"),
        ("import numpy as np\ndef label(b, h): return np.full(len(b['close']), h + 1.0), None", "holds for"),
        ("import numpy as np\ndef label(b, h): return np.full(len(b['close']), 1.5), None", "holds for"),
        ("import numpy as np\ndef label(b, h): return np.ones(len(b['close'])), 2 * np.ones(len(b['close']))",
         "other than -1"),
        ("import numpy as np\ndef label(b, h): return np.full(len(b['close']), np.nan), None", "labels none"),
        ("import numpy as np\ndef label(b, h):\n c = b['close']"
         "\n s = np.sign(np.append(c[5:], [c[-1]] * min(5, len(c))) - c)\n"
         " return np.ones(len(c)), s", "after its own exit"),
        ("import numpy as np\ndef label(b, h):\n c = b['close']\n return np.where(c > c.mean(), 1.0, h), None",
         "after its own exit"),
        ("import numpy as np\ndef label(b, h):\n c = b['close']\n return np.where(c > 100, 1.0, h), None",
         "multiplied by 3"),
    ],
)  # fmt: skip
def test_bad_user_labels_are_refused_at_load(tmp_path: Path, text: str, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        labels.make(make_bars(), horizon_bars=4, config=user(tmp_path, text))


def test_scheme_and_file_go_together(tmp_path: Path) -> None:
    for given in ({"scheme": "user"}, {"user_labels": "mine.py"}):
        with pytest.raises(ValueError, match="go together"):
            Config.model_validate({"labels": given})
    with pytest.raises(ConfigError, match="no file"):
        labels.make(
            make_bars(),
            horizon_bars=4,
            config=LabelsConfig(scheme="user", user_labels=str(tmp_path / "absent.py")),
        )
