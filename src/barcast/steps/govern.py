"""Steps that decide: register, gate, promote."""

from __future__ import annotations

import json
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import polars as pl

from barcast import clock, names
from barcast.steps import candidates, incumbents, slices, summary
from barcast.steps._record import Run, step

if TYPE_CHECKING:
    from barcast.evaluation.gate import Verdict


@step
def register(
    run: Run,
    lineage: dict[str, Any],
    linear: str,
    universal: str,
    symbols: Sequence[str],
    predictions: str,
    report: str,
    only_own: bool = False,
) -> str:
    """Every new candidate becomes a version, with everything needed to make it again.

    Returns:
        JSON list of {word, version}.
    """
    from barcast.errors import RefusedError
    from barcast.registry import Registry, VersionMetadata, manifest
    from barcast.registry.fingerprint import Recorded

    registry = Registry(run.workspace, run.config)
    measured = summary.read(predictions)
    versions = []
    for candidate in candidates.found(linear, universal, symbols, only_own):
        if not candidate.new:
            continue
        serving = json.loads((candidate.folder / "assets.extra" / "serving.json").read_text())
        judged = measured["models"][candidate.word]
        if manifest.digest(manifest.hash_files(candidate.folder)) != judged["digest"]:
            raise RefusedError(
                f"The files of {candidate.word} are not those that were scored.",
                hint="Evaluate again; nothing may write to a model after its evaluation.",
            )
        metadata = VersionMetadata(
            kind=candidate.kind,
            data_version=str(int(lineage["data_version"])),
            data_hash=lineage["data_hash"],
            config_hash=run.config.hash,
            features=tuple(serving["feature_names"]),
            metrics=judged["metrics"],
            parameters=judged["architecture"] | {f"training.{k}": v for k, v in judged["training"].items()},
            trained_until=datetime.fromisoformat(measured["seen_until"]),
            evaluated_from=datetime.fromisoformat(measured["first"]),
            evaluated_until=datetime.fromisoformat(measured["last"]),
            parent="" if candidate.symbol is None else names.model_name(run.config.workspace, None),
            reliability=judged["reliability"]["index"],
            num_trials=registry.num_trials(candidate.word),
            limits=tuple(measured["limits"]),
            extra={
                "run_id": run.key,
                "interval": run.config.interval,
                "horizon_bars": run.config.horizon_bars,
                "architecture": judged["architecture"],
                "selected_features": judged["selected_features"],
                "training": judged["training"],
                "baselines": judged["baselines"],
                "reliability": judged["reliability"],
            },
        )
        version = registry.register(
            candidate.folder,
            candidate.word,
            metadata,
            files={"report.html": Path(report), "config.json": run.config.model_dump_json(indent=2)},
            recorded=Recorded.from_json(candidates.recorded_file(predictions, candidate.word).read_text()),
        )
        versions.append({"word": candidate.word, "version": version})
        run.note(f"{candidate.word} version {version}")
    run.note(", ".join(f"{v['word']} v{v['version']}" for v in versions))
    return json.dumps(versions)


@step
def gate(
    run: Run, versions: str, bars: str, dataset_path: str, predictions: str, blessing: str, report: str
) -> str:
    """Each candidate against whatever answers for its symbol now; winners become challengers; the whole report.

    Returns:
        `promote` when a winner was approved by the configuration, `wait` when a person must approve, else `keep`.
    """
    from barcast import datasets, splits
    from barcast.evaluation import report as page
    from barcast.evaluation.gate import Scored, decide, incomparable
    from barcast.registry import Registry
    from barcast.steps import measuring

    registry = Registry(run.workspace, run.config)
    measured = summary.read(predictions)
    seen = datetime.fromisoformat(measured["seen_until"])
    dataset = datasets.load(Path(dataset_path))
    fold = splits.holdout(dataset.rows, run.config.splits)
    with ThreadPoolExecutor(1) as beside:  # while the model server starts and loads the candidates
        figures = beside.submit(measuring.measure, run, bars, dataset, fold, Path(predictions))
        checks = _infrastructure(run, registry, versions)
    sliced = slices.read(blessing)
    words = [item["word"] for item in json.loads(versions)]
    winners: dict[str, Scored] = _standing(registry, predictions, words, seen)
    verdicts, judged = [], []
    for item in json.loads(versions):
        word, version = item["word"], int(item["version"])
        rows = pl.read_parquet(candidates.results_file(predictions, word))
        mine = Scored(word, rows, seen, summary.seed_noise(measured, word))
        incumbent = _incumbent(registry, predictions, word, winners, seen)
        looked = [checks[word], *slices.check(sliced, word)]
        barrier = incumbents.unscored(predictions, word)
        if barrier is not None:
            verdict = incomparable(word, *barrier, looked)
        else:
            verdict = decide(
                mine,
                incumbent,
                run.config.gate,
                registry.life(word, but=version),
                costs=run.config.costs,
                horizon_bars=run.config.horizon_bars,
                as_of=clock.now(),  # attempts carry the wall clock; the yearly budget is counted on it
                checks=looked,
            )
        if word == names.LINEAR and incumbent is None and barrier is None:
            verdict = baseline_floor(verdict)
        judged.append(verdict)
        winners[word] = mine if verdict.outcome == "promote" else incumbent or mine
        live = record_verdict(registry, word, version, verdict)
        verdicts.append(
            {"symbol": word, "name": registry.model_name(word), "version": version, "live": live}
            | {
                "outcome": verdict.outcome,
                "reasons": list(verdict.reasons),
                "numbers": verdict.to_dict()["numbers"],
            }
        )
        run.note(f"{word}: {verdict.outcome}")
    (run.folder / "verdicts.json").write_text(json.dumps(verdicts, indent=2))
    context = measuring.context(
        run, dataset, fold, Path(predictions), verdicts=judged, **slices.shown(sliced)
    )
    html = page.render(figures.result(), context)
    Path(report).write_text(html)
    (run.folder / "report.html").write_text(html)
    (run.folder / "report.md").write_text(page.markdown(figures.result(), context))
    _keep(run, registry, versions, Path(report))
    counts = {o: sum(v["outcome"] == o for v in verdicts) for o in ("promote", "hold", "keep")}
    run.note(", ".join(f"{n} {o}" for o, n in counts.items() if n))
    if any(v["live"] for v in verdicts):
        return "promote"
    return "wait" if counts["promote"] + counts["hold"] else "keep"


def record_verdict(registry: Any, word: str, version: int, verdict: Verdict) -> bool:
    """Write the verdict down and act on it; whether the configuration approved the version.

    A step tried again spends the budget once, and does not ask again for what an earlier try has decided.
    """
    known = registry.version(registry.model(registry.state(), word), version)
    if known.judged is None:
        registry.judge(word, version, verdict)
    if verdict.outcome in ("promote", "hold") and known.status == "registered":
        registry.set_challenger(word, version)
    approves = verdict.outcome == "promote" and registry.approval == "automatic"
    if approves and known.status in ("registered", "challenger"):
        registry.approve_automatically(word, version)
    return approves


def baseline_floor(verdict: Verdict) -> Verdict:
    """The first baseline goes live as the fallback that others must beat, its weaknesses said aloud.

    Without it nothing would answer at all. A server that cannot load it, unreadable results or a leak alarm still
    keep it out.
    """
    failed = [c for c in verdict.checks if c.passed is not True and c.on_failure != "promote"]
    serious = [c for c in failed if c.name == "infrastructure" or c.name.startswith("leak")]
    if verdict.outcome == "promote" or not verdict.checks or serious:
        return verdict
    reasons = (
        "Nothing answers yet: the baseline goes live as the fallback that every model must beat.",
        *(f"It is weak: {c.name}: {c.detail}" for c in failed),
    )
    return replace(verdict, outcome="promote", reasons=reasons)


def _keep(run: Run, registry: Any, versions: str, report: Path) -> None:
    """The report with the verdicts in it, beside each version. The verdicts stand in the ledger already: a registry
    that is away for a moment now takes nothing back."""
    from barcast.errors import RegistryError

    for item in json.loads(versions):
        try:
            registry.keep_report(item["word"], int(item["version"]), report)
        except RegistryError as error:
            run.note(f"the report with the verdicts is not kept with {item['word']}: {error}")


def _incumbent(registry: Any, predictions: str, word: str, winners: dict[str, Any], seen: datetime) -> Any:
    """Results of what answers for `word` now: its own champion, else the ensemble, the universal model, the
    baseline."""
    from barcast.evaluation.gate import Scored

    own = candidates.results_file(predictions, word, champion=True)
    if own.exists():
        return _champion(registry, word, own, seen)
    if word == names.LINEAR:
        return None
    if word == names.UNIVERSAL:
        return winners.get(names.LINEAR)
    # Where no universal model answers, the baseline does, whether this run renewed it or not.
    rival = winners.get(names.UNIVERSAL, winners.get(names.LINEAR))
    if word == names.ENSEMBLE or rival is None:
        return rival
    rival = winners.get(names.ENSEMBLE, rival)
    return Scored(rival.name, rival.rows.filter(pl.col("symbol") == word), rival.seen_until)


def _champion(registry: Any, word: str, results: Path, seen: datetime) -> Any:
    from barcast.evaluation.gate import Scored

    model = registry.state().models[registry.model_name(word)]
    until = model.versions[model.champion].registered.details.get("trained_until")
    return Scored(
        f"champion v{model.champion} of {word}",
        pl.read_parquet(results),
        datetime.fromisoformat(until) if until else seen,
    )


def _standing(registry: Any, predictions: str, new: Sequence[str], seen: datetime) -> dict[str, Any]:
    """The live baseline, universal model and ensemble of which this run made no new version."""
    standing = {}
    for word in (names.LINEAR, names.UNIVERSAL, names.ENSEMBLE):
        results = candidates.results_file(predictions, word, champion=True)
        if word not in new and results.exists():
            standing[word] = _champion(registry, word, results, seen)
    return standing


def _infrastructure(run: Run, registry: Any, versions: str) -> dict[str, Any]:
    """Each candidate loaded by a model server and asked its recorded request, before anybody judges it."""
    from barcast.errors import BarcastError
    from barcast.evaluation.gate import Check
    from barcast.steps.asking import candidate_server

    checks = {}
    with candidate_server(run, registry, json.loads(versions)) as confirm:
        for item in json.loads(versions):
            try:
                worst = confirm(item["word"], int(item["version"]))
                detail = (
                    f"A model server loaded it and answered as in process (largest difference {worst:.2g})."
                )
                checks[item["word"]] = Check("infrastructure", True, detail)
            except BarcastError as error:
                checks[item["word"]] = Check("infrastructure", False, str(error), "keep")
    return checks


@step
def promote(run: Run, rollback: str = "", to: int = 0, by: str = "", reason: str = "") -> str:
    """Each approved challenger goes live: folder, hashes, models.config, alias, ledger. Or one rollback.

    Args:
        rollback: the symbol (or "universal", "_linear", "_ensemble") whose earlier version serves again; empty: none.
        to: the version that a rollback goes to; 0: the last good one.
        by, reason: who rolls back, and why.

    Returns:
        JSON list of {word, version} that went live, for the canary.

    Raises:
        RegistryError: none of the approved challengers could go live, or the rollback failed.
    """
    from barcast.registry import Registry
    from barcast.registry.asking import server

    registry = Registry(run.workspace, run.config)
    plan: list[dict[str, Any]]
    with server(run.config.serving.endpoint) as ask:  # a running server must answer before it takes over
        if rollback:
            plan = [{"word": rollback, "version": _roll_back(run, registry, rollback, to, by, reason, ask)}]
        else:
            plan = _promote_approved(run, registry, ask)
    run.note(", ".join(f"{item['word']} v{item['version']}" for item in plan) or "nothing was waiting")
    return json.dumps(plan)


def _promote_approved(run: Run, registry: Any, ask: Any) -> list[dict[str, Any]]:
    """What this run made live. One that cannot stops no other, and the canary asks those that did.

    The ledger says what did: a step tried again must not leave out what its first, lost try made live.

    Raises:
        RegistryError: none of the approved ones could go live.
    """
    from barcast.errors import RegistryError

    failed: list[RegistryError] = []
    for row in registry.list():
        if row["challenger_status"] != "approved":
            continue
        word, version = row["symbol"], int(row["challenger"])
        try:
            registry.promote(word, version, ask=ask, run=run.key)
        except RegistryError as error:
            failed.append(error)
            run.note(f"{word} v{version}: {error}")
    plan = [
        {"word": names.word_of(model.name), "version": model.champion}
        for model in sorted(registry.state().models.values(), key=lambda model: model.name)
        if model.champion is not None
        and model.changes[-1].action == "promoted"
        and model.changes[-1].details.get("run") == run.key
    ]
    if failed and not plan:
        raise failed[0]
    return plan


def _roll_back(run: Run, registry: Any, word: str, to: int, by: str, reason: str, ask: Any) -> int:
    """The version that serves again. A step tried again does not go back twice: the run stands in the reason."""
    why = f"{reason.strip()} (run {run.key})" if reason.strip() else ""
    changes = registry.model(registry.state(), word).changes
    if changes and changes[-1].action == "rolled_back" and changes[-1].reason == why:
        return int(changes[-1].version)
    return int(registry.rollback(word, to or None, by=by, reason=why, ask=ask))
