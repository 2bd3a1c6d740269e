"""Experiments: several configurations on the same folds, universal against specific, as one table and a plot."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import polars as pl

from barcast.datasets import Dataset
from barcast.splits import Fold
from barcast.training.settings import Settings
from barcast.training.trained import TrainedModel
from barcast.training.universal import train_linear, train_universal


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
    progress: Callable[[str], None] | None = None,
) -> pl.DataFrame:
    """Train every configuration, and the linear baseline of the first one, on every fold.

    Returns:
        `experiment, fold, symbol` ("all" or one), `rows, log_loss, accuracy, mcc, rank_ic, training_seconds`.
    """
    lines = []
    for fold in folds:
        first = next(iter(experiments.values()))
        linear = train_linear(dataset, fold, first)
        label = dataset.classes(linear.info.thresholds)
        models = {"linear": linear}
        for name, settings in experiments.items():
            models[name] = train_universal(
                dataset,
                fold,
                settings,
                Path(out_dir) / f"{name}-{fold.index}",
                thresholds=linear.info.thresholds,
            )
            if progress is not None:
                progress(f"fold {fold.index}: {name}")
        for name, model in models.items():
            for symbol in ("all", *dataset.symbols):
                rows = fold.test
                if symbol != "all":
                    rows = rows[np.isin(rows, dataset.of_symbol(symbol))]
                if len(rows) < 2:
                    continue
                lines.append(
                    {
                        "experiment": name,
                        "fold": fold.index,
                        "symbol": symbol,
                        "rows": len(rows),
                        **scores(model, dataset, rows, label),
                        "training_seconds": float(model.info.facts.get("training_seconds", 0.0)),
                    }
                )
    return pl.DataFrame(lines)


def plot(table: pl.DataFrame, path: Path) -> Path:
    """Log loss of each experiment by symbol, one group of bars a symbol, as a PNG file."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    mean = table.group_by("symbol", "experiment", maintain_order=True).agg(pl.col("log_loss").mean())
    symbols, experiments = (mean[c].unique(maintain_order=True).to_list() for c in ("symbol", "experiment"))
    figure, axes = plt.subplots(figsize=(max(6, len(symbols)), 4))
    width = 0.8 / len(experiments)
    for i, name in enumerate(experiments):
        part = mean.filter(pl.col("experiment") == name)
        at = [symbols.index(s) + i * width for s in part["symbol"]]
        axes.bar(at, part["log_loss"], width, label=name)
    axes.set_xticks([i + 0.4 for i in range(len(symbols))], symbols, rotation=45)
    losses = mean["log_loss"].to_numpy()
    axes.set_ylim(float(losses.min()) * 0.98, float(losses.max()) * 1.01)
    axes.set_ylabel("log loss (lower is better)")
    axes.legend()
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110, bbox_inches="tight")
    plt.close(figure)
    return path
