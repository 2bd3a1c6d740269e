"""What the report shows of how the network learned and of what it looks at.

The scored model and the test rows in; `importance.table`, `permutation.table` (Parquet) and `explained.json` out.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from barcast.steps import summary

if TYPE_CHECKING:
    from barcast.datasets import Dataset
    from barcast.labels import Thresholds
    from barcast.splits import Fold
    from barcast.training import ExportedModel

_GRADIENT_ROWS = 150  # integrated gradients cost sixteen passes a row
_SHUFFLED_ROWS = 450
_SHUFFLED_FEATURES = 10  # the largest by gradient: shuffling all three hundred would take minutes
_REPEATS = 2


def explain(
    model: ExportedModel,
    dataset: Dataset,
    fold: Fold,
    thresholds: Thresholds,
    folder: Path,
) -> None:
    """Integrated gradients of all features, shuffling of the largest, mean attention; each over spans of the test."""
    from barcast.evaluation import explain as importance

    rows = _spread(dataset, fold, _GRADIENT_ROWS)
    ids = model.symbol_ids(dataset)
    answers = model.ask(dataset.windows(rows), ids[rows], signature="explain")
    gradients, stability = importance.gradients_over_spans(answers["attributions"], dataset.feature_names)
    gradients.write_parquet(folder / "importance.table")
    largest = gradients["feature"].head(_SHUFFLED_FEATURES).to_list()
    rows = _spread(dataset, fold, _SHUFFLED_ROWS)
    found = model.answers(dataset, rows)
    shuffled, held = importance.permutation_over_spans(
        lambda windows, ids: model.ask(windows, ids)["probabilities"],
        dataset.windows(rows),
        ids[rows],
        dataset.classes(thresholds)[rows],
        dataset.feature_names,
        only=largest,
        num_repeats=_REPEATS,
    )
    shuffled.write_parquet(folder / "permutation.table")
    attention = found["attention"].mean(axis=0).tolist() if "attention" in found else []
    text = json.dumps(
        {
            "curves": summary.learning_curves(model),
            "stability": stability,
            "permutation_stability": held,
            "attention": attention,
        }
    )
    (folder / "explained.json").write_text(text)


def _spread(dataset: Dataset, fold: Fold, most: int) -> np.ndarray:
    """At most `most` test rows, evenly over time and in its order."""
    times = dataset.rows["event_timestamp"].to_numpy()[fold.test]
    in_time = fold.test[np.argsort(times, kind="stable")]
    chosen: np.ndarray = in_time[np.linspace(0, len(in_time) - 1, min(most, len(in_time))).astype(int)]
    return chosen
