"""Train on the packaged stocks and predict the held-out span: the package used from Python, without a pipeline.

python examples/train_and_predict.py OUT [--epochs N]
"""

from __future__ import annotations

import argparse
from pathlib import Path

import polars as pl

from barcast import splits, training
from barcast.bars.sources import open_source
from barcast.config import Config, load
from barcast.training.prepare import from_bars


def main() -> None:
    """Bars → data set → models → an exported model, predictions and a plot."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", type=Path)
    parser.add_argument("--epochs", type=int, default=12)
    given = parser.parse_args()
    given.out.mkdir(parents=True, exist_ok=True)

    config: Config = load(None, training={"max_epochs": given.epochs})
    bars = open_source(config.source, interval=config.interval, calendar=config.universe.calendar).fetch()
    dataset = from_bars(bars, config)
    fold = splits.holdout(
        dataset.rows, config.splits
    )  # train, validation, calibration, test: in this order of time
    print(
        f"{bars.height:,} bars of {len(dataset.symbols)} symbols: {len(dataset):,} windows, tested from {fold.cutoff}"
    )

    linear = training.train_linear(dataset, fold, config)
    network = training.train_universal(dataset, fold, config, given.out / "fit", progress=print)
    served = network.export(given.out / "served" / "1")

    thresholds = linear.info.thresholds  # classes must mean the same for all who are compared
    frames = [
        model.predictions(dataset, fold.test, name=name, thresholds=thresholds)
        for name, model in (("linear", linear), ("network", network))
    ]
    predictions = pl.concat(frames)
    predictions.write_csv(given.out / "predictions.csv")
    for (name,), part in predictions.group_by("model", maintain_order=True):
        print(
            f"{name}: {right(part).mean():.1%} right of {part.height:,}; commonest class {commonest(part):.1%}"
        )
    plot(predictions, given.out / "train_and_predict.png")
    print(f"Served model: {served}; predictions.csv and a plot lie beside it.")


def right(predictions: pl.DataFrame) -> pl.Series:
    """Whether the likeliest class (SELL, HOLD, BUY) was the one that came."""
    said = predictions.select("p_sell", "p_hold", "p_buy").to_numpy().argmax(axis=1)
    return pl.Series("right", said == predictions["label"].to_numpy())


def commonest(predictions: pl.DataFrame) -> float:
    """Share of the class that comes most often: what a constant answer would get right."""
    return float(predictions["label"].value_counts(normalize=True)["proportion"].max())  # type: ignore[arg-type]


def plot(predictions: pl.DataFrame, path: Path) -> None:
    """Share of right answers over time, in quarters, against always saying the commonest class."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(figsize=(9, 4))
    for (name,), part in predictions.group_by("model", maintain_order=True):
        quarters = (
            part.with_columns(right(part), pl.col("event_timestamp").dt.truncate("1q").alias("quarter"))
            .group_by("quarter")
            .agg(pl.col("right").mean())
            .sort("quarter")
        )
        axes.plot(quarters["quarter"], quarters["right"], marker="o", label=str(name))
    axes.axhline(commonest(predictions), color="grey", linestyle="--", label="commonest class")
    axes.set_ylabel("share right")
    axes.set_title("Right answers on the held-out span, by quarter")
    axes.legend()
    figure.savefig(path, dpi=110, bbox_inches="tight")
    plt.close(figure)


if __name__ == "__main__":
    main()
