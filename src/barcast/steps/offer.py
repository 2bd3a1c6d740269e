"""The learning shadow at the gate: registered as a candidate of the universal model, judged like any other.

What the two answered on outcomes that neither had learnt from → the gate → challenger, and live only by approval.
"""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

from barcast import clock, names
from barcast.config import Config
from barcast.errors import BarcastError, RefusedError
from barcast.operations.runs import new_run_id
from barcast.serving import learn
from barcast.steps._record import Run
from barcast.steps.asking import candidate_server
from barcast.steps.govern import record_verdict

if TYPE_CHECKING:
    from barcast.evaluation.gate import Verdict


def offer(config: Config) -> tuple[int, Verdict]:
    """Register the shadow of the live universal model and let the gate compare it with its champion.

    Returns:
        The new version and the verdict; `promote` or `hold` makes it the challenger, `promote` with automatic approval
        also approves it (`barcast models approve`, or the promotion pipeline, makes it live).

    Raises:
        RefusedError: it has not answered any outcome that it had not learnt from, or learns now.
        ServingError: there is no shadow.
    """
    from barcast.evaluation.gate import Check, Scored, decide
    from barcast.registry import Registry, VersionMetadata

    workspace, word = config.open_workspace(), names.UNIVERSAL
    folder = learn.folder_of(workspace)
    with learn.shadow_alone(workspace):
        mine, theirs = learn.read_judged(folder)
        if not mine.height:
            raise RefusedError(
                "The shadow has not answered an outcome yet that it had not learnt from.",
                hint="Let it go on: `barcast feedback learn` after the next outcomes.",
            )
        registry = Registry(workspace, config)
        champion = registry.show(word)
        run = Run(config, workspace, new_run_id("offer"), "offer")
        exported = learn.export_shadow(workspace, config, run.folder / "shadow")
    metadata = VersionMetadata(
        kind=champion["kind"],
        data_version=champion["data_version"],
        data_hash=champion["data_hash"],
        config_hash=config.hash,
        features=learn.feature_names(workspace, config),
        trained_until=mine["label_end_timestamp"].max(),
        evaluated_from=mine["event_timestamp"].min(),
        evaluated_until=mine["event_timestamp"].max(),
        parent=f"{champion['model']}:{champion['version']}",
        limits=("It learnt from outcomes of its own parent's answers, beside replayed training rows.",),
        extra={"run_id": run.key, "seed": config.seed, "learnt_from_outcomes": mine.height},
    )
    version = registry.register(exported, word, metadata)
    with candidate_server(run, registry, [{"word": word, "version": version}]) as confirm:
        try:
            worst = confirm(word, version)
            loaded = Check(
                "infrastructure", True, f"A model server answered as in process (difference {worst:.2g})."
            )
        except BarcastError as error:
            loaded = Check("infrastructure", False, str(error), "keep")
    verdict = decide(
        Scored(f"shadow of version {champion['version']}", mine),
        Scored(f"champion v{champion['version']} of {word}", theirs),
        config.gate,
        registry.life(word),
        costs=config.costs,
        horizon_bars=config.horizon_bars,
        as_of=clock.now(),
        checks=[loaded],
    )
    record_verdict(registry, word, version, verdict)
    shutil.rmtree(exported, ignore_errors=True)
    return version, verdict
