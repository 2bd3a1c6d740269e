"""Candidates of a run and what they are compared with: names, folders, files of per-row results.

A candidate's *word* is how a person names it: a symbol, "universal" or "_linear".
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from barcast import names
from barcast.registry import Registry
from barcast.steps._record import Run


@dataclass(frozen=True)
class Candidate:
    """One exported model of this run.

    Attributes:
        word: symbol, "universal" or "_linear".
        folder: the exported SavedModel.
    """

    word: str
    folder: Path

    @property
    def symbol(self) -> str | None:
        """The symbol of an own model, else None."""
        return None if self.word in (names.UNIVERSAL, names.LINEAR) else self.word

    @property
    def kind(self) -> str:
        """`linear` or `network`."""
        return "linear" if self.word == names.LINEAR else "network"


def found(linear: str, universal: str, symbols: Sequence[str]) -> list[Candidate]:
    """All candidates, those that others are compared with first."""
    own = [
        Candidate(names.unslug(folder.name), folder)
        for path in symbols
        if Path(path).is_dir()
        for folder in sorted(Path(path).iterdir())
    ]
    return [Candidate(names.LINEAR, Path(linear)), Candidate(names.UNIVERSAL, Path(universal)), *own]


def results_file(folder: str | Path, word: str, *, champion: bool = False) -> Path:
    """Where `evaluate` keeps the per-row results of a candidate or of the present champion of that name."""
    stem = word if word in (names.UNIVERSAL, names.LINEAR) else names.slug(word)
    return Path(folder) / f"{'champion' if champion else 'candidate'}-{stem}.parquet"


def champion_folder(run: Run, registry: Registry, word: str) -> tuple[int, Path] | None:
    """Version and files of what is live under `word`'s own name; None when nothing is."""
    model = registry.state().models.get(registry.model_name(word))
    if model is None or model.champion is None:
        return None
    folder = run.workspace.models / model.name / str(model.champion)
    return (model.champion, folder) if folder.is_dir() else None
