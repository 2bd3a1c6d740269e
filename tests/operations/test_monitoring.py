"""Monitoring on a real registry, log and queue: injected faults are found and answered, honest models left alone."""

from __future__ import annotations

import math
import threading
import urllib.request
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import monitoring_world as worlds
import numpy as np
import polars as pl
import pytest
from typer.testing import CliRunner

from barcast import clock
from barcast.bars.ingest import open_store
from barcast.bars.sources.simulator import simulate
from barcast.config.bars import UniverseConfig
from barcast.config.operations import OperationsConfig
from barcast.operations.monitoring import (
    History,
    ModelReport,
    Monitor,
    Reading,
    Report,
    models,
    monitor,
    outcomes,
)
from barcast.operations.monitoring.collect import Collected, References
from barcast.operations.monitoring.drift import feature_drift
from barcast.operations.monitoring.history import HistoryError
from barcast.operations.monitoring.respond import respond
from barcast.operations.monitoring.serving import quantile
from barcast.operations.queue import RECALIBRATE, TrainingQueue


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> worlds.World:
    """The universal model and one of a symbol that decays, one that is poisoned, one that is weak and honest."""
    world = worlds.build(tmp_path_factory.mktemp("watched"))
    good = world.promote("SIM0001")
    for symbol in (None, "SIM0000", "SIM0001"):
        world.promote(symbol)
    assert good == 1
    world.answer("watched.universal", 1, 1210, 1700, knows=0.25, symbols=("SIM0002",))
    world.answer("watched.universal", 1, 1701, 2190, knows=0.25, symbols=("SIM0002",), sureness=4.0, seed=1)
    world.answer("watched.SIM0000", 1, 1210, 2190, knows=0.08, symbols=("SIM0000",))
    world.answer("watched.SIM0001", 2, 1210, 2190, knows=0.3, symbols=("SIM0001",), poisoned=True)
    return world


@pytest.fixture(scope="module")
def first(world: worlds.World) -> Report:
    return monitor(world.config)


def raised(report: Report, subject: str) -> set[str]:
    return {alert.name for alert in report.alerts if alert.subject == subject}


def test_a_poisoned_model_is_rolled_back_by_policy_and_its_retraining_is_queued(
    world: worlds.World, first: Report
) -> None:
    assert "ModelHarmful" in raised(first, "SIM0001")
    done = {(a.kind, a.subject) for a in first.actions}
    assert ("rollback", "SIM0001") in done
    assert ("retrain", "SIM0001") in done
    history = world.registry.history("SIM0001")
    (back,) = [entry for entry in history if entry["action"] == "rolled_back"]
    assert (back["version"], back["by"]) == (1, "policy:degradation")
    (why,) = [entry for entry in history if entry["action"] == "degraded"]
    assert why["details"]["harm"] > outcomes.cusum(np.zeros(1), 2000).bound
    queue = TrainingQueue(world.config.open_workspace(), world.config.operations.queue)
    (job,) = queue.status("SIM0001")
    assert job["reason"].startswith("monitoring: ")


def test_a_model_that_grew_too_sure_raises_calibration_drift(first: Report) -> None:
    assert "CalibrationDrift" in raised(first, "universal")
    (universal,) = [m for m in first.models if m.word == "universal"]
    assert "too sure" in next(r.text for r in universal.readings if r.name == "miscalibration")


def test_a_harmful_universal_model_without_an_earlier_version_waits_for_a_person(first: Report) -> None:
    (waits,) = [a for a in first.actions if a.kind == "waits"]
    assert waits.subject == "universal"
    assert "no earlier good version" in waits.text


def test_a_weak_but_honest_model_is_left_alone(world: worlds.World, first: Report) -> None:
    assert raised(first, "SIM0000") == set()
    (model,) = [m for m in first.models if m.word == "SIM0000"]
    readings = {r.name: r.value for r in model.readings}
    assert model.outcomes == 981
    assert readings["accuracy"] < 0.5
    assert [a for a in first.actions if a.subject == "SIM0000"] == []


def test_what_was_asked_for_is_not_asked_again_and_alerts_keep_their_time(
    world: worlds.World, first: Report
) -> None:
    again = monitor(world.config)
    assert again.actions == ()
    assert raised(again, "SIM0001") == set()  # version 1 answers, and nothing is known against it
    for alert in again.alerts:
        if alert.subject == "universal":
            assert alert in first.alerts or alert.since == min(a.since for a in first.alerts)
    queue = TrainingQueue(world.config.open_workspace(), world.config.operations.queue)
    assert {row["requests"] for row in queue.status()} == {1}


def test_a_symbol_that_the_universal_model_answers_for_is_queued_by_itself(
    world: worlds.World, first: Report
) -> None:
    (asked,) = [a for a in first.actions if a.subject == "SIM0002"]
    assert (asked.kind, "it has no model of its own" in asked.text) == ("retrain", True)
    queue = TrainingQueue(world.config.open_workspace(), world.config.operations.queue)
    assert queue.status("SIM0002")[0]["state"] == "queued"


def test_the_history_holds_readings_actions_and_the_newest_report(world: worlds.World, first: Report) -> None:
    history = Monitor(world.config).history
    series = history.series("SIM0000", "accuracy")
    assert len(series) >= 1
    assert history.latest() is not None
    kinds = [a.kind for a in history.actions(datetime.now(UTC) - timedelta(hours=1))]
    assert kinds.count("rollback") == 1


def test_bars_that_stop_coming_raise_bars_late_and_that_clears_when_they_come(
    world: worlds.World, monkeypatch: pytest.MonkeyPatch
) -> None:
    live = world.config.model_copy(update={"source": world.config.source.model_copy(update={"kind": "ccxt"})})
    watching = Monitor(live)
    last = world.times[-1]
    with clock.fixed(last + timedelta(minutes=5)):
        assert "BarsLate" not in raised(watching.look(act=False), "workspace")
    with clock.fixed(last + timedelta(hours=3, minutes=5)):
        (alert,) = [a for a in watching.look(act=False).alerts if a.name == "BarsLate"]
    assert "3 closes behind" in alert.text
    with clock.fixed(last - timedelta(hours=2)):  # the clock was set back
        assert "BarsFromFuture" in raised(watching.look(act=False), "workspace")


def test_commands_and_page_show_the_report(
    world: worlds.World, first: Report, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    import threading

    import yaml

    from barcast.cli.monitor import monitor as command
    from barcast.operations.monitoring import metrics

    settings = world.config.model_dump(mode="json", exclude={"storage"})
    settings["operations"]["monitoring"]["port"] = 0
    path = tmp_path / "config.yaml"
    path.write_text(yaml.safe_dump(settings))
    monkeypatch.setenv("BARCAST_ROOT", world.config.storage.root)
    import typer

    app = typer.Typer()
    app.command()(command)
    shown = CliRunner().invoke(app, ["--no-act", "--json", "--config", str(path)])
    assert Report.model_validate_json(shown.stdout).worst == "critical"
    text = CliRunner().invoke(app, ["--no-act", "--config", str(path)]).stdout
    assert "CalibrationDrift" in text
    assert "runbook" in text
    stop, ports, seen = threading.Event(), [], []
    quick = world.config.operations.monitoring.model_copy(update={"port": 0})
    operations = world.config.operations.model_copy(update={"monitoring": quick})
    one = Monitor(world.config.model_copy(update={"operations": operations}))

    def read(report: Any) -> None:
        seen.append(report)
        stop.set()

    def ready(port: int) -> None:
        ports.append(port)

    page: list[str] = []

    def scrape(report: Report) -> None:
        read(report)
        page.append(
            urllib.request.urlopen(f"http://127.0.0.1:{ports[0]}/metrics", timeout=10).read().decode()
        )

    metrics.follow(one, stop, act=False, seen=scrape, ready=ready)
    assert 'barcast_alert{name="CalibrationDrift",severity="warning",subject="universal"} 1.0' in page[0]
    assert 'barcast_reading{name="dead_letters",subject="workspace"} 0.0' in page[0]
    assert "barcast_monitoring_timestamp_seconds" in page[0]


def test_feature_drift_is_judged_by_the_trainings_own_windows() -> None:
    rng = np.random.default_rng(5)
    times = pl.datetime_range(
        datetime(2024, 1, 1), datetime(2025, 1, 1), "1h", time_zone="UTC", eager=True, time_unit="us"
    )

    def frame(shift: float, first: int, count: int) -> pl.DataFrame:
        names = {f"f{i}": rng.normal(shift * (i < 4), 1, count) for i in range(8)}
        rows = {"symbol": ["A"] * count, "event_timestamp": times[first : first + count], **names}
        return pl.DataFrame(rows).with_columns(created_timestamp="event_timestamp")

    reference = frame(0.0, 0, 2500)
    quiet = feature_drift(reference, frame(0.0, 2500, 250), 250, 0.5)
    moved = feature_drift(reference, frame(2.0, 2500, 250), 250, 0.5)
    assert quiet is not None
    assert moved is not None
    assert quiet.share <= quiet.typical
    assert moved.share == 0.5
    assert {s.name for s in moved.top[:4]} == {"f0", "f1", "f2", "f3"}
    assert all(s.ks > 0.5 and s.wasserstein == pytest.approx(2.0, abs=0.3) for s in moved.top[:4])
    assert feature_drift(reference.head(300), quiet_rows(frame), 250, 0.5) is None


def test_a_feature_that_the_newest_rows_do_not_know_stops_no_judgement() -> None:
    rng = np.random.default_rng(5)
    times = pl.datetime_range(
        datetime(2024, 1, 1), datetime(2025, 1, 1), "1h", time_zone="UTC", eager=True, time_unit="us"
    )[:2750]
    whole = pl.DataFrame({"symbol": "A", "event_timestamp": times, "created_timestamp": times}).with_columns(
        [pl.Series(name, rng.normal(size=2750)) for name in ("mine", "news")]
    )
    recent = whole[2500:].with_columns(news=pl.lit(None, pl.Float64))
    found = feature_drift(whole[:2500], recent, 250, 0.5)
    assert found is not None
    assert [shifted.name for shifted in found.top] == ["mine"]
    nothing = feature_drift(whole[:2500], recent.with_columns(mine=pl.lit(None, pl.Float64)), 250, 0.5)
    assert nothing is not None
    assert (nothing.psi, nothing.share, nothing.top) == (0.0, 0.0, ())


def slow_answers(seed: int, keeps: float, shift: float = 0.0) -> pl.DataFrame:
    """400 answers of an honest model whose lean changes slowly; the newest half shifted."""
    rng = np.random.default_rng(seed)
    lean = rng.normal(size=600)
    for i in range(1, 600):
        lean[i] = keeps * lean[i - 1] + np.sqrt(1 - keeps**2) * lean[i]
    lean = 0.3 * lean[200:] + shift * (np.arange(400) >= 200)
    odds = np.exp(np.stack([-lean, np.zeros(400), lean], axis=1))
    odds /= odds.sum(axis=1, keepdims=True)
    columns = {name: odds[:, k] for k, name in enumerate(models.PROBABILITIES)}
    return pl.DataFrame({"feature_us": np.arange(400), "confidence": odds.max(axis=1), **columns})


def test_answers_that_change_slowly_are_no_drift_and_a_shift_is(tmp_path: Path) -> None:
    collected = Collected(worlds.config(tmp_path), References())

    def alarms(keeps: float, shift: float = 0.0) -> int:
        found = [models._by_answers(collected, slow_answers(seed, keeps, shift))[0] for seed in range(30)]
        return sum(reading.alert == "PredictionDrift" for reading in found)

    assert alarms(0.97) <= 6  # a limit without regard to its own past alarms in 25 of them
    assert alarms(0.0) == 0
    assert alarms(0.0, shift=0.5) == 30


def quiet_rows(frame: Any) -> pl.DataFrame:
    rows: pl.DataFrame = frame(0.0, 2500, 250)
    return rows


def test_the_detectors_numbers_are_those_made_by_hand() -> None:
    gains = outcomes.log_gains(
        np.array([[0.2, 0.3, 0.5], [0.9, 0.1, 0.0]]), np.full((2, 3), 1 / 3), np.array([2, 2])
    )
    assert gains == pytest.approx([math.log(1 / 3 / 0.5), math.log(1 / 3) - math.log(1e-6)])
    found = outcomes.cusum(np.array([-1.0, 0.5, -2.0, 4.0, 4.0]), quiet_blocks=10)
    assert (found.level, found.blocks, found.gain) == (4.0, 2, 4.0)
    assert found.bound == pytest.approx(math.log(20))
    assert found.sure
    rows = pl.DataFrame({"feature_us": [1, 1, 2, 5, 9, 9, 12]})
    assert [part["feature_us"].to_list() for part in outcomes.blocks(rows, 2)] == [[1, 1, 2], [5, 9, 9]]
    assert outcomes.tempered(np.array([[0.2, 0.8]]), 2.0) == pytest.approx(np.array([[0.04, 0.64]]) / 0.68)
    assert quantile({"0.1": 98, "0.5": 99, "+Inf": 100}, 0.99) == 0.5
    assert quantile({"0.1": 0, "+Inf": 0}, 0.99) is None


def test_a_table_that_cannot_be_read_is_an_alert_and_the_other_parts_are_judged(
    world: worlds.World, first: Report, broken_log: Path
) -> None:
    report = monitor(world.config, act=False)
    (alert,) = [a for a in report.alerts if a.name == "MonitoringFailed"]
    assert "not a database" in alert.text
    assert any(r.name == "late_closes" for r in report.whole)


@pytest.fixture
def broken_log(world: worlds.World) -> Iterator[Path]:
    path = world.config.open_workspace().logs / "predictions.db"
    kept = {p: p.read_bytes() for p in path.parent.glob("predictions.db*")}
    for p in kept:
        p.unlink()
    path.write_bytes(b"this is no database, it is a sentence" * 100)
    yield path
    for p in path.parent.glob("predictions.db*"):
        p.unlink()
    for p, content in kept.items():
        p.write_bytes(content)


def test_a_workspace_without_anything_is_no_fault(tmp_path: Path) -> None:
    config = worlds.config(tmp_path)
    report = monitor(config)
    assert report.models == ()
    assert [a.name for a in report.alerts] == []
    assert open_store(config, config.open_workspace()).exists is False


def degraded(word: str, *alerts: str) -> ModelReport:
    readings = tuple(Reading(name=name, value=9.0, bound=8.0, alert=name) for name in alerts)
    return ModelReport(
        model=f"watched.{word}", version=1, word=word, kind="network", since=clock.now(), answers=1, outcomes=1,
        readings=readings,
    )  # fmt: skip


def test_a_model_that_is_only_miscalibrated_is_recalibrated_and_requests_are_limited(
    tmp_path: Path, world: worlds.World
) -> None:
    config = world.config.model_copy(
        update={
            "workspace": "limited",
            "operations": OperationsConfig.model_validate({"monitoring": {"retrain_per_day": 2}}),
        }
    )
    queue = TrainingQueue(config.open_workspace(), config.operations.queue)
    history = History(tmp_path / "history.db")
    reports = [
        degraded("A", "CalibrationDrift"),
        degraded("B", "CalibrationDrift", "ConceptDrift"),
        degraded("C", "FeatureDrift"),
        degraded("D", "PredictionDrift"),
    ]

    def respond_and_keep(queue_all: bool) -> dict[str, str]:
        collected = Collected(config, References())
        actions = respond(collected, reports, history, queue_all=queue_all)
        now = collected.now
        history.add(
            Report(
                workspace="limited", at=now, as_of=now, models=(), whole=(), alerts=(), actions=tuple(actions)
            ),
            {},
            1.0,
        )
        return {a.subject: a.kind for a in actions}

    done = respond_and_keep(queue_all=False)
    assert done["A"] in ("recalibrate", "waits")
    assert sorted(done.values()).count("waits") == 1
    assert set(done) == {"A", "B", "C"}  # answers that moved are no fault by themselves
    assert respond_and_keep(queue_all=True) == {}  # a day later, not before
    waiting = {row["symbol"]: row["reason"] for row in queue.status()}
    assert "A" not in waiting  # left to the pipeline that looked
    with clock.fixed(clock.now() + timedelta(days=8)):
        reports[1:] = []
        assert respond_and_keep(queue_all=True) == {"A": "recalibrate"}
    assert queue.status("A")[0]["reason"] == RECALIBRATE


def test_outcomes_of_stocks_are_known_over_nights_and_weekends(tmp_path: Path) -> None:
    settings = worlds.config(tmp_path).model_copy(update={"universe": UniverseConfig(calendar="XNYS")})
    open_store(settings, settings.open_workspace()).append(simulate(1, 140, "1h", calendar="XNYS"))
    # 20 rows before the volatility is known; the last 4 wait for the open three bars after the next one
    assert Collected(settings, References()).outcomes.height == 140 - 20 - 4


def test_two_looks_at_once_raise_an_alert_once(tmp_path: Path) -> None:
    """`barcast up` looks by itself while somebody asks `barcast monitor`."""
    together, rounds = threading.Barrier(2), 30
    failed: list[str] = []
    History(tmp_path / "m.db")

    def look() -> None:
        history = History(tmp_path / "m.db")
        for i in range(rounds):
            together.wait()
            try:
                history.raise_alerts({("BarsLate", "workspace"): "late"} if i % 2 == 0 else {}, clock.now())
            except HistoryError as error:
                failed.append(str(error))

    both = [threading.Thread(target=look) for _ in range(2)]
    for one in both:
        one.start()
    for one in both:
        one.join()
    assert failed == []
