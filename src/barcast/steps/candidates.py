"""Candidates of a run and what they are compared with: names, folders, files of per-row results.

A candidate's *word* is how a person names it: a symbol, "universal", "_linear" or "_ensemble".
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from barcast import names
from barcast.errors import RegistryError
from barcast.registry import Registry, manifest
from barcast.steps._record import Run


@dataclass(frozen=True)
class Candidate:
    """One exported model of this run.

    Attributes:
        word: symbol, "universal", "_linear" or "_ensemble".
        folder: the exported SavedModel.
        new: whether this run made it; else it is what answers now, scored for comparison.
    """

    word: str
    folder: Path
    new: bool = True

    @property
    def symbol(self) -> str | None:
        """The symbol of an own model, else None."""
        return None if self.word in names.SHARED else self.word

    @property
    def kind(self) -> str:
        """`linear`, `network` or `ensemble`."""
        return self.word.removeprefix("_") if self.word in (names.LINEAR, names.ENSEMBLE) else "network"


def found(linear: str, universal: str, made: Sequence[str], only_own: bool = False) -> list[Candidate]:
    """All models of the run, those that others are compared with first.

    Args:
        made: folders that hold a folder per new model (`folder_name`); one of the baseline or of the universal model
            takes the place of `linear` or `universal`.
        only_own: `linear` and `universal` were not made by this run.
    """
    new = {
        _word(folder.name): Candidate(_word(folder.name), folder)
        for path in made
        if Path(path).is_dir()
        for folder in sorted(Path(path).iterdir())
    }
    shared = [
        new.pop(word, Candidate(word, Path(folder), new=not only_own))
        for word, folder in ((names.LINEAR, linear), (names.UNIVERSAL, universal))
    ]
    return [*shared, *sorted(new.values(), key=lambda candidate: candidate.symbol is not None)]


def folder_name(word: str) -> str:
    """The folder of a model among others."""
    return word if word in names.SHARED else names.slug(word)


def _word(folder: str) -> str:
    return folder if folder in names.SHARED else names.unslug(folder)


def results_file(folder: str | Path, word: str, *, champion: bool = False) -> Path:
    """Where `evaluate` keeps the per-row results of a candidate or of the present champion of that name."""
    return Path(folder) / f"{'champion' if champion else 'candidate'}-{folder_name(word)}.parquet"


def recorded_file(folder: str | Path, word: str) -> Path:
    """Where `evaluate` keeps a request with the candidate's own answer, for whoever serves it later."""
    return Path(folder) / f"recorded-{folder_name(word)}.json"


def live_version(registry: Registry, word: str) -> int | None:
    """The version that is live under `word`'s own name."""
    model = registry.state().models.get(registry.model_name(word))
    return None if model is None else model.champion


def champion_folder(run: Run, registry: Registry, word: str) -> tuple[int, Path] | None:
    """Version and files of what is live under `word`'s own name; None when nothing is.

    The files come from the registry: a pod sees no served models.
    """
    version = live_version(registry, word)
    if version is None:
        return None
    return version, fetch(registry, word, version, run.folder / "champions" / folder_name(word))


def fetch(registry: Registry, word: str, version: int, target: Path) -> Path:
    """A registered version's files, copied to `target` and checked.

    Raises:
        RegistryError: they are not what was registered, or the registry is away.
    """
    model = registry.model(registry.state(), word)
    shutil.rmtree(target, ignore_errors=True)
    with tempfile.TemporaryDirectory(prefix="barcast-fetch-") as folder:
        source = registry.tracking.fetch(model.name, version, "model", Path(folder))
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copytree(source, target)
    (target / manifest.NAME).unlink(missing_ok=True)
    if manifest.digest(manifest.hash_files(target)) != registry.version(model, version).digest:
        raise RegistryError(
            f"The stored files of {model.name} version {version} are not what was registered.",
            hint="`barcast models verify` says what differs.",
        )
    return target
