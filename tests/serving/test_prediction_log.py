"""Every answer and trade is kept once, joined with what followed, moved to Delta once, and survives a kill."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from serving_world import World, make_bars

from barcast.config.decisions import DecisionsConfig
from barcast.errors import RefusedError
from barcast.serving.feedback import record
from barcast.serving.prediction_log import PredictionLog, TradeReport, with_times


def trade(number: int = 1, **changes: object) -> TradeReport:
    at = datetime(2024, 1, 5, tzinfo=UTC)
    fields = {
        "trade_id": f"t{number}",
        "symbol": "AAA",
        "action": "SELL",
        "entry_price": 100.0,
        "exit_price": 98.0,
        "opened_at": at,
        "closed_at": at + timedelta(hours=2),
        "fees_bps": 10.0,
    }
    return TradeReport.model_validate({**fields, **changes})


@pytest.fixture
def log(tmp_path: Path) -> PredictionLog:
    return PredictionLog(tmp_path / "logs" / "predictions.db")


def test_net_return_with_short_trade_by_hand() -> None:
    assert trade().net_return == pytest.approx(0.02 - 0.001)


def test_append_with_same_answer_twice_is_one_row(world: World, log: PredictionLog) -> None:
    with world.predictor(log=log) as predictor:
        first = predictor.predict(["AAA", "NOPE"])
        second = predictor.predict(["AAA"])
    assert first[0].prediction_id == second[0].prediction_id
    assert first[1].prediction_id is None  # a refusal has nothing to learn from
    rows = log.predictions()
    assert rows.height == 1
    row = rows.row(0, named=True)
    assert row["input_hash"] == first[0].input_hash
    assert (row["model"], row["version"], row["arm"]) == ("w.universal", 1, "champion")
    assert with_times(rows)["feature_timestamp"][0] == first[0].feature_timestamp


def test_join_outcomes_with_later_bars_is_the_labels_return(world: World, log: PredictionLog) -> None:
    horizon = world.config.horizon_bars
    with world.predictor(log=log) as predictor:
        answer = predictor.predict(["AAA"])[0]
    assert log.join_outcomes(world.bars, horizon) == 0
    longer = make_bars(["AAA"], count=310, factor=0.5)
    at = 299  # the answer's bar
    assert longer["event_timestamp"][at] == answer.feature_timestamp
    assert log.join_outcomes(longer.head(at + 1 + horizon), horizon) == 0  # the exit's bar is not there yet
    assert log.join_outcomes(longer, horizon) == 1
    row = log.predictions(with_outcome=True).row(0, named=True)
    opens = longer["open"]
    assert row["forward_log_return"] == pytest.approx(float(np.log(opens[at + 1 + horizon] / opens[at + 1])))
    assert log.join_outcomes(longer, horizon) == 0


def test_join_outcomes_across_a_live_split_is_the_return_without_it(world: World, log: PredictionLog) -> None:
    from barcast.bars.splits import restate

    horizon, at = world.config.horizon_bars, 299
    with world.predictor(log=log) as predictor:
        predictor.predict(["AAA"])
    plain = make_bars(["AAA"], count=310)
    effective = plain["event_timestamp"][at + 2]  # between the entry and the exit
    after = pl.col("event_timestamp") >= effective
    split = plain.with_columns(
        *(pl.when(after).then(pl.col(n) / 4).otherwise(n).alias(n) for n in ("open", "high", "low", "close")),
        volume=pl.when(after).then(pl.col("volume") * 4).otherwise("volume"),
    )
    earlier = restate(split, symbol="AAA", split_ratio=4.0, effective=effective, known_at=effective)
    assert log.join_outcomes(pl.concat([earlier, split.filter(after)]), horizon) == 1
    row = log.predictions(with_outcome=True).row(0, named=True)
    opens = plain["open"]
    assert row["forward_log_return"] == pytest.approx(float(np.log(opens[at + 1 + horizon] / opens[at + 1])))


def test_flush_with_finished_rows_moves_each_once(world: World, log: PredictionLog, tmp_path: Path) -> None:
    from deltalake import DeltaTable

    table = tmp_path / "table"
    with world.predictor(log=log) as predictor:
        predictor.predict()
    assert log.flush(table, min_rows=1) == 0  # nothing is finished
    log.join_outcomes(make_bars(["AAA", "BBB", "CCC"], count=320), world.config.horizon_bars)
    assert log.flush(table, min_rows=10) == 0  # too few for a batch
    assert log.flush(table, min_rows=1) == 3
    assert log.flush(table, min_rows=1) == 0
    # a flush that died after the table's commit is simply done again
    log._connection.execute("UPDATE predictions SET flushed = 0")
    assert log.flush(table, min_rows=1) == 3
    stored = pl.from_arrow(DeltaTable(str(table)).to_pyarrow_table())
    assert isinstance(stored, pl.DataFrame)
    assert stored["symbol"].sort().to_list() == ["AAA", "BBB", "CCC"]
    assert log.prune(datetime(2030, 1, 1, tzinfo=UTC)) == 3
    assert log.predictions().height == 0


def test_feedback_with_same_report_is_idempotent(log: PredictionLog) -> None:
    assert log.feedback(trade(), 1.0)
    assert not log.feedback(trade(), 1.0)
    with pytest.raises(RefusedError, match="other contents"):
        log.feedback(trade(exit_price=97.0))
    with pytest.raises(RefusedError, match="times with a zone"):
        log.feedback(trade(2, closed_at=datetime(2024, 1, 5, 1)))
    assert log.trades().height == 1


def test_feedback_reported_again_answers_with_the_reward_it_was_given(log: PredictionLog) -> None:
    config = DecisionsConfig()
    first = record(log, trade(1), config)
    for number in (2, 3, 4):
        record(log, trade(number), config)
    again = record(log, trade(1), config)
    assert (again.accepted, again.reward) == (False, first.reward)  # not as if the later ones came before it


def test_profits_in_a_row_with_a_loss_between_counts_the_newest(log: PredictionLog) -> None:
    for i, price in enumerate((98.0, 103.0, 98.0, 97.0)):
        log.feedback(trade(i, exit_price=price))
    assert log.profits_in_a_row() == 2
    assert log.profits_in_a_row(excluding="t3") == 1


_WRITER = """
import sys
from datetime import UTC, datetime
from pathlib import Path
from barcast.serving.prediction_log import PredictionLog, TradeReport
log = PredictionLog(Path(sys.argv[1]))
at = datetime(2024, 1, 5, tzinfo=UTC)
for i in range(100000):
    log.feedback(TradeReport(trade_id=f"t{i}", symbol="A", action="BUY", entry_price=1, exit_price=2,
                             opened_at=at, closed_at=at))
    print(i, flush=True)
"""


def _killed_writer(path: Path, seconds: float) -> int:
    """The last trade that the writer said it had kept, before it was killed."""
    writer = subprocess.Popen([sys.executable, "-c", _WRITER, str(path)], stdout=subprocess.PIPE, text=True)
    assert writer.stdout is not None
    first = writer.stdout.readline()  # imports are done
    time.sleep(seconds)
    os.kill(writer.pid, signal.SIGKILL)
    said = (first + writer.communicate()[0]).split("\n")
    return int([line for line in said[:-1] if line][-1])


def test_a_report_costs_the_same_after_many(log: PredictionLog) -> None:
    """Counted in steps of SQLite's machine, which do not depend on how busy the computer is."""

    def report(number: int) -> int:
        steps = []
        log._connection.set_progress_handler(lambda: steps.append(1), 10)
        log.feedback(trade(number))
        log.profits_in_a_row(excluding=f"t{number}")
        log._connection.set_progress_handler(None, 0)
        return len(steps)

    def report_before(numbers: range) -> None:
        columns = "trade_id, received_us, symbol, digest, report, net_return"
        rows = [(f"t{n}", n, "AAA", "", "", 0.01) for n in numbers]
        log._connection.executemany(f"INSERT INTO trades ({columns}) VALUES (?, ?, ?, ?, ?, ?)", rows)

    report_before(range(1000))
    few = report(-1)
    report_before(range(1000, 50_000))
    assert report(-2) < 1.5 * few


def test_feedback_with_writer_killed_loses_nothing_it_accepted(tmp_path: Path) -> None:
    path = tmp_path / "predictions.db"
    last = _killed_writer(path, 0.2)
    kept = PredictionLog(path).trades()["trade_id"].to_list()
    assert kept[: last + 1] == [f"t{i}" for i in range(last + 1)]
    assert len(kept) - (last + 1) in (0, 1)  # the one it was about to announce


@pytest.mark.slow
def test_feedback_with_writer_killed_at_random_moments_loses_nothing(tmp_path: Path) -> None:
    rng = np.random.default_rng(5)
    for k in range(20):
        path = tmp_path / str(k) / "predictions.db"
        path.parent.mkdir()
        last = _killed_writer(path, float(rng.uniform(0, 0.5)))
        kept = PredictionLog(path).trades()["trade_id"].to_list()
        assert kept[: last + 1] == [f"t{i}" for i in range(last + 1)]
