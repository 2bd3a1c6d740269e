"""Steps that make live models anew: live_models fetches them, renew_models makes their next versions."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from barcast import names
from barcast.errors import ConfigError, DataError, ModelError, RegistryError
from barcast.steps import candidates
from barcast.steps._record import Run, step
from barcast.training.settings import RENEWALS

if TYPE_CHECKING:
    from barcast.datasets import Dataset
    from barcast.splits import Fold
    from barcast.training import TrainedModel


@step
def live_models(
    run: Run, linear_path: str, universal_path: str, own_path: str
) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
    """Fetch what answers now from the registry: baseline, universal model, and a folder per symbol's own model.

    Where the baseline or the universal model is not live, the newest registered version stands in: it is a parent
    and a line of the report, and is not taken for what answers.

    Returns:
        Metadata of the three: `live` and `version` of the first two, versions by symbol of the last.

    Raises:
        RegistryError: nothing was ever registered.
    """
    from barcast.registry import Registry

    registry = Registry(run.workspace, run.config)
    shared = []
    for word, path in ((names.LINEAR, linear_path), (names.UNIVERSAL, universal_path)):
        model = registry.state().models.get(registry.model_name(word))
        if model is None or not model.versions:
            raise RegistryError(
                f"There is no model to start from in workspace {run.config.workspace!r}.",
                hint="Run the training pipeline first: barcast run.",
            )
        version = model.champion or max(model.versions)
        candidates.fetch(registry, word, version, Path(path))
        shared.append({"version": version, "live": model.champion is not None})
    own = {}
    Path(own_path).mkdir(parents=True, exist_ok=True)
    for model in registry.state().models.values():
        word = names.word_of(model.name)
        if model.champion is not None and word not in (names.LINEAR, names.UNIVERSAL):
            candidates.fetch(registry, word, model.champion, Path(own_path) / candidates.folder_name(word))
            own[word] = model.champion
    texts = [
        f"{word} v{item['version']}" + ("" if item["live"] else " (not live)")
        for word, item in zip((names.LINEAR, names.UNIVERSAL), shared, strict=True)
    ]
    run.note(", ".join([*texts, *(f"{word} v{version}" for word, version in own.items())]))
    return shared[0], shared[1], own


@step
def renew_models(
    run: Run,
    batch: str,
    mode: str,
    dataset_path: str,
    linear_path: str,
    universal_path: str,
    own_path: str,
    models_path: str,
) -> dict[str, Any]:
    """A new version of each model of the batch; one failure stops no other.

    Returns:
        Names made, and those that failed with the reason.

    Raises:
        ConfigError: an unknown mode.
        DataError: no model was named, and no symbol has bars enough for one.
        ModelError: none could be made.
    """
    from barcast import datasets, splits
    from barcast.models import savedmodel
    from barcast.training import answering

    if mode not in RENEWALS:
        raise ConfigError(f"There is no mode {mode!r}.", hint=f"It is one of {', '.join(RENEWALS)}.")
    if not json.loads(batch):
        raise DataError(
            "No symbol has bars enough for a model of its own.",
            hint="Name what to renew: models=universal or models=_linear; or bring more bars.",
        )
    # The data set numbers its symbols by name; a symbol that joined since must not renumber what a model learned.
    known = answering.read_description(Path(universal_path) / savedmodel.EXTRA)[0].symbols
    dataset = datasets.load(Path(dataset_path)).numbered(known)
    fold = splits.holdout(dataset.rows, run.config.splits)
    made, failed = [], {}
    for word in json.loads(batch):
        run.note(word)
        live = {names.LINEAR: Path(linear_path), names.UNIVERSAL: Path(universal_path)}.get(
            word, Path(own_path) / candidates.folder_name(word)
        )
        try:
            model = _renew(run, word, mode, dataset, fold, live, Path(universal_path), Path(linear_path))
        except Exception as error:  # the others go on; the report names this one
            failed[word] = str(error) if isinstance(error, ModelError) else f"{type(error).__name__}: {error}"
            continue
        model.export(Path(models_path) / candidates.folder_name(word))
        made.append(word)
    if failed and not made:
        raise ModelError(
            "; ".join(f"{word}: {why}" for word, why in failed.items()),
            hint="What answers now goes on answering.",
        )
    run.note(f"{mode}: " + ", ".join(made) + (f"; failed: {', '.join(failed)}" if failed else ""))
    return {"made": json.dumps(made), "failed": json.dumps(failed)}


def _renew(
    run: Run,
    word: str,
    mode: str,
    dataset: Dataset,
    fold: Fold,
    live: Path,
    universal: Path,
    linear: Path,
) -> TrainedModel:
    """The next version of `word`.

    Raises:
        ModelError: a symbol without a model of its own cannot be recalibrated.
    """
    from barcast import training
    from barcast.training import common, continual

    config, folder = run.config, run.folder / f"renew-{candidates.folder_name(word)}"
    symbol = None if word in names.SHARED else word
    mine = fold if symbol is None else common.of_symbol(dataset, fold, symbol)
    if mode == "recalibrate":
        if not live.is_dir():
            raise ModelError(
                f"{word} has no live model of its own to recalibrate.",
                hint="Recalibrate the model that answers for it: universal or _linear.",
            )
        return continual.recalibrate(live, dataset, mine, config)
    if word == names.LINEAR:
        return training.train_linear(dataset, fold, config, folder)
    if word == names.ENSEMBLE:
        network, baseline = (training.TrainedModel.load(path) for path in (universal, linear))
        rows = dataset.numbered(network.info.symbols)
        return training.train_ensemble(network, baseline, rows, fold, config, folder)
    if mode == "update" and live.is_dir():
        parent = training.TrainedModel.load(live)
        rows = dataset.numbered(parent.info.symbols)
        new, old = continual.since(parent, rows, mine)
        if len(new.train) >= config.training.min_rows:
            return continual.update(parent, rows, new, config, folder, old_rows=old)
        run.note(f"{word}: {len(new.train)} bars since version's training are too few to learn on; made anew")
    if symbol is None:
        return training.train_universal(dataset, fold, config, folder)
    return training.train_symbol(universal, dataset, symbol, fold, config, folder)
