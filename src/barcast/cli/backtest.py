"""`barcast backtest`: history replayed with scheduled retraining, calibration and gate, then measured and
reported.
"""

from __future__ import annotations

import tempfile
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from barcast.cli._options import ConfigOption, JsonOption, current, print_json
from barcast.errors import ConfigError, DataError, did_you_mean
from barcast.quiet_tensorflow import load_tensorflow
from barcast.wording import count

if TYPE_CHECKING:
    import numpy as np
    import polars as pl

    from barcast.config import Config
    from barcast.datasets import Dataset
    from barcast.evaluation.evaluate import Evaluation
    from barcast.evaluation.replay import Replay
    from barcast.training import TrainedModel

app = typer.Typer(add_completion=False)
KINDS = ("linear", "network")


@app.command("backtest")
def backtest(
    config: ConfigOption = None,
    model: Annotated[str, typer.Option(help="What is trained anew: linear or network.")] = "linear",
    every_days: Annotated[float, typer.Option(help="Days between two trainings.")] = 30.0,
    first_share: Annotated[float, typer.Option(help="Share of history before the first model serves.")] = 0.5,
    symbols: Annotated[str, typer.Option(help="Answers for only these, separated by commas.")] = "",
    output: Annotated[
        Path | None, typer.Option(help="Folder of report.html, report.md and log.json.")
    ] = None,
    json: JsonOption = False,
) -> None:
    """Replay history: train on schedule, calibrate, pass the gate, serve until the next training, pay costs.

    Each model is trained and judged only with labels that had ended at that time; what the gate promotes
    answers from the next bar on. The report compares it with the newest model without a gate, with one model
    for ever, and with buy-and-hold and persistence. With `--symbols` features and models still come from all
    symbols, as in a run; only the answers of those named are measured.
    """
    if model not in KINDS:
        raise ConfigError(f"There is no model {model!r} to replay.", hint=f"Use one of: {', '.join(KINDS)}.")
    if every_days <= 0 or not 0.05 <= first_share <= 0.95:
        raise ConfigError(
            f"every-days {every_days:g} must be above 0 and first-share {first_share:g} between 0.05 and 0.95."
        )
    load_tensorflow()
    import polars as pl

    from barcast.bars import adjusted
    from barcast.evaluation import replay
    from barcast.training.prepare import from_bars

    chosen = current(config)
    wanted = [s.strip() for s in symbols.split(",") if s.strip()]
    stored = _bars(chosen)
    _check_known(wanted, stored)
    bars, dataset = adjusted(stored), from_bars(stored, chosen)
    times = replay.schedule(dataset.rows, first_share=first_share, every=timedelta(days=every_days))
    trainer = _Trainer(dataset, chosen, model)
    result = replay.run(
        dataset.rows,
        trainer,
        retrain_at=times,
        policy=chosen.gate,
        costs=chosen.costs,
        horizon_bars=chosen.horizon_bars,
        on_step=None if json else lambda line: typer.echo(f"  {line}", err=True),
    )
    if wanted:
        only = pl.col("symbol").is_in(wanted)
        result = replace(result, served={name: rows.filter(only) for name, rows in result.served.items()})
        bars = bars.filter(only)
    evaluation = _evaluate(result, bars, chosen)
    folder = output or Path(chosen.storage.root) / chosen.workspace / "runs" / "backtest"
    summary = _write(folder, result, evaluation, model, every_days)
    if json:
        print_json(summary)
    else:
        _show(result, evaluation, folder)


def _bars(config: Config) -> pl.DataFrame:
    """Of all symbols: cross-symbol features of a few would differ from those that models learn from and answer on."""
    from barcast.bars.ingest import ingest

    return ingest(config, config.open_workspace()).store.read()


def _check_known(wanted: list[str], stored: pl.DataFrame) -> None:
    known = stored["symbol"].unique().sort().to_list()
    for symbol in wanted:
        if symbol not in known:
            raise DataError(
                f"There are no bars of {symbol!r} to replay.",
                hint=did_you_mean(symbol, known) or f"Known are {', '.join(known[:10])}.",
            )


class _Trainer:
    """Trains on the known rows of the dataset; the last part of them is held back for the gate."""

    def __init__(self, dataset: Dataset, config: Config, kind: str) -> None:
        self.dataset, self.config, self.kind = dataset, config, kind

    def __call__(self, known: np.ndarray, as_of: datetime, number: int) -> _Model:
        from barcast import splits
        from barcast.evaluation.frames import newest
        from barcast.training import train_linear, train_universal

        part = self.dataset.take(known)
        fold = splits.holdout(part.rows, self.config.splits)
        train: Any = train_linear if self.kind == "linear" else train_universal
        with tempfile.TemporaryDirectory(prefix="barcast-backtest-") as work:
            trained = train(part, fold, self.config, Path(work))
        ends = part.rows["label_end_timestamp"]
        seen = max(newest(ends[span]) for span in (fold.train, fold.validation, fold.calibration))
        return _Model(f"{self.kind} {as_of:%Y-%m-%d}", self.dataset, trained, seen, known[fold.test])


class _Model:
    """A trained model as `replay.Trained`."""

    def __init__(
        self, name: str, dataset: Dataset, trained: TrainedModel, seen_until: datetime, held_out: np.ndarray
    ) -> None:
        self.name, self.seen_until, self.held_out = name, seen_until, held_out
        self._dataset, self._trained = dataset, trained
        self.thresholds = trained.info.thresholds

    def predict(self, positions: np.ndarray, thresholds: Any) -> pl.DataFrame:
        return self._trained.predictions(self._dataset, positions, name=self.name, thresholds=thresholds)


def _evaluate(result: Replay, bars: pl.DataFrame, config: Config) -> Evaluation:
    from barcast.bars.calendars import bars_per_year, calendars_of
    from barcast.evaluation.evaluate import evaluate

    return evaluate(
        result.served,
        bars,
        config.evaluation,
        costs=config.costs,
        horizon_bars=config.horizon_bars,
        bars_per_year=bars_per_year(calendars_of(config), bars["symbol"].unique(), config.interval),
    )


def _write(
    folder: Path, result: Replay, evaluation: Evaluation, model: str, every_days: float
) -> dict[str, Any]:
    import json

    from barcast.evaluation import report

    context = report.Context(
        title=f"Replay: {model} trained every {every_days:g} days",
        facts={"trainings": result.log.height, "promotions after the first": result.num_promotions},
        notes=[
            "Each training, calibration and verdict used only labels that had ended at that time.",
            *(f"{row['at']:%Y-%m-%d}: {row['reason']}" for row in result.log.iter_rows(named=True)),
        ],
    )
    summary = {"evaluation": evaluation.to_dict(), "log": result.log.to_dicts(), "folder": str(folder)}
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "report.html").write_text(report.render(evaluation, context))
    (folder / "report.md").write_text(report.markdown(evaluation, context))
    (folder / "log.json").write_text(json.dumps(summary, indent=2, default=str))
    return summary


def _show(result: Replay, evaluation: Evaluation, folder: Path) -> None:
    from rich.table import Table

    from barcast.cli._console import console
    from barcast.evaluation.words import lede, number

    trainings, promotions = count(result.log.height, "training"), count(result.num_promotions, "promotion")
    table = Table(title=f"{trainings}, {promotions} after the first")
    for head in ("", "right", "log loss", "a year, net", "Sharpe", "deepest fall"):
        table.add_column(head, justify="left" if not head else "right")
    for name in evaluation.models:
        ml, money = evaluation.metrics[name]["ml"], evaluation.metrics[name]["financial"]
        table.add_row(
            name,
            number(ml["accuracy"], "percent"),
            number(ml["log_loss"]),
            number(money["annual_return"], "percent"),
            number(money["sharpe"], "ratio"),
            number(money["max_drawdown"], "percent"),
        )
    out = console()
    out.print(table)
    out.print(lede(evaluation))
    out.print(f"Report: {folder / 'report.html'}")
