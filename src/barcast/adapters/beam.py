"""Bulk scoring of a long history: TFX's RunInference on Apache Beam, over the SavedModel's `score_examples`
signature.

A dataset folder (`datasets.save`) and an exported model come in; workers gather windows by index, score them,
and write Parquet; `read` gives the predictions frame. The local runner by default, any Beam runner by name
and options (the folder and the model then lie on storage that the workers share).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl

from barcast.errors import ModelError

if TYPE_CHECKING:
    from barcast.labels import Thresholds

LOCAL = "local"
# Beam's name "DirectRunner" may look for another runner to download; this one is inside the package.
_LOCAL_RUNNER = "apache_beam.runners.portability.fn_api_runner.FnApiRunner"
_SINGLE = ("confidence", "uncertainty", "expected_return", "expected_volatility", "position_size")
COLUMNS = ("row", "p_sell", "p_hold", "p_buy", *_SINGLE)


def settings_of(runner: str, options: Sequence[str]) -> Any:
    """Beam's options for a runner by name; "local" runs in this process, or with `processes(n)` in several."""
    from apache_beam.options.pipeline_options import PipelineOptions

    return PipelineOptions([f"--runner={_LOCAL_RUNNER if runner == LOCAL else runner}", *options])


def processes(number: int) -> list[str]:
    """Options that let the local runner work in `number` processes of this machine."""
    return ["--direct_running_mode=multi_processing", f"--direct_num_workers={number}"]


def score(
    model: Path,
    dataset_folder: Path,
    output: Path,
    *,
    rows: Sequence[int] | np.ndarray | None = None,
    runner: str = LOCAL,
    options: Sequence[str] = (),
    shard_rows: int = 1024,
    batch_size: int = 256,
) -> Path:
    """Score rows of a saved dataset into Parquet files under `output`.

    Args:
        model: exported SavedModel directory.
        dataset_folder: folder written by `datasets.save`.
        rows: positions to score; all of them where absent.
        runner: "local", or a Beam runner such as "SparkRunner", "FlinkRunner", "DataflowRunner".
        options: further Beam pipeline options, such as "--project=...".
        shard_rows: rows of one unit of work.
        batch_size: largest batch given to the model.

    Raises:
        ModelError: the model has no `score_examples` signature, or the pipeline failed.
    """
    import importlib

    from tfx_bsl.public.beam import RunInference
    from tfx_bsl.public.proto import model_spec_pb2

    from barcast import datasets

    beam: Any = importlib.import_module("apache_beam")  # its functions carry no types
    if not (Path(model) / "saved_model.pb").exists():
        raise ModelError(
            f"{model} is no SavedModel.", hint="Export the model first: TrainedModel.export(path)."
        )
    dataset = datasets.load(dataset_folder)
    positions = np.arange(len(dataset)) if rows is None else np.asarray(rows, dtype=np.int64)
    shards = [positions[i : i + shard_rows].tolist() for i in range(0, len(positions), shard_rows)]
    output.mkdir(parents=True, exist_ok=True)
    spec = model_spec_pb2.InferenceSpecType(
        saved_model_spec=model_spec_pb2.SavedModelSpec(
            model_path=str(model), signature_name=["score_examples"]
        ),
        batch_parameters=model_spec_pb2.BatchParameters(min_batch_size=1, max_batch_size=batch_size),
    )
    try:
        with beam.Pipeline(options=settings_of(runner, options)) as pipeline:
            _ = (
                pipeline
                | "Shards" >> beam.Create(shards)
                | "Spread" >> beam.Reshuffle()
                # the stated type tells RunInference that the examples carry keys
                | "Examples"
                >> beam.FlatMap(
                    _examples, folder=str(dataset_folder), numbers=_numbers(Path(model), dataset.symbols)
                ).with_output_types(tuple[int, bytes])
                | "Score" >> RunInference(spec)
                | "Rows" >> beam.Map(_row)
                | "Write"
                >> beam.io.WriteToParquet(str(output / "scores"), _schema(), file_name_suffix=".parquet")
            )
    except ValueError as error:
        raise ModelError(
            f"Bulk scoring with {model} failed: {error}",
            hint="The model must have the signature score_examples, and the dataset its features.",
        ) from error
    return output


def read(
    output: Path, dataset_folder: Path, *, name: str = "model", thresholds: Thresholds | None = None
) -> pl.DataFrame:
    """The scored rows joined with their keys and outcomes: a predictions frame, sorted by symbol and time.

    Args:
        thresholds: of the classes in `label`; without them `label` is left out.

    Raises:
        ModelError: `output` holds no scores.
    """
    from barcast import datasets

    files = sorted(output.glob("scores*.parquet"))
    if not files:
        raise ModelError(f"{output} holds no scores.", hint="Run adapters.beam.score first.")
    dataset = datasets.load(dataset_folder)
    known = dataset.rows.with_row_index("row").with_columns(pl.col("row").cast(pl.Int64))
    if thresholds is not None:
        known = known.with_columns(pl.Series("label", dataset.classes(thresholds)))
    return (
        pl.read_parquet(files)
        .join(known, on="row", how="left")
        .with_columns(pl.lit(name).alias("model"), pl.lit(0, dtype=pl.Int32).alias("fold"))
        .drop("row")
        .sort("symbol", "event_timestamp")
    )


_LOADED: dict[str, Any] = {}


def _dataset(folder: str) -> Any:
    """The dataset of this worker, loaded once."""
    from barcast import datasets

    if folder not in _LOADED:
        _LOADED.clear()
        _LOADED[folder] = datasets.load(Path(folder))
    return _LOADED[folder]


def _numbers(model: Path, symbols: Sequence[str]) -> list[int]:
    """What the model calls the ids 0, 1, ... of the dataset's symbols; 0 where it does not know one."""
    from barcast.models import savedmodel

    known = savedmodel.read_json(model, "serving.json").get("symbol_ids", {})
    return [0, *(int(known.get(symbol, 0)) for symbol in symbols)]


def _examples(shard: list[int], folder: str, numbers: list[int]) -> Iterator[tuple[int, bytes]]:
    """(position, serialized tf.Example with `window` and `symbol_id`) of each row of a shard."""
    import tensorflow as tf

    dataset = _dataset(folder)
    positions = np.asarray(shard)
    for position, window in zip(shard, dataset.windows(positions), strict=True):
        symbol = numbers[int(dataset.symbol_id[position])]
        example = tf.train.Example(
            features=tf.train.Features(
                feature={
                    # a list: from an array the message takes nine times as long
                    "window": tf.train.Feature(float_list=tf.train.FloatList(value=window.ravel().tolist())),
                    "symbol_id": tf.train.Feature(int64_list=tf.train.Int64List(value=[symbol])),
                }
            )
        )
        yield position, example.SerializeToString()


def _row(scored: tuple[int, Any]) -> dict[str, float | int]:
    """One output row of a keyed PredictionLog."""
    import tensorflow as tf

    position, log = scored
    outputs = log.predict_log.response.outputs
    p = tf.make_ndarray(outputs["probabilities"]).ravel()
    out: dict[str, float | int] = {
        "row": position,
        "p_sell": float(p[0]),
        "p_hold": float(p[1]),
        "p_buy": float(p[2]),
    }
    return out | {name: float(tf.make_ndarray(outputs[name]).ravel()[0]) for name in _SINGLE}


def _schema() -> Any:
    import pyarrow as pa

    return pa.schema([("row", pa.int64()), *((c, pa.float64()) for c in COLUMNS[1:])])
