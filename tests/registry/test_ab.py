"""Shadow and A/B reports on simulated served answers with known truth."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import numpy as np
import polars as pl
import pytest

from barcast.config.evaluation import CostsConfig, GateConfig
from barcast.errors import DataError
from barcast.registry import ab

DAYS, SYMBOLS = 240, ("AAPL", "IBM", "MSFT")
START = datetime(2024, 1, 1, 21, tzinfo=UTC)
MODEL = "daily.universal"


def world(skill: float, mode: str, seed: int = 1) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Answers of a champion without skill and a challenger with `skill`, and what followed."""
    rng = np.random.default_rng(seed)
    outcomes, answers = [], []
    for day in range(DAYS):
        for symbol in SYMBOLS:
            at = START + timedelta(days=day)
            label = int(rng.integers(0, 3))
            outcomes.append(
                {
                    "symbol": symbol,
                    "event_timestamp": at,
                    "label_end_timestamp": at + timedelta(days=1),
                    "label": label,
                    "forward_log_return": (label - 1) * 0.02 + rng.normal(0, 0.002),
                    "volatility": 0.02,
                }
            )
            canary = rng.random() < 0.5
            for version, arm in ((1, "champion"), (2, "shadow" if mode == "shadow" else "canary")):
                if mode == "ab" and canary != (version == 2):
                    continue
                right = label if version == 2 and rng.random() < skill else int(rng.integers(0, 3))
                p = np.full(3, 0.2)
                p[right] = 0.6
                answers.append(
                    {
                        "symbol": symbol,
                        "feature_timestamp": at,
                        "model": MODEL,
                        "version": version,
                        "arm": arm,
                        **dict(zip(("p_sell", "p_hold", "p_buy"), p.tolist(), strict=True)),
                        "confidence": 0.6,
                        "uncertainty": 0.1,
                        "expected_return": 0.0,
                        "expected_volatility": 0.02,
                    }
                )

    def times(frame: pl.DataFrame) -> pl.DataFrame:
        return frame.with_columns(pl.col(pl.Datetime).cast(pl.Datetime("us", "UTC")))

    return times(pl.DataFrame(answers)), times(
        pl.DataFrame(outcomes).with_columns(pl.col("label").cast(pl.Int8))
    )


def report(answers: pl.DataFrame, outcomes: pl.DataFrame) -> ab.Report:
    return ab.compare(
        answers, outcomes, model=MODEL, champion=1, challenger=2,
        policy=GateConfig(), costs=CostsConfig(), horizon_bars=1,
    )  # fmt: skip


@pytest.mark.parametrize(("mode", "paired"), [("shadow", True), ("ab", False)])
def test_better_challenger_is_found(mode: str, paired: bool) -> None:
    found = report(*world(0.5, mode))
    assert found.paired is paired
    assert found.outcome == "better"
    assert found.net_gain_bps[0] > 0
    assert found.challenger.accuracy > found.champion.accuracy + 0.2
    assert found.rows == DAYS * len(SYMBOLS)


@pytest.mark.parametrize("mode", ["shadow", "ab"])
def test_equal_challenger_is_undecided(mode: str) -> None:
    found = report(*world(0.0, mode))
    assert found.outcome == "undecided"
    assert found.net_gain_bps[0] < 0 < found.net_gain_bps[2]


def test_mean_difference_is_the_difference_of_the_arms() -> None:
    found = report(*world(0.3, "ab"))
    assert found.net_gain_bps[1] == pytest.approx(found.challenger.net_bps - found.champion.net_bps)
    assert found.log_loss_gain[1] == pytest.approx(found.champion.log_loss - found.challenger.log_loss)


def test_few_days_decide_nothing() -> None:
    answers, outcomes = world(0.5, "ab")
    early = answers.filter(pl.col("feature_timestamp") < START + timedelta(days=6))
    found = report(early, outcomes)
    assert found.outcome == "undecided"
    assert "too few to decide" in found.sentences[0]


def test_no_known_outcome_is_a_clear_error() -> None:
    answers, outcomes = world(0.5, "shadow")
    with pytest.raises(DataError, match="none with a known outcome"):
        report(answers, outcomes.head(0))
    with pytest.raises(DataError, match="The challenger has 0 served answers"):
        report(answers.filter(pl.col("version") == 1), outcomes)
