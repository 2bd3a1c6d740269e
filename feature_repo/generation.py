"""The generation that these files describe: names and types from barcast, stores from feature_store.yaml.

The files of this folder only name objects, as Feast expects them; nothing is computed here.
Read from the environment: FEAST_FS_YAML_FILE_PATH (Feast's own) and BARCAST_CONFIG.
"""

import os
from pathlib import Path

from feast.repo_config import load_repo_config

from barcast.adapters import feast_config
from barcast.config import load
from barcast.errors import ConfigError

_folder = Path(__file__).resolve().parent
_yaml = Path(os.environ.get("FEAST_FS_YAML_FILE_PATH") or _folder / "feature_store.yaml")
_named = os.environ.get("BARCAST_CONFIG")

config = load(Path(_named) if _named else None, root=_folder.parent / ".barcast")
repo = load_repo_config(_folder, _yaml)
if repo.project != config.workspace:
    raise ConfigError(
        f"{_yaml.name} is for {repo.project!r}, the configuration for {config.workspace!r}.",
        hint="Set BARCAST_CONFIG to the workspace's configuration, or `project` to its name.",
    )
if repo.registry.registry_type == "file":  # Feast makes only the last folder of this path
    (_folder / repo.registry.path).parent.mkdir(parents=True, exist_ok=True)
names, definitions = feast_config.definitions_of(repo, config.open_workspace(), config)
