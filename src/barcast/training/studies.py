"""Studies: where trials are kept, which space they search, what they found, and how it looks.

A name and a storage go in; an Optuna study comes out that any number of processes and machines share. A trial whose
process died is given up by the others after GRACE_SECONDS, and counts all the same.
"""

from __future__ import annotations

import hashlib
import json
import time
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from barcast.config.models import ModelConfig, TrainingConfig
from barcast.errors import ConfigError, ModelError, did_you_mean

# A choice among values, or log-uniform bounds.
Axis = list[Any] | tuple[float, float]
Space = dict[str, Axis]

# The documented space first (seed document 1), then ours.
SPACE: Space = {
    "lstm_units": ["64,32,16", "128,64,32", "256,128,64"],
    "dropout": [0.1, 0.2, 0.3],
    "learning_rate": (1e-4, 1e-2),
    "batch_size": [32, 64, 128, 256],
    "attention_heads": [4, 8, 16],
    "weight_decay": (1e-4, 1e-1),
    "profit_weight": (1e-3, 1.0),
}
# A grid needs points on the continuous axes too; an axis that is not here gets its two bounds.
GRID = {"learning_rate": [1e-4, 1e-3, 1e-2], "weight_decay": [0.01], "profit_weight": [0.1]}
LOSS_AXES = ("profit_weight", "return_weight", "regime_weight")
SAMPLERS = ("tpe", "random", "grid")
HEARTBEAT_SECONDS, GRACE_SECONDS = 30, 120
_ATTEMPTS = 10


@dataclass(frozen=True)
class Result:
    """What a search found.

    Attributes:
        best: the best trial's values by name.
        value: its mean log loss over the folds.
        num_trials: all trials of the study so far, pruned and failed ones too: the number the gate needs.
        states: trials by state.
    """

    best: dict[str, Any]
    value: float
    num_trials: int
    states: dict[str, int]


def check_space(space: Space) -> None:
    """Refuse axes that no setting knows, and empty or reversed ones.

    Raises:
        ConfigError: naming the axis.
    """
    known = {"dropout", *LOSS_AXES, *ModelConfig.model_fields, *TrainingConfig.model_fields} - {"loss"}
    for name, axis in space.items():
        if name not in known:
            raise ConfigError(
                f"{name!r} is no axis of a search.",
                hint=did_you_mean(name, known) or f"Known, among others: {', '.join(SPACE)}.",
            )
        if not axis or (isinstance(axis, tuple) and not 0 < axis[0] < axis[1]):
            raise ConfigError(
                f"The axis {name!r} cannot be searched: {axis!r}.",
                hint="Give a list of values, or bounds with 0 < low < high.",
            )


def make_sampler(name: str, seed: int, space: Space) -> Any:
    """An Optuna sampler.

    Raises:
        ConfigError: an unknown name.
    """
    import optuna

    if name not in SAMPLERS:
        raise ConfigError(
            f"Sampler {name!r} is not known.",
            hint=did_you_mean(name, SAMPLERS) or f"It is one of {SAMPLERS}.",
        )
    if name == "grid":
        axes = {k: v if isinstance(v, list) else GRID.get(k, list(v)) for k, v in space.items()}
        return optuna.samplers.GridSampler(axes, seed=seed)
    if name == "random":
        return optuna.samplers.RandomSampler(seed=seed)
    # Trials that other workers are still at count as bad ones: two workers do not try the same place.
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        return optuna.samplers.TPESampler(seed=seed, constant_liar=True)


def open_study(
    name: str, storage: str | None, *, sampler: str = "tpe", seed: int = 7, space: Space | None = None
) -> Any:
    """The study of this name, made if it is new.

    Args:
        storage: "sqlite:///path" or "postgresql+psycopg://..."; None keeps it in memory.
        sampler: "tpe", "random" or "grid".
        space: choices and bounds; SPACE when None.

    Raises:
        ConfigError: an unknown sampler or axis, or a storage that cannot be opened.
        ModelError: the stored study searched another space.
    """
    import optuna
    from sqlalchemy.exc import SQLAlchemyError

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    space = space or SPACE
    check_space(space)
    made = make_sampler(sampler, seed, space)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            kept = storage and _open_storage(storage)
        study = optuna.create_study(
            study_name=name,
            storage=kept,
            sampler=made,
            pruner=optuna.pruners.MedianPruner(n_startup_trials=4, n_warmup_steps=0),
            direction="minimize",
            load_if_exists=True,
        )
    except (SQLAlchemyError, ImportError, ValueError) as error:
        first = str(error).splitlines()[0]
        raise ConfigError(
            f"The storage of study {name!r} cannot be opened: {first}",
            hint="Give sqlite:///PATH or postgresql+psycopg://USER@HOST/DATABASE.",
        ) from error
    mark = json.dumps(space, sort_keys=True)
    stored = study.user_attrs.get("space")
    if stored is not None and stored != mark:
        raise ModelError(
            f"Study {name!r} searched another space: {_difference(json.loads(stored), json.loads(mark))}.",
            hint="Go on with the old space, or give this search another --study name.",
        )
    if stored is None:
        study.set_user_attr("space", mark)
    return study


def _open_storage(address: str) -> Any:
    """Optuna's storage; its tables are made where they are missing.

    Two workers that begin together make the same tables: the slower one finds them there and looks again.
    """
    import optuna
    from sqlalchemy.exc import SQLAlchemyError

    for attempt in range(_ATTEMPTS):
        try:
            return optuna.storages.RDBStorage(
                address, heartbeat_interval=HEARTBEAT_SECONDS, grace_period=GRACE_SECONDS
            )
        except SQLAlchemyError as error:
            if "already exists" not in str(error) or attempt == _ATTEMPTS - 1:
                raise
            time.sleep(0.5)
    return None


def _difference(old: dict[str, Any], new: dict[str, Any]) -> str:
    """The first axis on which two spaces differ, in words."""
    for name in sorted({*old, *new}):
        if old.get(name) != new.get(name):
            return f"{name} was {old.get(name, 'no axis')}, now {new.get(name, 'no axis')}"
    return "nothing differs"


def identity(name: str, storage: str | None, study: Any) -> str:
    """What tells this study from all others where trials are counted; no address or password is in it."""
    place = storage or f"memory {study.user_attrs.get('space')} {id(study)}"
    return f"{name}@{hashlib.sha256(place.encode()).hexdigest()[:12]}"


def suggest(trial: Any, space: Space) -> dict[str, Any]:
    """One value of each axis."""
    return {
        name: trial.suggest_categorical(name, axis)
        if isinstance(axis, list)
        else trial.suggest_float(name, axis[0], axis[1], log=True)
        for name, axis in space.items()
    }


def summarise(study: Any) -> Result:
    """The best values and how many trials stand behind them.

    Raises:
        ModelError: no trial finished.
    """
    states: dict[str, int] = {}
    for trial in study.trials:
        states[trial.state.name.lower()] = states.get(trial.state.name.lower(), 0) + 1
    if not states.get("complete"):
        raise ModelError(
            "No trial of the study finished.", hint="Look at the log, widen the space, try again."
        )
    return Result(dict(study.best_params), float(study.best_value), len(study.trials), states)


def plots(study: Any, folder: Path) -> list[Path]:
    """History and slices, and with enough finished trials importance, of a study as PNG files."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt
    import optuna
    from optuna.visualization import matplotlib as drawn

    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    finished = [t for t in study.trials if t.state == optuna.trial.TrialState.COMPLETE]
    kinds: dict[str, Any] = {"history": drawn.plot_optimization_history, "slices": drawn.plot_slice}
    # Importance needs finished trials that differ.
    if len(finished) > 3 and len({t.value for t in finished}) > 1:
        kinds["importance"] = drawn.plot_param_importances
    paths = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        # A choice of which only one value was tried has an axis of no length.
        warnings.filterwarnings("ignore", message="Attempting to set identical low and high")
        for name, draw in kinds.items():
            draw(study, target_name="mean log loss")
            figure = plt.gcf()
            for axes in figure.axes if name == "slices" else ():
                axes.tick_params(axis="x", labelrotation=30)  # long choices would cover each other
            figure.set_size_inches(2.6 * len(study.best_params) + 2 if name == "slices" else 9, 4.5)
            figure.savefig(folder / f"{name}.png", dpi=110, bbox_inches="tight")
            plt.close("all")
            paths.append(folder / f"{name}.png")
    return paths
