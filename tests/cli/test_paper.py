"""The paper account's stress test and the emergency stop by command."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import polars as pl
import pytest
from monitoring_world import config
from typer.testing import CliRunner

from barcast.bars.sources.simulator import simulate
from barcast.cli import paper
from barcast.cli.paper import _daily
from barcast.config import Config
from barcast.config.evaluation import CostsConfig
from barcast.decisions.emergency import due
from barcast.decisions.paper import PaperAccount, PaperBar, PaperDecision
from barcast.errors import RefusedError
from barcast.serving import state


def test_days_of_stocks_and_coins_together_keep_every_move_of_both() -> None:
    start = datetime(2024, 7, 1, tzinfo=UTC)
    stock = simulate(1, 80, "1h", calendar="XNYS", start=start, prefix="STOCK")
    coin = simulate(1, 400, "1h", start=start, prefix="COIN")
    days = _daily(pl.concat([stock, coin]))
    for symbol, bars in (("STOCK0000", stock), ("COIN0000", coin)):
        closes = days[symbol]
        assert closes.null_count() == 0
        assert closes[0] == bars.filter(pl.col("event_timestamp").dt.date() == start.date())["close"][-1]
        assert closes[-1] == bars["close"][-1]  # the moves multiply to the whole: no Monday is lost
    weekend = days.filter(pl.col("event_timestamp").dt.weekday() >= 6)["STOCK0000"]
    friday = days.filter(pl.col("event_timestamp").dt.date() == datetime(2024, 7, 5).date())["STOCK0000"]
    assert weekend[0] == pytest.approx(friday[0])


def configured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Config, Path]:
    """A configuration whose state lies under `tmp_path`, and the file that commands read it from."""
    settings = config(tmp_path)
    path = tmp_path / "config.json"
    path.write_text(settings.model_dump_json(exclude={"storage"}))
    monkeypatch.setenv("BARCAST_ROOT", str(tmp_path))
    return settings, path


def test_lift_begins_the_paper_accounts_drawdown_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else its next bar would pull the stop again, and nobody could ever lift it."""
    settings, path = configured(tmp_path, monkeypatch)
    workspace = settings.open_workspace()
    account = PaperAccount(capital=1000.0, horizon_bars=1, interval_seconds=3600, symbols=["A"])
    costs = CostsConfig(position_rule="latest")
    for i, price in enumerate((100.0, 100.0, 60.0)):
        at = datetime(2024, 1, 1, tzinfo=UTC) + timedelta(hours=i)
        account.step(at, {"A": PaperBar(price, price)}, costs)
        account.decide(at, {"A": PaperDecision(1.0)}, costs)
    paper.path_of(workspace).parent.mkdir(parents=True, exist_ok=True)
    paper.path_of(workspace).write_text(account.model_dump_json())
    assert state.save_account(workspace, account.view(), settings).emergency_reason
    done = CliRunner().invoke(
        paper.app, ["lift", "--by", "ana", "--reason", "checked", "--config", str(path)]
    )
    assert done.exit_code == 0, done.output
    kept = paper.load_account(workspace)
    assert kept is not None
    assert due(kept.view(), settings.decisions) == ""
    assert not state.load_emergency(workspace).active


@pytest.mark.parametrize("words", [["run"], ["run", "--new"], ["lift", "--by", "ana", "--reason", "checked"]])
def test_while_a_paper_run_goes_on_nothing_else_changes_the_account(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: list[str]
) -> None:
    settings, path = configured(tmp_path, monkeypatch)
    workspace = settings.open_workspace()
    state.pull(workspace, "ana", "test")
    with paper._account_alone(workspace):
        done = CliRunner().invoke(paper.app, [*words, "--config", str(path)])
    assert isinstance(done.exception, RefusedError)
    assert "`barcast paper run` of workspace 'watched' runs already" in done.exception.message
    assert state.load_emergency(workspace).active
    assert not paper.path_of(workspace).exists()
