"""Models of many symbols: whom to learn from, in which order, side by side, and whether each is worth leaving for.

`most_correlated` names a parent, `priorities` an order, `train_many` trains in worker processes, `ladder` compares
linear, universal and own model of every symbol on the same rows.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from barcast import datasets, names
from barcast.datasets import Dataset
from barcast.splits import Fold
from barcast.training.settings import Settings
from barcast.training.trained import TrainedModel


def most_correlated(
    dataset: Dataset, fold: Fold, symbol: str, candidates: Sequence[str]
) -> tuple[str, float] | None:
    """The candidate whose outcomes moved most like `symbol`'s over the training rows, with the correlation.

    None where no candidate shares 50 times with it.
    """
    rows = dataset.rows[fold.train].select("symbol", "event_timestamp", "forward_log_return")
    wide = rows.pivot(on="symbol", index="event_timestamp", values="forward_log_return")
    best: tuple[str, float] | None = None
    for other in candidates:
        if other == symbol or other not in wide.columns or symbol not in wide.columns:
            continue
        both = wide.select(symbol, other).drop_nulls().to_numpy()
        if len(both) < 50 or both.std(axis=0).min() <= 0:
            continue
        found = float(np.corrcoef(both.T)[0, 1])
        if best is None or found > best[1]:
            best = (other, found)
    return best


def parent_of(
    dataset: Dataset,
    fold: Fold,
    symbol: str,
    settings: Settings,
    *,
    universal: Path,
    own: Mapping[str, Path],
) -> Path:
    """The folder of the model that `symbol` should learn from, as `training.transfer_from` says.

    Args:
        own: folders of symbols' own models; the universal model stands in where none is correlated enough to know.
    """
    if settings.training.transfer_from == "most_correlated":
        nearest = most_correlated(dataset, fold, symbol, list(own))
        if nearest is not None and nearest[1] > 0:
            return own[nearest[0]]
    return universal


def priorities(bars: pl.DataFrame, *, recent_bars: int = 500) -> list[str]:
    """Symbols in the order to train them: those that trade most money and move most, first.

    Rank of the mean traded value plus rank of the volatility over each symbol's last bars.
    """
    recent = bars.sort("event_timestamp").group_by("symbol", maintain_order=True).tail(recent_bars)
    found = recent.group_by("symbol").agg(
        (pl.col("close") * pl.col("volume")).mean().alias("value"),
        pl.col("close").log().diff().std().fill_null(0.0).alias("volatility"),
    )
    ranked = found.with_columns((pl.col("value").rank() + pl.col("volatility").rank()).alias("rank"))
    return ranked.sort(["rank", "symbol"], descending=[True, False])["symbol"].to_list()


@dataclass(frozen=True)
class Outcome:
    """What became of one symbol's training: its folder, or the reason it failed."""

    symbol: str
    folder: Path | None
    error: str = ""


def _work(
    parent: str, dataset_folder: str, symbol: str, fold: Fold, settings: Any, out_dir: str, threads: int
) -> str:
    """One symbol in a worker process; limits its threads before TensorFlow starts."""
    for name in (
        "OMP_NUM_THREADS",
        "TF_NUM_INTRAOP_THREADS",
        "TF_NUM_INTEROP_THREADS",
        "OPENBLAS_NUM_THREADS",
    ):
        os.environ[name] = str(threads)
    from barcast.training.symbol import train_symbol

    dataset = datasets.load(Path(dataset_folder))
    train_symbol(Path(parent), dataset, symbol, fold, settings, Path(out_dir))
    return out_dir


def train_many(
    parent: Path,
    dataset: Dataset | Path,
    symbols: Sequence[str],
    fold: Fold,
    settings: Settings,
    out_dir: Path,
    *,
    workers: int | None = None,
    progress: Callable[[str], None] | None = None,
) -> list[Outcome]:
    """Train a model for each symbol, in this order of priority; one failure does not stop the rest.

    Args:
        parent: folder of the universal network.
        dataset: the dataset, or the folder `datasets.save` wrote (workers read it from there).
        workers: processes; `settings.training.workers` when None. Each gets its share of the cores.
        out_dir: one folder a symbol (names.slug) is made in it.

    Returns:
        One Outcome a symbol, in the order given.
    """
    out_dir = Path(out_dir)
    workers = max(1, workers or settings.training.workers)
    threads = max(1, (os.cpu_count() or 1) // workers)
    if isinstance(dataset, Dataset):
        dataset = datasets.save(dataset, out_dir / ".dataset")
    found: dict[str, Outcome] = {}
    # Spawned, not forked: TensorFlow's threads do not survive a fork.
    with ProcessPoolExecutor(
        max_workers=workers, mp_context=get_context("spawn"), max_tasks_per_child=None
    ) as pool:
        waiting = {
            pool.submit(
                _work,
                str(parent),
                str(dataset),
                symbol,
                fold,
                settings,
                str(out_dir / names.slug(symbol)),
                threads,
            ): symbol
            for symbol in symbols
        }
        for done in as_completed(waiting):
            symbol = waiting[done]
            try:
                found[symbol] = Outcome(symbol, Path(done.result()))
            except Exception as error:  # one symbol's failure is told, the others go on
                found[symbol] = Outcome(symbol, None, f"{type(error).__name__}: {error}")
            if progress is not None:
                progress(f"{symbol}: {found[symbol].error or 'trained'}")
    return [found[symbol] for symbol in symbols]


def ladder(
    dataset: Dataset,
    rows: np.ndarray,
    *,
    linear: TrainedModel,
    universal: TrainedModel,
    own: dict[str, TrainedModel],
) -> pl.DataFrame:
    """Log loss and accuracy of each rung for each symbol, on the same rows and classes.

    Returns:
        `symbol, rows, linear_log_loss, universal_log_loss, own_log_loss, linear_accuracy, universal_accuracy,
        own_accuracy, answers`: who should answer, the first rung that the next does not beat.
    """
    label = dataset.classes(universal.info.thresholds)
    found = []
    for symbol in dataset.symbols:
        mine = rows[np.isin(rows, dataset.of_symbol(symbol))]
        if not len(mine):
            continue
        line: dict[str, Any] = {"symbol": symbol, "rows": len(mine)}
        rungs = {"linear": linear, "universal": universal, "own": own.get(symbol)}
        for name, model in rungs.items():
            p = None if model is None else model.answers(dataset, mine)["probabilities"]
            truth = label[mine].astype(int)
            line[f"{name}_log_loss"] = (
                None
                if p is None
                else float(-np.log(np.clip(p[np.arange(len(p)), truth], 1e-12, None)).mean())
            )
            line[f"{name}_accuracy"] = None if p is None else float((p.argmax(axis=1) == truth).mean())
        answers = "linear"
        for name in ("universal", "own"):
            if (
                line[f"{name}_log_loss"] is not None
                and line[f"{name}_log_loss"] < line[f"{answers}_log_loss"]
            ):
                answers = name
        found.append({**line, "answers": answers})
    return pl.DataFrame(found)
