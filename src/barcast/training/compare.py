"""Experiments: several configurations on the same folds, universal against specific, as one table and a plot."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from barcast import names
from barcast.datasets import Dataset
from barcast.errors import ConfigError, DataError
from barcast.splits import Fold
from barcast.training import common
from barcast.training.settings import Settings
from barcast.training.symbol import train_symbol
from barcast.training.trained import TrainedModel
from barcast.training.universal import train_linear, train_universal

# What makes the rows, their classes and their folds; where it differs, no two results can be compared.
QUESTION = (
    "workspace",
    "interval",
    "horizon_bars",
    "lookback_bars",
    "universe",
    "features",
    "labels",
    "splits",
)


def same_question(configs: Mapping[Path, Any]) -> dict[str, Any]:
    """The configurations by file name, when all of them ask the same question of the same rows.

    Raises:
        ConfigError: two files of one name, or a difference in what is asked.
    """
    found: dict[str, Any] = {}
    for path, config in configs.items():
        if path.stem in found:
            raise ConfigError(
                f"Two configurations are called {path.stem!r}.", hint="Name each file by what it tries."
            )
        found[path.stem] = config
    first = next(iter(found.values()))
    for name, other in found.items():
        for key in QUESTION:
            if getattr(other, key) != getattr(first, key):
                raise ConfigError(
                    f"{name} differs in {key}; only models of the same question can be compared.",
                    hint="Compare configurations that differ in model or training.",
                )
    return found


def scores(model: TrainedModel, dataset: Dataset, rows: np.ndarray, label: np.ndarray) -> dict[str, float]:
    """Log loss, accuracy, MCC and rank correlation of one model on rows."""
    from scipy.stats import spearmanr
    from sklearn.metrics import matthews_corrcoef

    found = model.answers(dataset, rows)
    p, truth = found["probabilities"], label[rows].astype(int)
    answered = p.argmax(axis=1)
    outcome = dataset.column("forward_log_return")[rows]
    spread = p[:, 2] - p[:, 0]
    return {
        "log_loss": float(-np.log(np.clip(p[np.arange(len(p)), truth], 1e-12, None)).mean()),
        "accuracy": float((answered == truth).mean()),
        "mcc": float(matthews_corrcoef(truth, answered)),
        "rank_ic": float(spearmanr(spread, outcome).statistic) if spread.std() > 0 else 0.0,
    }


def compare(
    dataset: Dataset,
    folds: list[Fold],
    experiments: Mapping[str, Settings],
    out_dir: Path,
    *,
    symbols: bool = False,
    progress: Callable[[str], None] | None = None,
) -> pl.DataFrame:
    """Train every configuration, and the linear baseline of the first one, on every fold.

    Args:
        symbols: train each symbol's own model from each universal one too; it joins as "NAME, own models".

    Returns:
        `experiment, fold, symbol` ("all" or one), `rows, log_loss, accuracy, mcc, rank_ic, training_seconds`.
    """
    lines: list[dict[str, Any]] = []
    for fold in folds:
        first = next(iter(experiments.values()))
        linear = train_linear(dataset, fold, first)
        label = dataset.classes(linear.info.thresholds)
        lines += _scored("linear", linear, dataset, fold, label)
        for name, settings in experiments.items():
            if progress is not None:
                progress(f"fold {fold.index}: {name}")
            folder = Path(out_dir) / f"{name}-{fold.index}"
            universal = train_universal(dataset, fold, settings, folder, thresholds=linear.info.thresholds)
            lines += _scored(name, universal, dataset, fold, label)
            for symbol in dataset.symbols if symbols else ():
                if progress is not None:
                    progress(f"fold {fold.index}: {name}, {symbol}'s own")
                try:
                    own = train_symbol(
                        universal, dataset, symbol, fold, settings, folder / names.slug(symbol)
                    )
                except DataError as error:  # a short symbol is answered by the universal model
                    if progress is not None:
                        progress(f"{symbol} has no model of its own: {error.message}")
                    continue
                lines += _scored(f"{name}, own models", own, dataset, fold, label, only=symbol)
    return pl.DataFrame(lines)


def _scored(
    name: str, model: TrainedModel, dataset: Dataset, fold: Fold, label: np.ndarray, only: str | None = None
) -> list[dict[str, Any]]:
    """One line for all symbols together and one for each, of one model; a single line for a symbol's own."""
    found = []
    for symbol in (only,) if only else ("all", *dataset.symbols):
        rows = fold.test if symbol == "all" else common.of_symbol(dataset, fold, symbol).test
        if len(rows) >= 2:
            about = {"experiment": name, "fold": fold.index, "symbol": symbol, "rows": len(rows)}
            seconds = float(model.info.facts.get("training_seconds", 0.0))
            found.append({**about, **scores(model, dataset, rows, label), "training_seconds": seconds})
    return found


def summary(table: pl.DataFrame) -> pl.DataFrame:
    """One line an experiment: means over folds and symbols, weighted by rows; `best_of` symbols it wins.

    Experiments with own models have no line of all symbols; their symbols' lines stand for it.
    """
    single = table.filter(pl.col("symbol") != "all")
    measures = ("log_loss", "accuracy", "mcc", "rank_ic")
    mean = single.group_by("experiment", maintain_order=True).agg(
        pl.col("rows").sum(),
        *((pl.col(m) * pl.col("rows")).sum() / pl.col("rows").sum() for m in measures),
        pl.col("training_seconds").max(),
    )
    by_symbol = single.group_by("symbol", "experiment", maintain_order=True).agg(pl.col("log_loss").mean())
    winners = by_symbol.sort("log_loss", maintain_order=True).group_by("symbol", maintain_order=True).first()
    won = winners.group_by("experiment").agg(pl.len().alias("best_of"))
    return mean.join(won, on="experiment", how="left", maintain_order="left").with_columns(
        pl.col("best_of").fill_null(0)
    )


def text(table: pl.DataFrame) -> str:
    """The summary for a terminal."""
    found = summary(table)
    width = max(10, *(len(name) for name in found["experiment"]))
    count = table.filter(pl.col("symbol") != "all")["symbol"].n_unique()
    lines = [f"{'':{width}}    rows  log loss  accuracy     mcc  rank ic  best of {count} symbols"]
    lines += [
        f"{r['experiment']:{width}} {r['rows']:7}  {r['log_loss']:8.4f}  {r['accuracy']:8.3f}  {r['mcc']:+.3f}"
        f"   {r['rank_ic']:+.3f}  {r['best_of']:7}"
        for r in found.iter_rows(named=True)
    ]
    return "\n".join(lines)


def plot(table: pl.DataFrame, path: Path) -> Path:
    """Log loss of each experiment less the linear baseline's, a row a symbol, as a PNG file."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    single = table.filter(pl.col("symbol") != "all")
    mean = single.group_by("symbol", "experiment", maintain_order=True).agg(pl.col("log_loss").mean())
    wide = mean.pivot(on="experiment", index="symbol", values="log_loss", maintain_order=True)
    others = [c for c in wide.columns if c not in ("symbol", "linear")]
    figure, axes = plt.subplots(figsize=(8, max(2.5, 0.3 * wide.height + 1)))
    at = np.arange(wide.height)
    for i, name in enumerate(others):
        gap = (wide[name] - wide["linear"]).to_numpy().astype(float)
        axes.plot(gap, at, "osD^v"[i % 5], label=name)
    axes.axvline(0, color="black", linewidth=0.8)
    axes.set_yticks(at, wide["symbol"].to_list())
    axes.invert_yaxis()
    axes.grid(axis="x", alpha=0.3)
    axes.set_xlabel("log loss less the linear baseline's (left of the line: better)")
    axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.12 - 0.4 / (0.3 * wide.height + 1)), ncols=2)
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110, bbox_inches="tight")
    plt.close(figure)
    return path
