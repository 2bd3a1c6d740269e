"""The step that runs TFX's model analysis: once per run, on predictions already made.

Nothing else of a run imports TFX, whose import alone takes many seconds.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import polars as pl

from barcast import names
from barcast.steps import candidates
from barcast.steps._record import Run, step


@step
def analyze(run: Run, predictions: str, blessing_path: str) -> None:
    """The universal candidate by slices, against the present champion or, without one, the linear baseline."""
    if not run.config.evaluation.tfma:
        Path(blessing_path).write_text(json.dumps({"passed": None, "sentence": "", "table": []}))
        run.note("switched off (evaluation.tfma)")
        return
    from barcast.evaluation.blessing import bless

    champion = candidates.results_file(predictions, names.UNIVERSAL, champion=True)
    rival = champion if champion.exists() else candidates.results_file(predictions, names.LINEAR)
    candidate = pl.read_parquet(candidates.results_file(predictions, names.UNIVERSAL))
    found = bless(candidate, pl.read_parquet(rival), run.config.evaluation)
    check = found.check()
    Path(blessing_path).write_text(
        json.dumps(
            {
                "passed": check.passed,
                "detail": check.detail,
                "on_failure": check.on_failure,
                "sentence": found.sentence,
                "table": found.table.to_dicts(),
            },
            default=str,
        )
    )
    run.note(found.sentence)


def read(path: str) -> tuple[dict[str, Any], pl.DataFrame | None]:
    """What `analyze` wrote, and its table; None where the analysis was switched off."""
    found = json.loads(Path(path).read_text())
    return found, pl.DataFrame(found["table"]) if found["table"] else None
