"""The step that runs TFX's model analysis: once per run, for all candidates together, on predictions already made.

Nothing else of a run imports TFX, whose import alone takes many seconds.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import polars as pl

from barcast import names
from barcast.steps import candidates, incumbents, summary
from barcast.steps._record import Run, step
from barcast.wording import count

if TYPE_CHECKING:
    from barcast.evaluation.gate import Check


@step
def analyze(run: Run, predictions: str, blessing_path: str) -> None:
    """Every new candidate by slices, against what answers now or, where nothing does, the linear baseline."""
    if not run.config.evaluation.tfma:
        Path(blessing_path).write_text("{}")
        run.note("switched off (evaluation.tfma)")
        return
    from barcast.evaluation.blessing import bless

    pairs = {}
    for word, model in summary.read(predictions)["models"].items():
        if not model["new"]:
            continue
        candidate = pl.read_parquet(candidates.results_file(predictions, word))
        rival = incumbents.answering_now(predictions, candidate)
        if rival is None and word != names.LINEAR:
            baseline = pl.read_parquet(candidates.results_file(predictions, names.LINEAR))
            rival = incumbents.same_bars(baseline, candidate)
        pairs[word] = (candidate, rival)
    found = bless(pairs, run.config.evaluation)
    Path(blessing_path).write_text(
        json.dumps(
            {
                word: {
                    "passed": blessing.blessed,
                    "sentence": blessing.sentence,
                    "table": blessing.table.to_dicts(),
                }
                for word, blessing in found.items()
            },
            default=str,
        )
    )
    refused = [word for word, blessing in found.items() if not blessing.blessed]
    run.note(
        f"blesses {len(found) - len(refused)} of {count(len(found), 'model')}"
        + (f"; not {', '.join(refused)}" if refused else "")
    )


def read(path: str) -> dict[str, dict[str, Any]]:
    """What `analyze` wrote: model -> passed, sentence, table. Empty where the analysis was switched off."""
    found: dict[str, dict[str, Any]] = json.loads(Path(path).read_text())
    return found


def check(found: Mapping[str, Mapping[str, Any]], word: str) -> list[Check]:
    """The gate's check of one model; none where the analysis was switched off."""
    from barcast.evaluation.gate import Check

    if word not in found:
        return []
    return [Check("blessing", bool(found[word]["passed"]), str(found[word]["sentence"]), "hold")]


def shown(found: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """What the report shows: the universal model's slices, and a sentence about each model that was refused."""
    universal = found.get(names.UNIVERSAL)
    sentences = [str(universal["sentence"])] if universal else []
    sentences += [
        f"{w}: {f['sentence']}" for w, f in found.items() if w != names.UNIVERSAL and not f["passed"]
    ]
    return {
        "slices": pl.DataFrame(universal["table"]) if universal else None,
        "blessing": " ".join(sentences),
    }
