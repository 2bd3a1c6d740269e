"""A Python file of the user's own, named in the configuration: loaded once for each state of its content."""

from __future__ import annotations

import hashlib
import importlib.util
from functools import lru_cache
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import numpy.typing as npt

from barcast.errors import ConfigError

Arrays = dict[str, npt.NDArray[np.float64]]


def content_of(path: str, setting: str) -> tuple[str, str]:
    """Absolute path and digest of the file.

    Raises:
        ConfigError: there is no such file.
    """
    file = Path(path)
    if not file.is_file():
        raise ConfigError(f"There is no file at {path!r}.", hint=f"Correct {setting}.")
    return str(file.resolve()), hashlib.sha256(file.read_bytes()).hexdigest()


@lru_cache(maxsize=16)
def module_of(path: str, digest: str) -> ModuleType:
    """The file as a module.

    Raises:
        ConfigError: running it failed.
    """
    spec = importlib.util.spec_from_file_location(f"barcast_user_{digest[:12]}", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        raise ConfigError(f"The file {path} cannot be loaded: {type(error).__name__}: {error}") from error
    return module


def made_up_bars(num: int) -> Arrays:
    """One symbol's bars to try a user's function on, oldest first; the same at every call."""
    random = np.random.default_rng(7)
    close = 100.0 * np.exp(np.cumsum(random.normal(0, 0.01, num)))
    open_ = close * np.exp(random.normal(0, 0.003, num))
    return {
        "open": open_,
        "high": np.maximum(open_, close) * (1 + random.random(num) * 0.004),
        "low": np.minimum(open_, close) * (1 - random.random(num) * 0.004),
        "close": close,
        "volume": random.lognormal(3.0, 1.0, num),
        "time": 1.7e9 + 300.0 * np.arange(num, dtype=np.float64),
    }


def scaled(arrays: Arrays, by: float) -> Arrays:
    """The same bars with prices multiplied, as a split does."""
    prices = ("open", "high", "low", "close")
    return {name: values * (by if name in prices else 1.0) for name, values in arrays.items()}


def copies(arrays: Any) -> Arrays:
    """Arrays that a user's function may change without harm."""
    return {name: values.copy() for name, values in arrays.items()}
