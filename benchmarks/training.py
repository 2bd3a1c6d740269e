"""Training speed: our trainer against stock Keras `fit` on the same network with materialised windows.

Both sides in one run, on simulated features of a given width; prints samples/s, memory, validation loss. Usage:
`python benchmarks/training.py [--preset standard] [--features 160] [--rows 6000] [--batch 64] [--scaling]`;
on a GPU with `KERAS_BACKEND=jax`.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from typing import Any

import numpy as np

LOOKBACK = 60
PRESETS = {"laptop": 256, "standard": 64, "large": 64}  # with the batch each trains by


def dataset_of(rows: int, features: int, symbols: int) -> Any:
    """A dataset with a weak signal: `rows` bars in all, shared by the symbols."""
    from datetime import UTC, datetime, timedelta

    import polars as pl

    from barcast.datasets import Dataset

    rng = np.random.default_rng(0)
    each = rows // symbols + LOOKBACK
    matrix = rng.normal(size=(each * symbols, features)).astype(np.float32)
    ends = np.concatenate([np.arange(s * each + LOOKBACK - 1, (s + 1) * each) for s in range(symbols)])
    outcome = 0.004 * matrix[ends, 0] + 0.01 * rng.normal(size=len(ends))
    start = datetime(2024, 1, 1, tzinfo=UTC)
    at = ends % each
    times = [start + timedelta(minutes=5 * int(i)) for i in at]
    frame = pl.DataFrame(
        {
            "symbol": [f"S{e // each:02d}" for e in ends],
            "event_timestamp": times,
            "label_start_timestamp": times,
            "label_end_timestamp": [t + timedelta(minutes=30) for t in times],
            "forward_log_return": outcome,
            "volatility": np.full(len(ends), 0.01),
            "duration_bars": np.full(len(ends), 5),
            "touch": pl.Series([None] * len(ends), dtype=pl.Int8),
        }
    ).with_columns(pl.col("^.*timestamp$").cast(pl.Datetime("us", "UTC")))
    return Dataset(
        features=matrix,
        feature_names=tuple(f"f{i}" for i in range(features)),
        lookback_bars=LOOKBACK,
        window_end=ends.astype(np.int64),
        symbol_id=(ends // each + 1).astype(np.int32),
        symbols=tuple(f"S{s:02d}" for s in range(symbols)),
        rows=frame,
    )


def settings_of(args: argparse.Namespace) -> Any:
    from barcast.config.models import ModelConfig, TrainingConfig
    from barcast.training import PlainSettings

    return PlainSettings(
        model=ModelConfig(preset=args.preset, recurrence=args.recurrence),
        training=TrainingConfig(batch_size=args.batch, max_epochs=args.epochs, patience_epochs=99),
    )


def peak_mib() -> dict[str, float]:
    """Peak memory of this process, MiB: resident, and on the device where JAX has one of its own."""
    import resource

    import keras

    found = {"peak_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024}
    if keras.backend.backend() == "jax":
        import jax

        device = jax.local_devices()[0]
        if device.platform == "gpu":
            found["device_mib"] = device.memory_stats()["peak_bytes_in_use"] / 2**20
    return found


def prepared(args: argparse.Namespace) -> tuple[Any, ...]:
    from barcast import splits
    from barcast.models.presets import architecture
    from barcast.training import common, targets

    dataset, settings = dataset_of(args.rows, args.features, args.symbols), settings_of(args)
    fold = splits.holdout(dataset.rows, settings.splits)
    common.begin(settings)
    thresholds = common.thresholds_of(dataset, fold, settings)
    made = targets.make(dataset, fold.train, thresholds, settings.training, settings.labels)
    shape = architecture(settings.model, num_features=args.features, lookback_bars=LOOKBACK)
    return dataset, settings, fold, made, shape


def ours(args: argparse.Namespace) -> dict[str, float]:
    """Our network and trainer: fused or unrolled LSTM, windows gathered by index."""
    from barcast.training import trainer
    from barcast.training.trained import make_network
    from barcast.training.universal import return_scale

    dataset, settings, fold, made, shape = prepared(args)
    network = make_network("network", shape, 7)
    network.statistics.return_scale.assign(return_scale(made, fold.train))
    history = trainer.fit(
        network,
        dataset,
        fold.train,
        fold.validation,
        made,
        settings.training,
        trainer.Plan.of(settings.training, args.preset),
        seed=7,
    )
    # The first epoch holds the tracing; both sides leave it out.
    quick = min(epoch["seconds"] for epoch in history.epochs[1:])
    return {
        "samples_per_second": len(fold.train) / quick,
        "validation_class_loss": min(e["val_class"] for e in history.epochs),
        **peak_mib(),
    }


def stock(args: argparse.Namespace) -> dict[str, float]:
    """The same network from stock Keras layers, trained by `fit` on materialised windows, the class head only."""
    import keras

    dataset, settings, fold, made, shape = prepared(args)
    p, layers = shape, keras.layers
    window, symbol = keras.Input((LOOKBACK, args.features)), keras.Input((), dtype="int32")
    x = window
    for units in p.lstm_units:
        x = layers.LSTM(units, return_sequences=True, dropout=0.0, recurrent_dropout=p.recurrent_dropout)(x)
        x = layers.Dropout(p.lstm_dropout)(x)
    last = x[:, -1:]
    attended = layers.MultiHeadAttention(p.attention_heads, p.attention_key_dim, dropout=p.attention_dropout)(
        last, x
    )
    joined = layers.LayerNormalization()(layers.Add()([last, attended]))
    embedded = layers.Embedding(p.symbol_capacity, p.symbol_embedding_dim)(symbol)
    context = layers.Concatenate()([joined[:, 0], last[:, 0], embedded])
    regimes = [layers.Dense(3, activation="softmax")(context), layers.Dense(3, activation="softmax")(context)]
    hidden = layers.Concatenate()([context, *regimes, layers.Dense(1, activation="sigmoid")(context)])
    for units in p.dense_units:
        hidden = layers.Dropout(p.dense_dropout)(layers.Dense(units, activation="relu")(hidden))
    model = keras.Model([window, symbol], layers.Dense(3)(hidden))
    config = settings.training
    rate = keras.optimizers.schedules.CosineDecay(
        config.learning_rate, args.epochs * (len(fold.train) // args.batch) + 1
    )
    model.compile(
        keras.optimizers.AdamW(rate, weight_decay=config.weight_decay, global_clipnorm=config.clip_norm),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
    )
    inputs = {
        name: [dataset.windows(rows), dataset.symbol_id[rows]]
        for name, rows in (("train", fold.train), ("validation", fold.validation))
    }
    label, weight = made.arrays["label"], made.arrays["weight"]
    seconds: list[float] = []

    class Clock(keras.callbacks.Callback):
        def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
            self.began = time.perf_counter()

        def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
            seconds.append(time.perf_counter() - self.began)

    history = model.fit(
        inputs["train"],
        label[fold.train],
        sample_weight=weight[fold.train],
        validation_data=(inputs["validation"], label[fold.validation]),
        batch_size=args.batch,
        epochs=args.epochs,
        verbose=0,
        callbacks=[Clock()],
    )
    return {
        "samples_per_second": len(fold.train) / min(seconds[1:]),
        "validation_class_loss": min(history.history["val_loss"]),
        **peak_mib(),
    }


def in_own_process(side: str, args: argparse.Namespace) -> dict[str, float]:
    """One side in a fresh process, so that memory is its own."""
    command = [sys.executable, __file__, "--side", side]
    for name in ("preset", "features", "rows", "batch", "epochs", "symbols", "recurrence"):
        command += [f"--{name}", str(getattr(args, name))]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{side} failed:\n{done.stderr[-2000:]}")
    found: dict[str, float] = json.loads(done.stdout.strip().splitlines()[-1])
    return found


def compared(args: argparse.Namespace) -> list[dict[str, Any]]:
    """Both sides of one preset."""
    from _common import row

    a, b = in_own_process("ours", args), in_own_process("stock", args)
    what = f"{args.preset}, {args.features} features, batch {args.batch}, LSTM {args.recurrence}"
    return [
        row(f"training, {what}", a["samples_per_second"], b["samples_per_second"], "samples/s"),
        *[
            row(f"peak {memory}, {args.preset}", a[key], b[key], "MiB", higher_is_better=False)
            for key, memory in (("peak_mib", "memory"), ("device_mib", "memory of the device"))
            if key in a
        ],
        row(
            f"validation class loss, {args.preset}",
            a["validation_class_loss"],
            b["validation_class_loss"],
            "nats",
            higher_is_better=False,
        ),
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--preset", choices=sorted(PRESETS), help="Only this one; without it laptop and standard."
    )
    parser.add_argument("--features", type=int, default=160)
    parser.add_argument("--rows", type=int, default=6000)
    parser.add_argument("--batch", type=int, help="The preset's own without it.")
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--symbols", type=int, default=1)
    parser.add_argument(
        "--recurrence",
        choices=["auto", "fused", "unrolled"],
        default="auto",
        help="The LSTM's form on our side.",
    )
    parser.add_argument("--scaling", action="store_true", help="Also time 1, 4 and 16 symbols at `laptop`.")
    parser.add_argument("--side", choices=["ours", "stock"])
    args = parser.parse_args()
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    if args.side:
        print(json.dumps({"ours": ours, "stock": stock}[args.side](args)))
        return
    sys.path.insert(0, os.path.dirname(__file__))
    from _common import report, row

    results = []
    for preset in [args.preset] if args.preset else ("laptop", "standard"):
        batch = args.batch or PRESETS[preset]
        results += compared(argparse.Namespace(**{**vars(args), "preset": preset, "batch": batch}))
    if args.scaling:
        for symbols in (1, 4, 16):
            sized = {
                "symbols": symbols,
                "rows": 2000 * symbols,
                "preset": "laptop",
                "batch": PRESETS["laptop"],
            }
            began = time.perf_counter()
            in_own_process("ours", argparse.Namespace(**{**vars(args), **sized}))
            seconds = time.perf_counter() - began
            results.append(row(f"whole training of {symbols} symbols, 2,000 rows each", seconds, None, "s"))
    report("training", results)


if __name__ == "__main__":
    main()
