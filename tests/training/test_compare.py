"""Experiments: the same question or none, each configuration and symbol a line, own models beside the universal one."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import polars as pl
import pytest

from barcast.config import Config
from barcast.errors import ConfigError
from barcast.training import compare


def test_configurations_of_other_questions_are_refused() -> None:
    first = Config()
    other = Config(training={"learning_rate": 5e-3}, model={"dense_dropout": 0.1})  # type: ignore[arg-type]
    found = compare.same_question({Path("a.yaml"): first, Path("b.yaml"): other})
    assert list(found) == ["a", "b"]
    for change in (
        {"horizon_bars": 3},
        {"labels": {"scheme": "triple_barrier"}},
        {"splits": {"test_share": 0.3}},
    ):
        with pytest.raises(ConfigError, match=f"b differs in {next(iter(change))}"):
            compare.same_question({Path("a.yaml"): first, Path("b.yaml"): Config(**change)})  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="Two configurations are called 'a'"):
        compare.same_question({Path("a.yaml"): first, Path("x/a.yaml"): other})


@pytest.mark.slow
def test_every_experiment_and_symbol_is_a_line_on_the_same_rows(
    dataset: Any, fold: Any, small: Any, tmp_path: Path
) -> None:
    quick = replace(small, training=small.training.model_copy(update={"max_epochs": 2, "transfer_epochs": 1}))
    said: list[str] = []
    table = compare.compare(dataset, [fold], {"quick": quick}, tmp_path, symbols=True, progress=said.append)
    rows = {(r["experiment"], r["symbol"]): r["rows"] for r in table.iter_rows(named=True)}
    for symbol in dataset.symbols:
        assert rows["quick, own models", symbol] == rows["linear", symbol] == rows["quick", symbol]
    assert rows["linear", "all"] == len(fold.test)
    assert any("S1's own" in line for line in said)
    # The market's momentum can be learned: the linear baseline finds it, and the table says so.
    assert table.filter(pl.col("experiment") == "linear", pl.col("symbol") == "all")["rank_ic"].item() > 0.1
    picture = compare.plot(table, tmp_path / "plot.png")
    assert picture.stat().st_size > 5000


def test_summary_weighs_by_rows_and_counts_the_symbols_won() -> None:
    def line(experiment: str, symbol: str, rows: int, loss: float) -> dict[str, Any]:
        about = {"experiment": experiment, "fold": 0, "symbol": symbol, "rows": rows, "log_loss": loss}
        return {**about, "accuracy": 0.5, "mcc": 0.0, "rank_ic": 0.0, "training_seconds": 1.0}

    ours = [line("linear", "all", 40, 9.0), line("linear", "A", 10, 1.0), line("linear", "B", 30, 2.0)]
    table = pl.DataFrame([*ours, line("net", "A", 10, 1.5), line("net", "B", 30, 1.0)])
    found = {r["experiment"]: SimpleNamespace(**r) for r in compare.summary(table).iter_rows(named=True)}
    assert found["linear"].log_loss == pytest.approx(1.75)
    assert found["net"].log_loss == pytest.approx(1.125)
    assert (found["linear"].best_of, found["net"].best_of) == (1, 1)
    assert "best of 2 symbols" in compare.text(table)
