"""TFX's sliced model analysis of predictions already made, and its blessing.

The only module that imports `tensorflow_model_analysis` (8-18 s, and about half a minute per 50,000 rows):
one step calls it once per run, for all models together. Rows of each candidate and its incumbent in; per model a
table of slices, and a verdict like TFX's Evaluator (value and change thresholds per slice), out. Slices: all,
symbol, regime, hour, confidence band.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl

from barcast.config.evaluation import EvaluationConfig
from barcast.evaluation import frames
from barcast.workers import Workers

SLICES = ("symbol", "regime", "hour", "confidence_band")
_MODEL = "judged_model"
_NOT_JUDGED = ("confidence_band",)  # a model chooses its own bands: shown, but no ground for a refusal
_ROWS_OF_A_PROCESS = 2_500  # with fewer, importing TFX once more takes longer than it saves


@dataclass(frozen=True)
class Blessing:
    """What TFX's model analysis says.

    Attributes:
        blessed: its validation passed: no judged slice below the value threshold, or worse than the incumbent
            by more than the change threshold.
        reasons: the failed thresholds in words.
        table: slice, rows, accuracy, log_loss, accuracy_change (NaN without incumbent), judgement.
    """

    blessed: bool
    reasons: tuple[str, ...]
    table: pl.DataFrame

    @property
    def sentence(self) -> str:
        """One line for the report."""
        judged = int((self.table["judgement"] != "shown").sum())
        if self.blessed:
            return f"TFX's model analysis blesses the model: {judged} slices are within the thresholds."
        return "TFX's model analysis does not bless the model: " + "; ".join(self.reasons) + "."


Pair = tuple[pl.DataFrame, pl.DataFrame | None]


def bless(pairs: Mapping[str, Pair], config: EvaluationConfig | None = None) -> dict[str, Blessing]:
    """Run the sliced analysis of every model, models spread over the cores.

    Args:
        pairs: model -> (candidate, incumbent) predictions frames of the same rows; without an incumbent only values
            are judged. All models share `tfma_max_rows` rows, drawn from the whole window: those of one symbol
            together as many as each of the others, so that five hundred of them cost what one costs.
    """
    config = config or EvaluationConfig()
    checked = {
        name: (
            frames.check(candidate, name=name),
            None if incumbent is None else frames.check(incumbent, name=f"incumbent of {name}"),
        )
        for name, (candidate, incumbent) in pairs.items()
    }
    single = [name for name, (rows, _) in checked.items() if rows["symbol"].n_unique() == 1]
    share = config.tfma_max_rows // max(1, len(checked) - len(single) + bool(single))
    most = dict.fromkeys(checked, share) | dict.fromkeys(
        single, max(config.tfma_min_slice_rows, share // max(1, len(single)))
    )
    examples = {name: _examples(name, *pair, most[name]) for name, pair in checked.items()}
    compared = {name: rival is not None for name, (_, rival) in checked.items()}
    rows = sum(frame.height for frame in examples.values())
    found: dict[str, Blessing] = {}
    with Workers(most=max(1, min(len(examples), rows // _ROWS_OF_A_PROCESS))) as pool:
        parts = _parts({name: frame.height for name, frame in examples.items()}, pool.count)
        tasks = {
            ", ".join(part): (
                _analyse,
                pl.concat([examples[name] for name in part]),
                {name: compared[name] for name in part},
                config,
            )
            for part in parts
        }
        for _, blessings in pool.run(tasks):
            if isinstance(blessings, BaseException):
                raise blessings
            found |= blessings
    return {name: found[name] for name in pairs}


def _parts(rows: Mapping[str, int], count: int) -> list[list[str]]:
    """The models in at most `count` parts of about as many rows."""
    parts: list[list[str]] = [[] for _ in range(count)]
    for name in sorted(rows, key=lambda name: -rows[name]):
        min(parts, key=lambda part: sum(rows[n] for n in part)).append(name)
    return [part for part in parts if part]


def _examples(name: str, rows: pl.DataFrame, rival: pl.DataFrame | None, most: int) -> pl.DataFrame:
    # From the whole window: the newest rows alone would judge every hour of the day by a day or two.
    both = rows.hstack([pl.Series("rival", list(frames.probabilities(rows if rival is None else rival)))])
    rows = frames.sample(both, most)
    a_day = both.group_by("symbol", pl.col("event_timestamp").dt.date()).len()["len"].max()
    hour = rows["event_timestamp"].dt.strftime("%H")
    band = (rows["confidence"] * 10).floor().clip(0, 9).to_list()
    return pl.DataFrame(
        {
            _MODEL: [name] * rows.height,
            "label": rows["label"].cast(pl.Int64),
            "candidate": pl.Series(list(frames.probabilities(rows))),
            "incumbent": rows["rival"],  # without an incumbent it repeats the candidate and is not read
            "symbol": rows["symbol"],
            "regime": rows["regime"],
            # The hour at which the one bar of a day closes tells summer time, not the market.
            "hour": hour if a_day != 1 else [""] * rows.height,
            "confidence_band": [f"{b / 10:.1f}-{(b + 1) / 10:.1f}" for b in band],
        }
    )


def _analyse(
    data: pl.DataFrame, compared: Mapping[str, bool], config: EvaluationConfig
) -> dict[str, Blessing]:
    import tensorflow_model_analysis as tfma
    from tensorflow_model_analysis.proto import config_pb2 as spec

    keys = [k for k in SLICES if data.group_by(_MODEL).agg(pl.col(k).n_unique() > 1)[k].any()]
    names = ("candidate", "incumbent")
    eval_config = spec.EvalConfig(
        model_specs=[spec.ModelSpec(name=n, prediction_key=n, label_key="label") for n in names],
        slicing_specs=[
            spec.SlicingSpec(feature_keys=[_MODEL]),
            *(spec.SlicingSpec(feature_keys=[_MODEL, k]) for k in keys),
        ],
        metrics_specs=[_metrics(spec, name, _threshold(spec, config, keys, data)) for name in names],
    )
    with tempfile.TemporaryDirectory() as folder:
        tfma.analyze_raw_data(data.to_pandas(), eval_config, output_path=folder)
        own, base = (_values(tfma.load_eval_result(folder, model_name=n)) for n in names)
        validation = tfma.load_validation_result(folder)
    failed = {
        _slice_key((k.column, _text(k)) for k in found.slice_key.single_slice_keys)
        for found in validation.metric_validations_per_slice
        if found.failures
    }
    unexplained = not validation.validation_ok and not failed
    return {
        name: _read(
            {k: v for (of, k), v in own.items() if of == name},
            {k: v for (of, k), v in base.items() if of == name} if compared[name] else {},
            {k for of, k in failed if of == name},
            config,
            unexplained=unexplained,
        )
        for name in compared
    }


def _metrics(spec: Any, model: str, threshold: Any) -> Any:
    accuracy: dict[str, Any] = {"class_name": "SparseCategoricalAccuracy"}
    if model == "incumbent":  # its accuracy is all that is compared, and every metric costs time by the row
        return spec.MetricsSpec(model_names=[model], metrics=[spec.MetricConfig(**accuracy)])
    return spec.MetricsSpec(
        model_names=[model],
        metrics=[
            spec.MetricConfig(class_name="ExampleCount"),
            spec.MetricConfig(class_name="SparseCategoricalCrossentropy"),
            spec.MetricConfig(**accuracy, per_slice_thresholds=[threshold]),
        ],
    )


def _threshold(spec: Any, config: EvaluationConfig, keys: list[str], data: pl.DataFrame) -> Any:
    """The value threshold of the slices that are large enough to be judged."""
    slices = [spec.SlicingSpec(feature_values={_MODEL: name}) for name in sorted(data[_MODEL].unique())]
    for key in keys:
        if key in _NOT_JUDGED:
            continue
        counts = data.group_by(_MODEL, key).len().filter(pl.col("len") >= config.tfma_min_slice_rows)
        slices += [
            spec.SlicingSpec(feature_values={_MODEL: name, key: value})
            for name, value in sorted(counts.select(_MODEL, key).rows())
        ]
    return spec.PerSliceMetricThreshold(
        slicing_specs=slices,
        threshold=spec.MetricThreshold(value_threshold={"lower_bound": {"value": config.min_slice_accuracy}}),
    )


def _read(
    own: Mapping[str, dict[str, float]],
    base: Mapping[str, dict[str, float]],
    failed: set[str],
    config: EvaluationConfig,
    *,
    unexplained: bool,
) -> Blessing:
    """One model's slices (name -> rows, accuracy, log_loss) judged."""
    alone = {key for key in SLICES if sum(name.startswith(f"{key}=") for name in own) == 1}
    failures = {
        name: f"below {config.min_slice_accuracy:.0%}"
        for name in sorted(failed)
        if name.partition("=")[0] not in alone
    }
    rows = []
    for name, numbers in sorted(own.items(), key=lambda item: (item[0] != "all", item[0])):
        key = name.partition("=")[0]
        if key in alone:
            continue  # the only value of its kind: the same rows as "all"
        shown = name != "all" and (numbers["rows"] < config.tfma_min_slice_rows or key in _NOT_JUDGED)
        change = numbers["accuracy"] - base.get(name, {}).get("accuracy", float("nan"))
        # TFMA drops change thresholds where models are given as columns, so its own figures are compared here
        if not shown and change < -config.max_slice_accuracy_drop - _chance(numbers):
            allowed = f"chance and {config.max_slice_accuracy_drop:.1%}"
            worse = f"{-change:.1%} below the incumbent, more than {allowed}"
            failures[name] = f"{failures[name]} and {worse}" if name in failures else worse
        verdict = "shown" if shown else failures.get(name, "within limits")
        rows.append({"slice": name, **numbers, "accuracy_change": change, "judgement": verdict})
    reasons = [f"slice {name}: accuracy {why}" for name, why in failures.items()]
    if unexplained:
        reasons.append("its validation failed without naming a slice")
    return Blessing(not reasons, tuple(reasons), pl.DataFrame(rows))


def _chance(numbers: dict[str, float]) -> float:
    """Three standard errors of a difference of two accuracies: what a small slice shows between equal
    models.
    """
    accuracy = numbers["accuracy"]
    return float(3 * np.sqrt(2 * accuracy * (1 - accuracy) / numbers["rows"]))


def _values(result: Any) -> dict[tuple[str, str], dict[str, float]]:
    """(model, slice name) -> rows, accuracy, log_loss."""
    names = {
        "example_count": "rows",
        "sparse_categorical_accuracy": "accuracy",
        "sparse_categorical_crossentropy": "log_loss",
    }
    out = {}
    for slice_key, metrics in result.slicing_metrics:
        flat = metrics[""][""]
        out[_slice_key(slice_key)] = {
            new: float(flat[old].get("doubleValue", np.nan)) for old, new in names.items() if old in flat
        }
    return out


def _slice_key(key: Iterable[tuple[str, Any]]) -> tuple[str, str]:
    """Model and slice of TFMA's key, in whatever order it names them."""
    columns = {column: str(value) for column, value in key}
    model = columns.pop(_MODEL)
    return model, ", ".join(f"{c}={v}" for c, v in columns.items()) or "all"


def _text(key: Any) -> str:
    kind = key.WhichOneof("kind")
    value = getattr(key, kind)
    return value.decode() if isinstance(value, bytes) else str(value)
