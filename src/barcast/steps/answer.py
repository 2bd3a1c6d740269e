"""Steps at the end: the canary asks what has just gone live; record_outcome writes down how the run ended."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

from barcast import clock
from barcast.errors import BarcastError, RegistryError
from barcast.operations.runs import first_line
from barcast.steps._record import Run, step
from barcast.wording import count, state_of_run


@step
def canary(run: Run, promoted: str, answers_path: str) -> None:
    """Every promoted version must answer over gRPC as it did when it was evaluated; else it is taken back.

    Raises:
        RegistryError: a version did not answer, or answered differently; the one before it serves again.
    """
    from barcast.registry import Registry
    from barcast.serving import ModelClient
    from barcast.steps.asking import answers, ask_with, live_server

    registry = Registry(run.workspace, run.config)
    plan = json.loads(promoted)
    doubtful = plan
    try:
        with live_server(run.config) as endpoint, ModelClient(endpoint, retries=2) as client:
            ask = ask_with(client)
            for position, item in enumerate(plan):
                doubtful = plan[position : position + 1]
                registry.confirm(item["word"], int(item["version"]), ask)
            doubtful = []
            found = answers(run.config, endpoint)
    except BarcastError as error:
        for item in doubtful:
            _take_back(registry, item["word"], int(item["version"]), str(error))
        if not doubtful:
            raise
        back = ", ".join(f"{item['word']} version {item['version']}" for item in doubtful)
        raise RegistryError(
            f"{back} went live but did not answer as evaluated, and was taken back: {error}",
            hint="`barcast models history SYMBOL` shows what serves now.",
        ) from error
    Path(answers_path).write_text(json.dumps(found, indent=2, default=str))
    shutil.copy(answers_path, run.folder / "answers.json")
    run.note(f"{count(len(found), 'symbol')} answered over gRPC by {count(len(plan), 'new version')}")


def _take_back(registry: object, word: str, version: int, reason: str) -> None:
    """The one before `version` serves again; nothing where an earlier try of this step has taken it back."""
    from barcast.registry import Registry

    assert isinstance(registry, Registry)
    if registry.model(registry.state(), word).champion != version:
        return
    why = f"canary: {reason}"[:500]
    try:
        registry.rollback(word, by="canary", reason=why, away_from=version)
    except RegistryError:  # there is no earlier good version
        registry.retire(word, by="canary", reason=why)


@step
def record_outcome(run: Run, state: str, error: str) -> None:
    """`outcome.json` in the run's folder: how it ended, when, with which configuration, and what the failed steps said
    (`error`, which Kubeflow's own words stand in for where no step left any)."""
    failed = []
    steps_log = run.folder / "steps.jsonl"
    if steps_log.exists():
        lines = [json.loads(line) for line in steps_log.read_text().splitlines()]
        failed = [
            f"{line['step']}: {first_line(line['text'])}" for line in lines if line["event"] == "failed"
        ]
    report = run.folder / "report.html"
    outcome = {
        "state": state,
        "ended": clock.now().isoformat(),
        "config_hash": run.config.hash,
        "error": "; ".join(failed) or error,
        "report": str(report) if report.exists() else "",
    }
    temporary = run.folder / ".outcome.json"
    temporary.write_text(json.dumps(outcome, indent=2))
    temporary.replace(run.folder / "outcome.json")
    run.note("succeeded" if state == "SUCCEEDED" else f"recorded: {state_of_run(state)}")
