"""Where one workspace keeps its state on this machine.

`<root>/<name>/` holds bars, features, Feast, served models, runs; MLflow stands beside the workspaces.
"""

from __future__ import annotations

import re
import shutil
from dataclasses import dataclass
from pathlib import Path

from barcast.errors import ConfigError


@dataclass(frozen=True)
class Workspace:
    """Paths of one workspace. Nothing is created until a room writes.

    Args:
        name: letters, digits and `_`, beginning with a letter (it is the Feast project too).
        base: the folder that holds all workspaces; `.barcast` by default.
        models_base: the folder that holds every workspace's served models, where they lie apart from the rest.
    """

    name: str
    base: Path = Path(".barcast")
    models_base: Path | None = None

    def __post_init__(self) -> None:
        if not re.fullmatch(r"[a-z][a-z0-9_]{0,62}", self.name):
            raise ConfigError(
                f"Workspace name {self.name!r} cannot be used.",
                hint="Use lower-case letters, digits and '_', beginning with a letter, e.g. 'crypto_5m'.",
            )
        object.__setattr__(self, "base", Path(self.base).absolute())

    @property
    def root(self) -> Path:
        return self.base / self.name

    @property
    def bars(self) -> Path:
        """The Delta table of bars."""
        return self.root / "bars"

    @property
    def features(self) -> Path:
        """Parquet files of the offline store."""
        return self.root / "features"

    @property
    def feast(self) -> Path:
        """Feast's registry and embedded online store."""
        return self.root / "feast"

    @property
    def models(self) -> Path:
        """Served version directories and models.config."""
        return self.models_base / self.name if self.models_base else self.root / "models"

    @property
    def models_config(self) -> Path:
        """What the model server serves; there once something is live."""
        return self.models / "models.config"

    @property
    def runs(self) -> Path:
        """One folder a pipeline run: report, outcome, artifacts."""
        return self.root / "runs"

    @property
    def ledger(self) -> Path:
        """The append-only ledger file."""
        return self.root / "ledger.jsonl"

    @property
    def logs(self) -> Path:
        """Durable local logs (live bars, predictions, feedback)."""
        return self.root / "logs"

    @property
    def state(self) -> Path:
        """Small state: streaming engine, account, emergency stop."""
        return self.root / "state"

    @property
    def mlflow_uri(self) -> str:
        """MLflow's tracking and registry database."""
        return f"sqlite:///{self.base / 'mlflow.db'}"

    @property
    def mlflow_artifacts(self) -> Path:
        """MLflow's artifact folder."""
        return self.base / "mlartifacts"

    def free_gb(self) -> tuple[Path, float]:
        """The nearest existing folder to where the workspaces lie, and the free space there in GB."""
        folder = next(path for path in (self.base, *self.base.parents) if path.exists())
        return folder, shutil.disk_usage(folder).free / 1e9
