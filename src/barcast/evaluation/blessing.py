"""TFX's sliced model analysis of predictions already made, and its blessing.

The only module that imports `tensorflow_model_analysis` (8-18 s, and about half a minute per 50,000 rows):
one step calls it once per run. Rows of candidate and incumbent in; a table of slices, and a verdict like
TFX's Evaluator (value and change thresholds per slice), out. Slices: all, symbol, regime, hour, confidence
band.
"""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from barcast.config.evaluation import EvaluationConfig
from barcast.evaluation import frames
from barcast.evaluation.gate_types import Check

SLICES = ("symbol", "regime", "hour", "confidence_band")
_NOT_JUDGED = ("confidence_band",)  # a model chooses its own bands: shown, but no ground for a refusal


@dataclass(frozen=True)
class Blessing:
    """What TFX's model analysis says.

    Attributes:
        blessed: its validation passed: no judged slice below the value threshold, or worse than the incumbent
            by more than the change threshold.
        reasons: the failed thresholds in words.
        table: slice, rows, accuracy, log_loss, accuracy_change (NaN without incumbent), judgement.
        path: folder of TFMA's own output, for its viewers; None when it was not kept.
    """

    blessed: bool
    reasons: tuple[str, ...]
    table: pl.DataFrame
    path: Path | None = None

    def check(self) -> Check:
        """For `gate.decide`."""
        return Check("blessing", self.blessed, self.sentence)

    @property
    def sentence(self) -> str:
        """One line for the report."""
        judged = int((self.table["judgement"] != "shown").sum())
        if self.blessed:
            return f"TFX's model analysis blesses the model: {judged} slices are within the thresholds."
        return "TFX's model analysis does not bless the model: " + "; ".join(self.reasons) + "."


def bless(
    candidate: pl.DataFrame,
    incumbent: pl.DataFrame | None,
    config: EvaluationConfig | None = None,
    *,
    output: Path | None = None,
) -> Blessing:
    """Run the sliced analysis on the newest `tfma_max_rows` rows.

    Args:
        candidate, incumbent: predictions frames of the same rows; without an incumbent only values are
            judged.
        output: folder for TFMA's files; a temporary one otherwise.
    """
    config = config or EvaluationConfig()
    rows = frames.check(candidate)
    rival = None if incumbent is None else frames.check(incumbent, name="incumbent")
    newest = rows["event_timestamp"].rank("ordinal", descending=True) <= config.tfma_max_rows
    rows = rows.filter(newest)
    rival = None if rival is None else rival.filter(newest)
    data = _examples(rows, rival)
    if output is None:
        with tempfile.TemporaryDirectory() as folder:
            return _analyse(data, rival is not None, config, Path(folder), None)
    output.mkdir(parents=True, exist_ok=True)
    return _analyse(data, rival is not None, config, output, output)


def _examples(rows: pl.DataFrame, rival: pl.DataFrame | None) -> pl.DataFrame:
    band = (rows["confidence"] * 10).floor().clip(0, 9).to_list()
    data = pl.DataFrame(
        {
            "label": rows["label"].cast(pl.Int64),
            "candidate": pl.Series(list(frames.probabilities(rows))),
            "symbol": rows["symbol"],
            "regime": rows["regime"],
            "hour": rows["event_timestamp"].dt.strftime("%H"),
            "confidence_band": [f"{b / 10:.1f}-{(b + 1) / 10:.1f}" for b in band],
        }
    )
    if rival is None:
        return data
    return data.with_columns(pl.Series("incumbent", list(frames.probabilities(rival))))


def _analyse(
    data: pl.DataFrame, compared: bool, config: EvaluationConfig, folder: Path, kept: Path | None
) -> Blessing:
    import tensorflow_model_analysis as tfma
    from tensorflow_model_analysis.proto import config_pb2 as spec

    keys = [k for k in SLICES if data[k].n_unique() > 1]
    judged = [k for k in keys if k not in _NOT_JUDGED]
    names = ["candidate", "incumbent"] if compared else ["candidate"]
    eval_config = spec.EvalConfig(
        model_specs=[spec.ModelSpec(name=n, prediction_key=n, label_key="label") for n in names],
        slicing_specs=[spec.SlicingSpec(), *(spec.SlicingSpec(feature_keys=[k]) for k in keys)],
        metrics_specs=[_metrics(spec, name, _threshold(spec, config, judged, data)) for name in names],
    )
    tfma.analyze_raw_data(data.to_pandas(), eval_config, output_path=str(folder))
    result = {n: tfma.load_eval_result(str(folder), model_name=n) for n in names}
    validation = tfma.load_validation_result(str(folder))
    return _read(result, validation, data, judged, config, kept, compared)


def _metrics(spec: Any, model: str, threshold: Any) -> Any:
    accuracy: dict[str, Any] = {"class_name": "SparseCategoricalAccuracy"}
    if model == "candidate":
        accuracy["per_slice_thresholds"] = [threshold]
    return spec.MetricsSpec(
        model_names=[model],
        metrics=[
            spec.MetricConfig(class_name="ExampleCount"),
            spec.MetricConfig(class_name="SparseCategoricalCrossentropy"),
            spec.MetricConfig(**accuracy),
        ],
    )


def _threshold(spec: Any, config: EvaluationConfig, judged: list[str], data: pl.DataFrame) -> Any:
    """The value threshold of the slices that are large enough to be judged."""
    slices = [spec.SlicingSpec()]
    for key in judged:
        counts = data.group_by(key).len().filter(pl.col("len") >= config.tfma_min_slice_rows)
        slices += [spec.SlicingSpec(feature_values={key: value}) for value in sorted(counts[key].to_list())]
    return spec.PerSliceMetricThreshold(
        slicing_specs=slices,
        threshold=spec.MetricThreshold(value_threshold={"lower_bound": {"value": config.min_slice_accuracy}}),
    )


def _read(
    result: Any,
    validation: Any,
    data: pl.DataFrame,
    judged: list[str],
    config: EvaluationConfig,
    kept: Path | None,
    compared: bool,
) -> Blessing:
    failures: dict[str, str] = {}
    for per_slice in validation.metric_validations_per_slice:
        if per_slice.failures:
            name = _slice_name(tuple((k.column, _text(k)) for k in per_slice.slice_key.single_slice_keys))
            failures[name] = f"below {config.min_slice_accuracy:.0%}"
    own = _values(result, "candidate")
    base = _values(result, "incumbent") if compared else {}
    rows = []
    for name, numbers in sorted(own.items(), key=lambda item: (item[0] != "all", item[0])):
        small = numbers["rows"] < config.tfma_min_slice_rows
        shown = name != "all" and (small or name.split("=")[0] not in judged)
        change = numbers["accuracy"] - base.get(name, {}).get("accuracy", float("nan"))
        # TFMA drops change thresholds where models are given as columns, so its own figures are compared here
        if not shown and change < -config.max_slice_accuracy_drop - _chance(numbers):
            allowed = f"chance and {config.max_slice_accuracy_drop:.1%}"
            worse = f"{-change:.1%} below the incumbent, more than {allowed}"
            failures[name] = f"{failures[name]} and {worse}" if name in failures else worse
        verdict = "shown" if shown else failures.get(name, "within limits")
        rows.append({"slice": name, **numbers, "accuracy_change": change, "judgement": verdict})
    reasons = [f"slice {name}: accuracy {why}" for name, why in failures.items()]
    if not validation.validation_ok and not reasons:
        reasons = ["its validation failed without naming a slice"]
    return Blessing(bool(validation.validation_ok) and not reasons, tuple(reasons), pl.DataFrame(rows), kept)


def _chance(numbers: dict[str, float]) -> float:
    """Three standard errors of a difference of two accuracies: what a small slice shows between equal
    models.
    """
    accuracy = numbers["accuracy"]
    return float(3 * np.sqrt(2 * accuracy * (1 - accuracy) / numbers["rows"]))


def _values(result: Any, model: str) -> dict[str, dict[str, float]]:
    """Slice name -> rows, accuracy, log_loss of one model."""
    names = {
        "example_count": "rows",
        "sparse_categorical_accuracy": "accuracy",
        "sparse_categorical_crossentropy": "log_loss",
    }
    out = {}
    for slice_key, metrics in result[model].slicing_metrics:
        flat = metrics[""][""]
        out[_slice_name(slice_key)] = {
            new: float(flat[old].get("doubleValue", np.nan)) for old, new in names.items() if old in flat
        }
    return out


def _slice_name(key: tuple[tuple[str, Any], ...]) -> str:
    return ", ".join(f"{column}={value}" for column, value in key) if key else "all"


def _text(key: Any) -> str:
    kind = key.WhichOneof("kind")
    value = getattr(key, kind)
    return value.decode() if isinstance(value, bytes) else str(value)
