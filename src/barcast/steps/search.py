"""Steps of a hyper-parameter search: share out the trials, search, write the best configuration."""

from __future__ import annotations

import shutil
from pathlib import Path

from barcast.errors import ConfigError
from barcast.steps._record import Run, step
from barcast.wording import count


@step
def plan_search(run: Run, trials: int, workers: int) -> list[int]:
    """Trials of each worker, as equal as can be; no worker without a trial.

    Raises:
        ConfigError: no trials or no workers.
    """
    asked = f"{count(trials, 'trial')} by {count(workers, 'worker')}"
    if trials < 1 or workers < 1:
        raise ConfigError(f"{asked} is no search.", hint="Give at least one of each.")
    workers = min(trials, workers)
    shares = [trials // workers + (number < trials % workers) for number in range(workers)]
    run.note(f"{count(trials, 'trial')} by {count(workers, 'worker')}")
    return shares


@step
def search_settings(
    run: Run, trials: int, sampler: str, study: str, storage: str, dataset_path: str
) -> dict[str, float]:
    """Add trials to the study, each counted for the gate before it begins.

    Returns:
        `log_loss` of its best trial and `trials` so far.
    """
    from barcast import datasets, splits
    from barcast.registry import Registry
    from barcast.training import tuning

    dataset = datasets.load(Path(dataset_path))
    fold = splits.holdout(dataset.rows, run.config.splits)
    found = tuning.search(
        dataset,
        fold,
        run.config,
        study_name=study,
        storage=_storage(run, storage),
        sampler=sampler,
        trials=trials,
        space=run.config.tuning.axes(),
        counted=Registry(run.workspace, run.config).count_trial,
        progress=run.note,
    )
    run.note(f"{count(found.num_trials, 'trial')} so far, best log loss {found.value:.5f}")
    return {"log_loss": found.value, "trials": float(found.num_trials)}


@step
def choose_settings(run: Run, study: str, storage: str, best_path: str) -> dict[str, float]:
    """The configuration with the best trial's values → `best_path` (YAML), ready for `barcast run`.

    Returns:
        `log_loss` of the best trial and `trials` that it was the best of.
    """
    import yaml

    from barcast.training import tuning

    opened = tuning.open_study(study, _storage(run, storage), space=run.config.tuning.axes())
    best = opened.best_trial
    settings = tuning.apply(run.config, best.params)
    config = run.config.model_copy(update={"model": settings.model, "training": settings.training})
    plain = config.model_dump(mode="json", exclude={"storage"})
    Path(best_path).write_text(yaml.safe_dump(plain, sort_keys=False))
    shutil.copy(best_path, run.folder / "best.yaml")
    values = ", ".join(f"{name} {value:.3g}" if isinstance(value, float) else f"{name} {value}"
                       for name, value in best.params.items())  # fmt: skip
    run.note(f"best of {count(len(opened.trials), 'trial')}: log loss {best.value:.5f} with {values}")
    return {"log_loss": float(best.value), "trials": float(len(opened.trials))}


def _storage(run: Run, storage: str) -> str:
    """The study's storage.

    Raises:
        ConfigError: none was given where workers share no disk.
    """
    if storage:
        return storage
    if not run.local:
        raise ConfigError(
            "A search on the cluster needs a storage that all workers reach.",
            hint="Give storage=postgresql+psycopg://USER@HOST/DATABASE.",
        )
    folder = run.workspace.state / "studies"
    folder.mkdir(parents=True, exist_ok=True)
    return f"sqlite:///{folder / 'studies.db'}"
