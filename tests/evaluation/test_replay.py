"""Replay of history: nothing later than each moment reaches a training or a verdict; the gate decides who
serves.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime, timedelta

import evaluation_worlds as worlds
import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from barcast.config.evaluation import CostsConfig, GateConfig
from barcast.errors import DataError, RefusedError
from barcast.evaluation import replay

COSTS = CostsConfig(fee_bps=14, spread_bps=0, slippage_bps=0)
POLICY = GateConfig(attempts_per_year=4, block_days=1, max_calibration_error=0.3)


@dataclass
class Model:
    name: str
    seen_until: datetime
    held_out: np.ndarray
    rows: pl.DataFrame
    answers: pl.DataFrame
    thresholds: None = None
    asked: list[np.ndarray] = field(default_factory=list)

    def predict(self, positions, thresholds):
        self.asked.append(positions)
        return self.answers[positions]


class Trainer:
    """The n-th training knows the outcome by `skills[n]`; everything it was given is kept for the test."""

    def __init__(self, labels, skills):
        self.labels = labels
        self.answers = [worlds.predictions(labels, skill=s, seed=k + 1) for k, s in enumerate(skills)]
        self.given: list[tuple[np.ndarray, datetime]] = []
        self.models: list[Model] = []

    def __call__(self, known, as_of, number):
        self.given.append((known, as_of))
        part = self.labels[known]
        edge = part["event_timestamp"].quantile(0.4)
        held = known[(part["event_timestamp"] > edge).to_numpy()]
        trained = part.filter((pl.col("event_timestamp") <= edge) & (pl.col("label_end_timestamp") <= edge))
        model = Model(f"m{number}", trained["label_end_timestamp"].max(), held, self.labels,
                      self.answers[min(number, len(self.answers) - 1)])  # fmt: skip
        self.models.append(model)
        return model


@pytest.fixture(scope="module")
def labels():
    return worlds.labelled(worlds.bars(3, 2400, seed=2))


def test_replay_promotes_the_better_model_and_serves_it_only_later(labels):
    times = replay.schedule(labels, first_share=0.5, every=timedelta(days=12))
    trainer = Trainer(labels, [0.0, 0.14, 0.0])
    result = replay.run(labels, trainer, retrain_at=times, policy=POLICY, costs=COSTS, horizon_bars=4)
    assert result.verdicts[0] is None
    promoted = [k for k, v in enumerate(result.verdicts) if v is not None and v.outcome == "promote"]
    assert promoted == [1]
    served = result.served[replay.GATED]
    switch = times[1]
    assert served.filter(pl.col("event_timestamp") <= switch)["fold"].unique().to_list() == [0]
    assert served.filter(pl.col("event_timestamp") > switch)["fold"].unique().to_list() == [1]
    assert result.served[replay.FIRST]["fold"].unique().to_list() == [0]
    assert result.served[replay.NEWEST]["fold"].n_unique() == len(times)
    assert result.log["in_force"].to_list()[:2] == ["m0", "m1"]
    # every bar after the first training is served once by each policy
    after = labels.filter(pl.col("event_timestamp") > times[0]).height
    assert all(f.height == after for f in result.served.values())


@settings(max_examples=5, deadline=None)
@given(share=st.floats(0.3, 0.8), days=st.integers(10, 40))
def test_replay_gives_no_training_and_no_verdict_anything_later(labels, share, days):
    times = replay.schedule(labels, first_share=share, every=timedelta(days=days))
    trainer = Trainer(labels, [0.0, 0.1])
    replay.run(labels, trainer, retrain_at=times, policy=POLICY, costs=COSTS, horizon_bars=4)
    end, event = labels["label_end_timestamp"], labels["event_timestamp"]
    for known, as_of in trainer.given:
        assert end.gather(known).max() <= as_of
    for number, model in enumerate(trainer.models):
        until = times[number]
        for asked in model.asked:
            judged = np.isin(asked, np.concatenate([m.held_out for m in trainer.models])).all()
            later = event.gather(asked).min() > until
            assert judged or later


def test_replay_refuses_a_trainer_that_cheats(labels):
    times = replay.schedule(labels, first_share=0.5, every=timedelta(days=20))
    honest = Trainer(labels, [0.0])

    def future_rows(known, as_of, number):
        model = honest(known, as_of, number)
        model.held_out = np.arange(labels.height)
        return model

    def late_labels(known, as_of, number):
        model = honest(known, as_of, number)
        model.seen_until = as_of + timedelta(hours=1)
        return model

    with pytest.raises(RefusedError, match="not known"):
        replay.run(labels, future_rows, retrain_at=times, policy=POLICY, costs=COSTS, horizon_bars=4)
    with pytest.raises(RefusedError, match="after its training time"):
        replay.run(labels, late_labels, retrain_at=times, policy=POLICY, costs=COSTS, horizon_bars=4)


def test_replay_with_nothing_known_or_nothing_to_serve_says_so(labels):
    trainer = Trainer(labels, [0.0])
    early = labels["event_timestamp"].min() - timedelta(days=1)
    with pytest.raises(DataError, match="No label had ended"):
        replay.run(labels, trainer, retrain_at=[early], horizon_bars=4)
    late = labels["label_end_timestamp"].max()
    with pytest.raises(DataError, match="No bar was left"):
        replay.run(labels, trainer, retrain_at=[late], horizon_bars=4)
    with pytest.raises(DataError, match="more than one bar"):
        replay.schedule(labels.head(1), first_share=0.5, every=timedelta(days=1))


def test_backtest_command_refuses_wrong_options():
    from typer.testing import CliRunner

    from barcast.cli.backtest import app
    from barcast.errors import ConfigError

    result = CliRunner().invoke(app, ["--model", "magic"])
    assert isinstance(result.exception, ConfigError)
    assert "magic" in str(result.exception)
    assert isinstance(CliRunner().invoke(app, ["--every-days", "0"]).exception, ConfigError)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # TensorFlow and its neighbours warn about one another
@pytest.mark.parametrize("model", ["linear", "network"])
def test_backtest_command_replays_the_sample_and_writes_its_report(tmp_path, monkeypatch, model):
    import json

    from typer.testing import CliRunner

    from barcast.cli.backtest import app

    settings = tmp_path / "brief.yaml"
    settings.write_text("training: {max_epochs: 1}\n")
    monkeypatch.setenv("BARCAST_ROOT", str(tmp_path / "root"))
    out = tmp_path / "out"
    schedule = ["--every-days", "700", "--first-share", "0.6", "--symbols", "AAPL,MSFT"]
    result = CliRunner().invoke(
        app, ["--config", str(settings), "--model", model, *schedule, "--output", str(out), "--json"]
    )
    assert result.exit_code == 0, result.output
    assert "retrained, gated" in (out / "report.html").read_text()
    log = json.loads((out / "log.json").read_text())["log"]
    assert log[0]["outcome"] == "first"
    assert log[0]["candidate"].startswith(model)
    assert len(log) >= 2
    assert all(entry["outcome"] in ("promote", "keep", "hold") for entry in log[1:])
