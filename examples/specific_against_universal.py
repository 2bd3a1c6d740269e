"""Is a symbol's own model better than the universal one? Each symbol, on the same held-out rows, with chance drawn in.

python examples/specific_against_universal.py OUT [--epochs N] [--symbols AAPL,MSFT]
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from barcast import splits, training
from barcast.bars.sources import open_source
from barcast.config import load
from barcast.training.prepare import from_bars

BLOCK_ROWS = 20  # rows that follow one another share their outcome: whole blocks are drawn again
DRAWS = 2000


def main() -> None:
    """Train the universal model, then each symbol's own from it, and compare row by row."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", type=Path)
    parser.add_argument("--epochs", type=int, default=8)
    parser.add_argument("--symbols", default="", help="comma separated; all with enough rows when empty")
    given = parser.parse_args()
    given.out.mkdir(parents=True, exist_ok=True)

    config = load(None, training={"max_epochs": given.epochs, "transfer_epochs": given.epochs})
    bars = open_source(config.source, interval=config.interval, calendar=config.universe.calendar).fetch()
    dataset = from_bars(bars, config)
    fold = splits.holdout(dataset.rows, config.splits)
    universal = training.train_universal(dataset, fold, config, given.out / "universal", progress=print)
    label = dataset.classes(universal.info.thresholds)

    lines, curves = [], {}
    for symbol in given.symbols.split(",") if given.symbols else dataset.symbols:
        own_rows = np.intersect1d(fold.train, dataset.of_symbol(symbol))
        if len(own_rows) < config.training.min_symbol_rows:
            print(f"{symbol}: {len(own_rows)} training rows are too few for a model of its own")
            continue
        rows = fold.test[np.isin(fold.test, dataset.of_symbol(symbol))]
        own = training.train_symbol(universal, dataset, symbol, fold, config, given.out / symbol.lower())
        gain = loss(universal, dataset, rows, label) - loss(own, dataset, rows, label)
        low, high = interval(gain)
        lines.append(
            {"symbol": symbol, "rows": len(rows), "gain": float(gain.mean()), "low": low, "high": high}
        )
        curves[symbol] = (dataset.column("event_timestamp")[rows], np.cumsum(gain))
    table = pl.DataFrame(lines)
    table.write_csv(given.out / "comparison.csv")
    with pl.Config(tbl_rows=-1, float_precision=4):
        print(table)
    plot(table, curves, given.out)
    surely = table.filter(pl.col("low") > 0)["symbol"].to_list()
    print(f"Own models better beyond chance: {', '.join(surely) or 'none'} of {table.height}.")


def loss(model: Any, dataset: Any, rows: np.ndarray, label: np.ndarray) -> np.ndarray:
    """Log loss of each row, in nats."""
    p = model.answers(dataset, rows)["probabilities"]
    return -np.log(np.clip(p[np.arange(len(rows)), label[rows].astype(int)], 1e-12, None))


def interval(gain: np.ndarray, seed: int = 7) -> tuple[float, float]:
    """95% interval of the mean by a bootstrap of whole blocks."""
    random = np.random.default_rng(seed)
    blocks = max(1, len(gain) // BLOCK_ROWS)
    parts = np.array_split(gain, blocks)
    means = np.array([part.mean() for part in parts])
    drawn = means[random.integers(0, blocks, (DRAWS, blocks))].mean(axis=1)
    low, high = np.quantile(drawn, [0.025, 0.975])
    return float(low), float(high)


def plot(table: pl.DataFrame, curves: dict[str, tuple[Any, np.ndarray]], folder: Path) -> None:
    """Mean gain with its interval a symbol, and how the gain adds up over time."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(figsize=(8, 4))
    gain = table["gain"].to_numpy()
    bars = np.abs(np.stack([gain - table["low"].to_numpy(), table["high"].to_numpy() - gain]))
    axes.errorbar(table["symbol"].to_list(), gain, yerr=bars, fmt="o", capsize=4)
    axes.axhline(0, color="grey", linestyle="--")
    axes.set_ylabel("nats per row, above 0: own model better")
    axes.set_title("A symbol's own model against the universal one (95% interval)")
    figure.savefig(folder / "gain_by_symbol.png", dpi=110, bbox_inches="tight")
    plt.close(figure)

    figure, axes = plt.subplots(figsize=(8, 4))
    for symbol, (times, total) in curves.items():
        axes.plot(times, total, label=symbol)
    axes.axhline(0, color="grey", linestyle="--")
    axes.set_ylabel("nats, summed")
    axes.set_title("When the gain came")
    axes.legend()
    figure.savefig(folder / "gain_over_time.png", dpi=110, bbox_inches="tight")
    plt.close(figure)


if __name__ == "__main__":
    main()
