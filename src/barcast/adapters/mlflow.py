"""MLflow: runs, artifacts, registered models, versions and aliases. The only module that imports mlflow.

The same code speaks to SQLite and files on one machine, to a database, or to a tracking server, by its URI.
Calls are tried again while MLflow is away (restart, lock, network), then stop with a clear error. Data passes
both ways: registry → versions, aliases, evidence; MLflow → their numbers and files.
"""

from __future__ import annotations

import logging
import math
import os
import re
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from barcast.durable import exclusive
from barcast.errors import RegistryError, first_line

T = TypeVar("T")
MODEL_PATH = "model"
EVIDENCE_PATH = "evidence"
JUDGED_PATH = "judged"

# Read by mlflow when it is imported: no usage reports, no progress bars, no git look-ups, and no retries of
# its own that would hide an outage for minutes.
_QUIET = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",
    "GIT_PYTHON_REFRESH": "quiet",
}


@dataclass(frozen=True)
class VersionInfo:
    """One model version as MLflow knows it."""

    model: str
    version: int
    run_id: str
    source: str
    tags: dict[str, str]
    metrics: dict[str, float] = field(default_factory=dict)
    parameters: dict[str, str] = field(default_factory=dict)
    description: str = ""


class Tracking:
    """MLflow of one workspace.

    Args:
        uri: tracking and registry URI (`sqlite:///...`, `postgresql://...`, `http(s)://...`).
        artifact_location: where new experiments keep files; empty leaves it to the tracking server.
        experiment: the experiment's name (the workspace).
    """

    def __init__(
        self,
        uri: str,
        artifact_location: str,
        experiment: str,
        *,
        attempts: int = 4,
        wait_seconds: float = 0.2,
        timeout_seconds: float = 10.0,
    ) -> None:
        self.uri = uri
        self.artifact_location = artifact_location
        self.experiment = experiment
        self.attempts = attempts
        self.wait_seconds = wait_seconds
        self.timeout_seconds = timeout_seconds
        self._client: Any = None
        self._experiment_id = ""

    def _call(self, what: str, function: Callable[[Any], T]) -> T:
        """`function(client)`, tried again while MLflow is away.

        Raises:
            RegistryError: MLflow stayed away, or refused.
        """
        from tenacity import Retrying, retry_if_exception, stop_after_attempt, wait_exponential

        def passing(error: BaseException) -> bool:
            if isinstance(error, (OSError, ConnectionError, TimeoutError)):
                return True
            # By name: sqlalchemy, requests and mlflow need not be imported to tell their errors apart.
            code = getattr(error, "error_code", "")
            return code in {"TEMPORARILY_UNAVAILABLE", "INTERNAL_ERROR"} or type(error).__name__ in {
                "OperationalError",
                "InterfaceError",
                "ConnectionError",
                "ReadTimeout",
            }

        retrying = Retrying(
            stop=stop_after_attempt(self.attempts),
            wait=wait_exponential(multiplier=self.wait_seconds, max=5.0),
            retry=retry_if_exception(passing),
            reraise=True,
        )
        try:
            return retrying(lambda: function(self._open()))
        except RegistryError:
            raise
        except Exception as error:
            self._client = None
            text = _starred(first_line(error))[:300]
            tries = f" after {self.attempts} tries" if passing(error) else ""
            raise RegistryError(
                f"MLflow at {self.shown_uri} could not {what}{tries}: {text}",
                hint="Nothing was left half-done. Check that it runs and registry.tracking_uri is right, "
                "then ask again.",
            ) from error

    @property
    def shown_uri(self) -> str:
        """The URI without a password."""
        return _starred(self.uri)

    def _open(self) -> Any:
        if self._client is not None:
            return self._client
        for name, value in _QUIET.items():
            os.environ.setdefault(name, value)
        os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", str(max(1, round(self.timeout_seconds))))
        self._reach()
        for name in ("mlflow", "alembic", "mlflow.store.db.utils"):
            logging.getLogger(name).setLevel(logging.ERROR)
        from mlflow.tracking import MlflowClient

        # importing mlflow sets its own level again
        logging.getLogger("mlflow").setLevel(logging.ERROR)
        if self.uri.startswith("sqlite:///"):
            # Two processes that create the tables at once collide; the second waits and finds them.
            database = Path(self.uri.removeprefix("sqlite:///"))
            with exclusive(database.with_name(database.name + ".lock"), 120.0):
                client = MlflowClient(tracking_uri=self.uri, registry_uri=self.uri)
                self._ensure_experiment(client)
        else:
            client = MlflowClient(tracking_uri=self.uri, registry_uri=self.uri)
            self._ensure_experiment(client)
        self._client = client
        return client

    def _reach(self) -> None:
        """Fail at once when nothing answers: MLflow's own opening retries for a minute and logs every try."""
        if self.uri.startswith("sqlite:"):
            return
        if self.uri.startswith(("http://", "https://")):
            import httpx

            try:
                httpx.get(f"{self.uri.rstrip('/')}/health", timeout=self.timeout_seconds).raise_for_status()
            except httpx.HTTPError as error:
                raise ConnectionError(f"{type(error).__name__}: {error}") from error
            return
        import sqlalchemy

        arguments = {"connect_timeout": max(1, round(self.timeout_seconds))}
        engine = sqlalchemy.create_engine(
            self.uri, connect_args=arguments if self.uri.startswith("postgresql") else {}
        )
        try:
            with engine.connect() as connection:
                connection.execute(sqlalchemy.text("SELECT 1"))
        finally:
            engine.dispose()

    def _ensure_experiment(self, client: Any) -> None:
        known = client.get_experiment_by_name(self.experiment)
        if known is not None:
            self._experiment_id = known.experiment_id
            return
        try:
            self._experiment_id = client.create_experiment(
                self.experiment, artifact_location=self.artifact_location or None
            )
        except Exception:  # another process made it in the meantime
            known = client.get_experiment_by_name(self.experiment)
            if known is None:
                raise
            self._experiment_id = known.experiment_id

    def create_version(
        self,
        model: str,
        model_dir: Path,
        *,
        parameters: Mapping[str, Any],
        metrics: Mapping[str, float],
        tags: Mapping[str, str],
        evidence: Path | None = None,
        description: str = "",
    ) -> VersionInfo:
        """Log a run with the SavedModel and its evidence as artifacts, and make a version of `model` from it.

        A SavedModel folder is no MLflow flavour, so it is logged as plain files; the version's source points
        at them. Metrics that are not finite are left out (they stand in the evidence).
        """

        def create(client: Any) -> VersionInfo:
            from mlflow.entities import Metric, Param

            now = int(time.time() * 1000)
            run = client.create_run(self._experiment_id, run_name=model, tags=dict(tags))
            run_id = run.info.run_id
            try:
                finite = {k: float(v) for k, v in metrics.items() if v is not None and math.isfinite(v)}
                for chunk in _chunks(sorted(finite.items()), 500):
                    client.log_batch(run_id, metrics=[Metric(k, v, now, 0) for k, v in chunk])
                shown = {k: str(v)[:500] for k, v in parameters.items()}
                for part in _chunks(sorted(shown.items()), 90):
                    client.log_batch(run_id, params=[Param(k, v) for k, v in part])
                client.log_artifacts(run_id, str(model_dir), MODEL_PATH)
                if evidence is not None:
                    client.log_artifacts(run_id, str(evidence), EVIDENCE_PATH)
                self._ensure_model(client, model)
                version = client.create_model_version(
                    model,
                    f"{run.info.artifact_uri}/{MODEL_PATH}",
                    run_id=run_id,
                    tags=dict(tags),
                    description=description[:5000] or None,
                )
            except Exception:
                client.set_terminated(run_id, "FAILED")
                raise
            return VersionInfo(model, int(version.version), run_id, version.source, dict(tags))

        def finish(client: Any) -> None:
            client.set_tag(made.run_id, "barcast.version", str(made.version))
            client.set_terminated(made.run_id, "FINISHED")

        made = self._call(f"register a version of {model}", create)
        # Apart: tried again together with the making, a hiccup here would leave a version that no ledger knows.
        self._call(f"end the run of {model} version {made.version}", finish)
        return made

    @staticmethod
    def _ensure_model(client: Any, model: str) -> None:
        try:
            client.create_registered_model(model)
        except Exception as error:
            if getattr(error, "error_code", "") != "RESOURCE_ALREADY_EXISTS":
                raise

    def version(self, model: str, version: int) -> VersionInfo:
        """Everything MLflow knows of one version.

        Raises:
            RegistryError: there is no such version.
        """

        def get(client: Any) -> VersionInfo:
            found = client.get_model_version(model, str(version))
            run = client.get_run(found.run_id)
            return VersionInfo(
                model,
                int(found.version),
                found.run_id,
                found.source,
                dict(found.tags),
                dict(run.data.metrics),
                dict(run.data.params),
                found.description or "",
            )

        return self._call(f"find {model} version {version}", get)

    def versions(self, model: str) -> list[int]:
        """The numbers of all versions of `model`; empty when MLflow does not know it."""
        return self._call(
            f"list the versions of {model}",
            lambda client: sorted(int(v.version) for v in client.search_model_versions(f"name='{model}'")),
        )

    def aliases(self, model: str) -> dict[str, int]:
        """Alias → version; empty when MLflow does not know the model."""

        def get(client: Any) -> dict[str, int]:
            try:
                found = client.get_registered_model(model)
            except Exception as error:
                if getattr(error, "error_code", "") == "RESOURCE_DOES_NOT_EXIST":
                    return {}
                raise
            return {name: int(version) for name, version in found.aliases.items()}

        return self._call(f"read the aliases of {model}", get)

    def set_alias(self, model: str, alias: str, version: int | None) -> None:
        """Point `alias` at `version`; None removes it."""

        def move(client: Any) -> None:
            if version is None:
                client.delete_registered_model_alias(model, alias)
            else:
                client.set_registered_model_alias(model, alias, str(version))

        self._call(f"move the alias {alias!r} of {model}", move)

    def tag_version(self, model: str, version: int, tags: Mapping[str, str]) -> None:
        """Set tags of one version."""

        def tag(client: Any) -> None:
            for name, value in tags.items():
                client.set_model_version_tag(model, str(version), name, value[:4900])

        self._call(f"tag {model} version {version}", tag)

    def tag_model(self, model: str, name: str, value: str) -> None:
        """Set a tag of the registered model."""
        self._call(f"tag {model}", lambda client: client.set_registered_model_tag(model, name, value))

    def model_tags(self, model: str) -> dict[str, str]:
        """Tags of the registered model."""
        return self._call(f"read {model}", lambda client: dict(client.get_registered_model(model).tags))

    def add_file(self, model: str, version: int, file: Path, path: str) -> None:
        """Put a file beside a version's artifacts, under `path`."""

        def add(client: Any) -> None:
            client.log_artifact(client.get_model_version(model, str(version)).run_id, str(file), path)

        self._call(f"keep {file.name} with {model} version {version}", add)

    def fetch(self, model: str, version: int, path: str, folder: Path) -> Path:
        """Copy the artifacts under `path` (`model`, `evidence` or `judged`) of a version into `folder`; returns where
        they lie."""

        def get(client: Any) -> Path:
            found = client.get_model_version(model, str(version))
            folder.mkdir(parents=True, exist_ok=True)
            return Path(client.download_artifacts(found.run_id, path, str(folder)))

        return self._call(f"fetch the files of {model} version {version}", get)

    def holds(self, model: str, version: int, path: str = MODEL_PATH) -> bool:
        """Whether a version's stored files are there (their content is checked when they are fetched)."""

        def look(client: Any) -> bool:
            run_id = client.get_model_version(model, str(version)).run_id
            return bool(client.list_artifacts(run_id, path))

        return self._call(f"look for the files of {model} version {version}", look)

    def ping(self) -> None:
        """One cheap question.

        Raises:
            RegistryError: MLflow does not answer.
        """
        self._call("answer", lambda client: client.get_experiment(self._experiment_id))


def _starred(text: str) -> str:
    """`text` without the passwords of addresses in it: errors of others name the whole address."""
    return re.sub(r"(://[^:/@\s]+):[^\s?]*@", r"\1:***@", text)


def _chunks(items: list[T], size: int) -> list[list[T]]:
    return [items[start : start + size] for start in range(0, len(items), size)]
