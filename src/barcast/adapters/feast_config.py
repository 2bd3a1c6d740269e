"""Feast's RepoConfig of a workspace: the embedded stores, or those of a feature_store.yaml.

The embedded form keeps the registry and the online store under `<workspace>/feast` and Parquet under
`<workspace>/features`; `feature_repo/feature_store.yaml` says the same for the command `feast`.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import Any

from feast import RepoConfig
from feast.data_source import DataSource
from feast.repo_config import load_repo_config

from barcast.adapters import feast_definitions as definitions
from barcast.adapters.feast_sqlite import TYPE as SQLITE
from barcast.adapters.polars_offline_store import TYPE as POLARS
from barcast.config import Config
from barcast.errors import ConfigError, first_line
from barcast.workspace import Workspace


def repo_config(workspace: Workspace, config: Config) -> RepoConfig:
    """The workspace's Feast configuration; the workspace's name is the Feast project.

    Raises:
        ConfigError: the feature_store.yaml does not exist, is damaged, or names variables that are not set.
    """
    path = config.feast.feature_store_yaml
    if path is not None:
        path = Path(path).absolute()
        if not path.is_file():
            raise ConfigError(
                f"feast.feature_store_yaml names {str(path)!r}, which is no file.",
                hint="Give the path of a feature_store.yaml, or leave it out for the embedded stores.",
            )
        loaded = _load(path)
        loaded.project = workspace.name
        return loaded
    folder = workspace.feast
    folder.mkdir(parents=True, exist_ok=True)
    return RepoConfig(
        project=workspace.name,
        provider="local",
        registry=str(folder / "registry.db"),
        online_store={"type": SQLITE, "path": str(folder / "online.db")},
        offline_store={"type": POLARS},
        entity_key_serialization_version=3,
        materialization={"pull_latest_features": True},
        repo_path=folder,
    )


def _load(path: Path) -> RepoConfig:
    named = re.findall(r"\$\{(\w+)\}", path.read_text())
    unset = sorted({name for name in named if not os.environ.get(name)})  # YAML reads an empty one as no text
    if unset:
        raise ConfigError(
            f"{path.name} needs environment variables that are not set or empty: {', '.join(unset)}.",
            hint="Set them; feature_repo/README.md says what they are. A password nobody asks for may be any word.",
        )
    try:
        loaded: RepoConfig = load_repo_config(path.parent, path)
        _ = (
            loaded.registry,
            loaded.online_store,
            loaded.offline_store,
        )  # Feast reads these parts only when asked
    except Exception as error:  # Feast raises what its parsers raise
        raise ConfigError(
            f"{path.name} is no feature_store.yaml that Feast can use: {_briefly(error)}",
            hint="Compare it with feature_repo/feature_store.yaml.",
        ) from error
    return loaded


def _briefly(error: Exception) -> str:
    """What, which key and why, without the reader's own notes."""
    lines = [line.partition(" [type=")[0].strip() for line in str(error).splitlines()[:3]]
    return "; ".join(filter(None, lines)) or first_line(error)


def source_factory(repo: RepoConfig, features: Path, config: Config) -> Callable[[str], DataSource]:
    """Makes batch sources of the class that the configured offline store reads.

    Args:
        repo: the Feast configuration.
        features: folder of the Parquet files, for file stores.
        config: the generation and the owner.
    """
    generation, owner = config.generation, config.feast.owner
    if is_postgres(repo):
        return lambda dataset: definitions.postgres_source(repo.project, generation, dataset, owner=owner)
    return lambda dataset: definitions.file_source(features, generation, dataset, owner=owner)


def is_postgres(repo: RepoConfig) -> bool:
    """Whether the offline store is PostgreSQL."""
    return "postgres" in str(repo.offline_store.type).lower()


def definitions_of(
    repo: RepoConfig,
    workspace: Workspace,
    config: Config,
    feature_names: Sequence[str] | None = None,
    cross_symbol: Collection[str] | None = None,
) -> tuple[tuple[str, ...], definitions.Definitions]:
    """The generation's feature names in order, and its Feast objects for the stores of `repo`.

    Args:
        repo: the Feast configuration; it decides the class of the sources.
        workspace: where Parquet files lie.
        config: interval, generation, look-back and the section `feast`.
        feature_names: by default those of `barcast.features`.
        cross_symbol: names that depend on other symbols; by default what `barcast.features` says.
    """
    if feature_names is None:
        feature_names, found = catalogue_names(config)
        cross_symbol = found if cross_symbol is None else cross_symbol
    names = tuple(feature_names)
    return names, definitions.define(
        names,
        interval=config.interval,
        generation=config.generation,
        lookback_bars=config.lookback_bars,
        source=source_factory(repo, workspace.features, config),
        ttl_bars=config.feast.ttl_bars,
        owner=config.feast.owner,
        cross_symbol=cross_symbol or (),
    )


def catalogue_names(config: Config) -> tuple[tuple[str, ...], frozenset[str]]:
    """The generation's feature names in order, and which of them depend on other symbols."""
    from barcast import features as room

    features: Any = room
    names = tuple(features.feature_names(config.interval, config.features))
    cross = {spec.name for spec in features.catalogue(config.interval) if spec.cross_symbol}
    return names, frozenset(name for name in names if name in cross)
