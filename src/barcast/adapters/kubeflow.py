"""Compiled pipelines: which there are, what they take, and how one runs on this machine with `kfp.local`.

Pipelines come as the YAML that the package carries (`barcast/compiled`), so neither side imports `pipelines/`.
"""

from __future__ import annotations

import importlib.resources
import json
import sys
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from barcast import clock
from barcast.errors import ConfigError, did_you_mean

if TYPE_CHECKING:
    from barcast.config import Config

_FOLDER = Path(str(importlib.resources.files("barcast") / "compiled"))


def pipelines() -> list[str]:
    """Names of all pipelines."""
    return sorted(path.stem for path in _FOLDER.glob("*.yaml"))


def compiled(name: str) -> Path:
    """The compiled YAML of the pipeline `name`.

    Raises:
        ConfigError: there is no such pipeline.
    """
    known = pipelines()
    if name not in known:
        raise ConfigError(
            f"There is no pipeline {name!r}; there are {', '.join(known)}.", hint=did_you_mean(name, known)
        )
    return _FOLDER / f"{name}.yaml"


def parameters(name: str) -> dict[str, dict[str, Any]]:
    """The parameters of a pipeline but `config` and `run_id`, by name: `parameterType`, `defaultValue`.

    Raises:
        ConfigError: there is no such pipeline.
    """
    import yaml

    spec = next(yaml.safe_load_all(compiled(name).read_text()))
    found = dict(spec["root"]["inputDefinitions"]["parameters"])
    return {key: value for key, value in found.items() if key not in ("config", "run_id")}


def check_arguments(name: str, arguments: Mapping[str, Any]) -> None:
    """Refuse what the pipeline does not know, before its first step begins.

    Raises:
        ConfigError: there is no such pipeline, it has no such parameter, or a value that no step could take.
    """
    known, choices = parameters(name), _choices()
    for key in arguments:
        if key not in known:
            raise ConfigError(
                f"Pipeline {name!r} has no parameter {key!r}.",
                hint=did_you_mean(key, known) or f"It has: {', '.join(known) or 'none'}.",
            )
    for key, value in arguments.items():
        if key in _TIMES:
            clock.instant(value, key)
        if key in choices and value not in choices[key]:
            raise ConfigError(
                f"There is no {key} {value!r}.",
                hint=did_you_mean(str(value), choices[key]) or f"It is one of {', '.join(choices[key])}.",
            )


_TIMES = ("start", "end")


def _choices() -> dict[str, Sequence[str]]:
    """The values of parameters that take one of a few."""
    from barcast.training.settings import RENEWALS
    from barcast.training.studies import SAMPLERS

    return {"mode": RENEWALS, "sampler": SAMPLERS}


def check_models(config: Config, models: str) -> None:
    """Refuse names of models that neither the table of bars nor the source has a symbol for.

    Raises:
        ConfigError: with the first such name and the nearest known one.
    """
    from barcast import names
    from barcast.bars import calendars_of
    from barcast.bars.ingest import open_store
    from barcast.bars.sources import open_source

    wanted = [word.strip() for word in models.split(",") if word.strip()]
    if not wanted:
        return
    store = open_store(config, config.open_workspace())
    known = [*names.SHARED, *store.symbols()]
    if not set(wanted) <= set(known):  # perhaps the run is to bring them
        source = open_source(
            config.source,
            interval=config.interval,
            calendar=config.universe.calendar,
            calendars=calendars_of(config),
        )
        known += source.symbols()
    for word in wanted:
        if word not in known:
            raise ConfigError(
                f"There is no model {word!r}: the workspace {config.workspace!r} has no such symbol.",
                hint=did_you_mean(word, known) or f"There are {', '.join(known[:10])}.",
            )


_READERS: dict[str, Callable[[str], Any]] = {
    "STRING": str,
    "NUMBER_INTEGER": int,
    "NUMBER_DOUBLE": float,
    "BOOLEAN": lambda text: {"true": True, "false": False}[text.lower()],
    "LIST": lambda text: _json(text, list),
    "STRUCT": lambda text: _json(text, dict),
}


def _json(text: str, kind: type) -> Any:
    """What a JSON text says, if it is of that kind."""
    value = json.loads(text)
    if not isinstance(value, kind):
        raise ValueError(text)
    return value


def read_arguments(name: str, words: Sequence[str]) -> dict[str, Any]:
    """Arguments written as NAME=VALUE, in the types that the pipeline wants.

    Raises:
        ConfigError: no such pipeline or parameter, or a value of another type.
    """
    pairs = {}
    for word in words:
        key, found, text = word.partition("=")
        if not found:
            raise ConfigError(f"{word!r} is no NAME=VALUE.", hint="E.g. --set models=AAPL,MSFT.")
        pairs[key] = text
    check_arguments(name, pairs)
    known, values = parameters(name), {}
    for key, text in pairs.items():
        kind = known[key]["parameterType"]
        try:
            values[key] = _READERS[kind](text)
        except (ValueError, KeyError):
            wanted = kind.lower().replace("_", " ")
            raise ConfigError(f"{key}={text!r} is no {wanted}.", hint="Correct the value.") from None
    return values


def run_local(name: str, arguments: dict[str, Any], pipeline_root: Path) -> None:
    """Run a pipeline with `kfp.local`, each step in a process of its own.

    Raises:
        RuntimeError: a step failed (its own error is in the run's steps.jsonl).
    """
    from kfp import components, local

    # kfp warns that our image's name is not python:*; the steps do run in this very environment.
    warnings.filterwarnings("ignore", message=".*custom or non-Python base image.*")
    local.init(
        runner=local.SubprocessRunner(use_venv=False), pipeline_root=str(pipeline_root), raise_on_error=True
    )
    components.load_component_from_text(_tried_once(compiled(name).read_text()))(**arguments)


def _tried_once(text: str) -> str:
    """The pipeline without its retries: a lost pod may come back, the same data fail here in the same way."""
    import yaml

    documents = list(yaml.safe_load_all(text))

    def drop(node: Any) -> None:
        if isinstance(node, dict):
            node.pop("retryPolicy", None)
        for child in node.values() if isinstance(node, dict) else node if isinstance(node, list) else ():
            drop(child)

    drop(documents)
    return yaml.safe_dump_all(documents, sort_keys=False)


def main() -> int:
    """`python -m barcast.adapters.kubeflow NAME RUN_FOLDER`: the child process of `barcast run`."""
    name, folder = sys.argv[1], Path(sys.argv[2])
    arguments = json.loads((folder / "arguments.json").read_text())
    try:
        run_local(name, arguments, folder / "artifacts")
    except RuntimeError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
