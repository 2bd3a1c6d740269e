"""Models of many symbols: in which order, whom to learn from, side by side, and whether each is worth leaving for.

`priorities` gives an order, `train_symbols` trains each symbol from the universal model and from its most correlated
symbol's model in worker processes and keeps the better one, `ladder` compares what could answer for each symbol.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from barcast import datasets, names
from barcast.datasets import Dataset
from barcast.errors import ConfigError
from barcast.splits import Fold
from barcast.training.settings import Settings
from barcast.workers import Workers


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
    """What became of one symbol's training, or of the ensemble's.

    Attributes:
        folder: of the model kept; None where nothing could be trained.
        error: why, then.
        rungs: validation loss of the universal model and of each transfer, by "universal", "from universal",
            "from SYMBOL"; of the ensemble, log loss by "joined".
    """

    symbol: str
    folder: Path | None
    error: str = ""
    rungs: Mapping[str, float] = field(default_factory=dict)


def _fit(
    parent: str, dataset_folder: str, symbol: str, fold: Fold, settings: Any, out_dir: str, path: str | None
) -> Any:
    """One symbol's fit in a worker process: validation loss of the parent and of the model; exported to `path`."""
    from barcast.training.symbol import train_symbol

    dataset = datasets.load(Path(dataset_folder))
    model = train_symbol(Path(parent), dataset, symbol, fold, settings, Path(out_dir))
    before, after = model.info.facts["parent_validation_loss"], model.info.facts["best_validation_loss"]
    if path is not None:
        _finish(model, dataset, fold, settings, _rungs(names.UNIVERSAL, before, after), path)
    return before, after


def _rungs(parent: str, before: float | None, after: float) -> dict[str, float]:
    """Validation losses by name, as `Outcome.rungs` has them."""
    return ({} if before is None else {"universal": before}) | {f"from {parent}": after}


def _ensemble(universal: Path, linear: Path, dataset: Path, fold: Fold, settings: Any, path: Path) -> Outcome:
    """The ensemble of both with its specialists, exported."""
    from barcast.training.ensemble import train_ensemble
    from barcast.training.trained import TrainedModel

    try:
        network, baseline = (TrainedModel.load(folder) for folder in (universal, linear))
        model = train_ensemble(network, baseline, datasets.load(dataset), fold, settings)
        model.export(path)
    except Exception as error:  # one failure stops no other
        return Outcome(names.ENSEMBLE, None, f"{type(error).__name__}: {error}")
    return Outcome(
        names.ENSEMBLE, path, rungs={"joined": min(model.info.facts["validation_log_loss"].values())}
    )


def _export(
    folder: str, dataset_folder: str, fold: Fold, settings: Any, rungs: dict[str, float], path: str
) -> None:
    """Export one symbol's model that was kept."""
    from barcast.training.trained import TrainedModel

    dataset = datasets.load(Path(dataset_folder))
    _finish(TrainedModel.load(Path(folder)), dataset, fold, settings, rungs, path)


def _finish(
    model: Any, dataset: Dataset, fold: Fold, settings: Any, rungs: dict[str, float], path: str
) -> None:
    """Compressed as the settings say, and exported."""
    from barcast.training.compression import compressed

    compressed(model, dataset, fold, settings).with_facts(rungs=rungs).export(Path(path))


def train_symbols(
    universal: Path,
    dataset: Dataset | Path,
    symbols: Sequence[str],
    fold: Fold,
    settings: Settings,
    out_dir: Path,
    *,
    linear: Path | None = None,
    export_dir: Path | None = None,
    workers: int | None = None,
    progress: Callable[[str], None] | None = None,
) -> list[Outcome]:
    """Train a model for each symbol, in this order of priority; one failure does not stop the rest.

    Each is trained from the universal model. Where `settings.training.transfer_from` asks for it, each is then trained
    again from the model of the symbol among these that moves most like it, which replaces the first one
    ("most_correlated") or does so where its validation loss is lower ("best").

    Args:
        universal: folder of the universal network.
        symbols: may name `names.ENSEMBLE` too, which is then joined from `universal` and `linear` into `export_dir`.
        dataset: the dataset, or the folder `datasets.save` wrote (workers read it from there).
        export_dir: receives each symbol's SavedModel, in a folder named by names.slug.
        workers: processes; `settings.training.workers` when None, and then one for each core of this machine.
        out_dir: one folder a fit is made in it.

    Returns:
        One Outcome a symbol, in the order given.

    Raises:
        ConfigError: the ensemble is asked for without `linear`.
    """
    out_dir = Path(out_dir)
    config = settings.training
    source = datasets.save(dataset, out_dir / ".dataset") if isinstance(dataset, Dataset) else Path(dataset)
    found: dict[str, Outcome] = {}
    own_symbols = [symbol for symbol in symbols if symbol != names.ENSEMBLE]
    joined = Path(export_dir) / names.ENSEMBLE if export_dir and names.ENSEMBLE in symbols else None
    if joined is not None and linear is None:
        raise ConfigError(
            "The ensemble joins two models, and only the universal one is here.", hint="Give `linear` too."
        )

    def say(symbol: str, text: str) -> None:
        if progress is not None:
            progress(f"{symbol}: {text}")

    # With one parent to learn from a fit is final, and its worker exports it while the model is in memory.
    only_one = config.transfer_from == "universal"

    def exported(symbol: str) -> str | None:
        return None if export_dir is None else str(Path(export_dir) / names.slug(symbol))

    with Workers(workers or config.workers, most=max(1, len(own_symbols))) as pool:

        def fit_from(parents: Mapping[str, tuple[str, Path]]) -> None:
            tasks: dict[str, tuple[Any, ...]] = {
                symbol: (
                    _fit,
                    str(parent),
                    str(source),
                    symbol,
                    fold,
                    settings,
                    str(_folder(out_dir, symbol, name)),
                    exported(symbol) if only_one else None,
                )
                for symbol, (name, parent) in parents.items()
            }
            results = pool.run(tasks)
            if joined is not None and linear is not None and names.ENSEMBLE not in found:
                # Here, beside the workers: as one task among theirs it would leave one of them without work at the end.
                made = found[names.ENSEMBLE] = _ensemble(
                    Path(universal), linear, source, fold, settings, joined
                )
                say("ensemble", made.error or f"joined, validation log loss {made.rungs['joined']:.4f}")
            for symbol, result in results:
                name = parents[symbol][0]
                before = found.get(symbol)
                if isinstance(result, Exception):
                    text = f"{type(result).__name__}: {result}"
                    say(symbol, f"from {name} failed: {text}")
                    found.setdefault(symbol, Outcome(symbol, None, text))
                    continue
                rungs = {
                    **(before.rungs if before is not None else {}),
                    **_rungs(name, None if before is not None else result[0], result[1]),
                }
                say(symbol, f"from {name}, validation loss {result[1]:.4f}")
                outcome = Outcome(symbol, _folder(out_dir, symbol, name), rungs=rungs)
                if before is not None and config.transfer_from == "best" and result[1] >= _kept(before):
                    outcome = replace(before, rungs=rungs)
                found[symbol] = outcome

        fit_from({symbol: ("universal", Path(universal)) for symbol in own_symbols})
        if not only_one:
            whole = datasets.load(source)
            own = {symbol: folder for symbol in own_symbols if (folder := found[symbol].folder) is not None}
            parents = {}
            for symbol in own_symbols:
                nearest = most_correlated(whole, fold, symbol, list(own)) if symbol in own else None
                if nearest is not None and nearest[1] > 0:
                    parents[symbol] = (nearest[0], own[nearest[0]])
            fit_from(parents)
        if export_dir is not None and not only_one:
            exports = {
                symbol: (
                    _export,
                    str(found[symbol].folder),
                    str(source),
                    fold,
                    settings,
                    dict(found[symbol].rungs),
                    exported(symbol),
                )
                for symbol in own_symbols
                if found[symbol].folder is not None
            }
            for symbol, result in pool.run(exports):
                if isinstance(result, Exception):
                    text = f"{type(result).__name__}: {result}"
                    say(symbol, f"export failed: {text}")
                    found[symbol] = replace(found[symbol], folder=None, error=text)
    return [found[symbol] for symbol in symbols]


def _folder(out_dir: Path, symbol: str, parent: str) -> Path:
    return (
        out_dir / names.slug(symbol) / f"from-{names.slug(parent) if parent != names.UNIVERSAL else parent}"
    )


def _kept(outcome: Outcome) -> float:
    """Validation loss of the model kept so far."""
    return min(loss for name, loss in outcome.rungs.items() if name != "universal")


def ladder(frames: Mapping[str, pl.DataFrame]) -> pl.DataFrame:
    """Log loss and accuracy of each rung for each symbol, on the same rows and classes.

    Args:
        frames: frames "Predictions" by rung, lowest first ("linear", "universal", "own", ...), with equal labels;
            a rung may lack symbols. Rows are those that the first rung has.

    Returns:
        `symbol, rows`, then `{rung}_log_loss` and `{rung}_accuracy` of every rung (null where it has no rows of the
        symbol), and `best`: the last rung that beat all rungs before it by log loss.
    """
    keys = ["symbol", "event_timestamp"]
    first = next(iter(frames.values()))
    table = first.group_by("symbol").agg(pl.len().alias("rows")).sort("symbol")
    for rung, frame in frames.items():
        known = frame.join(first.select(keys), on=keys, how="semi").filter(pl.col("label").is_not_null())
        p = known.select("p_sell", "p_hold", "p_buy").to_numpy()
        label = known["label"].to_numpy().astype(int)
        scored = known.select("symbol").with_columns(
            pl.Series(f"{rung}_log_loss", -np.log(np.clip(p[np.arange(len(p)), label], 1e-12, None))),
            pl.Series(f"{rung}_accuracy", (p.argmax(axis=1) == label).astype(np.float64)),
        )
        table = table.join(scored.group_by("symbol").mean(), on="symbol", how="left")
    best = []
    for line in table.iter_rows(named=True):
        losses = {rung: line[f"{rung}_log_loss"] for rung in frames}
        lowest = None
        for rung, loss in losses.items():
            if loss is not None and (lowest is None or loss < losses[lowest]):
                lowest = rung
        best.append(lowest)
    return table.sort("symbol").with_columns(pl.Series("best", best, dtype=pl.Utf8))
