"""A small workspace with bars, windows and live models, and the handles to break each of them."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from model_double import ModelDouble

from barcast.config import Config
from barcast.serving.market import MarketBook
from barcast.serving.predictor import Predictor
from barcast.workspace import Workspace

T, F = 60, 4
START = datetime(2024, 1, 1, tzinfo=UTC)
NAMES = tuple(f"f{i}" for i in range(F))


def make_bars(symbols: list[str], count: int = 300, seed: int = 3, factor: float = 1.0) -> pl.DataFrame:
    """Hourly bars of a random walk, as traded."""
    rng = np.random.default_rng(seed)
    frames = []
    for symbol in symbols:
        close = 100 * np.exp(np.cumsum(rng.normal(0, 0.01, count)))
        opens = np.concatenate([[100.0], close[:-1]])
        frames.append(
            pl.DataFrame(
                {
                    "symbol": [symbol] * count,
                    "event_timestamp": [START + timedelta(hours=i + 1) for i in range(count)],
                    "created_timestamp": [START + timedelta(hours=i + 1) for i in range(count)],
                    "open": opens,
                    "high": np.maximum(opens, close) * 1.001,
                    "low": np.minimum(opens, close) * 0.999,
                    "close": close,
                    "volume": np.full(count, 1000.0),
                    "price_factor": np.full(count, factor),
                    "volume_factor": np.full(count, 1.0),
                }
            ).with_columns(pl.col("event_timestamp", "created_timestamp").cast(pl.Datetime("us", "UTC")))
        )
    return pl.concat(frames)


@dataclass
class Row:
    event_timestamp: datetime
    window: np.ndarray
    row: np.ndarray
    stale: bool = False


@dataclass
class MemoryStore:
    """An online store in memory."""

    rows: dict[str, Row] = field(default_factory=dict)
    error: Exception | None = None

    def online(self, symbols: Any) -> dict[str, Row]:
        if self.error is not None:
            raise self.error
        return {s: self.rows[s] for s in symbols if s in self.rows}

    def put(self, symbol: str, at: datetime, window: np.ndarray) -> None:
        self.rows[symbol] = Row(at, window.astype(np.float32), window[-1].astype(np.float32))


@dataclass
class World:
    """Everything a prediction needs, and the handles to break it."""

    workspace: Workspace
    config: Config
    store: MemoryStore
    book: MarketBook
    server: ModelDouble
    bars: pl.DataFrame

    def live(self, models: dict[str, dict[str, int]], traffic: dict[str, Any] | None = None) -> None:
        """Write models.config (and traffic.json) as the registry does."""
        text = ""
        for name, labels in models.items():
            versions = "".join(f" versions: {v}" for v in sorted(set(labels.values())))
            marks = "".join(f' version_labels {{ key: "{k}" value: {v} }}' for k, v in labels.items())
            text += (
                f'config {{ name: "{name}" base_path: "x" model_platform: "tensorflow" '
                f"model_version_policy {{ specific {{{versions} }} }}{marks} }}\n"
            )
        text = f"model_config_list {{\n{text}}}\n"
        folder = self.workspace.models
        folder.mkdir(parents=True, exist_ok=True)
        temporary = folder / ".new"
        temporary.write_text(text)
        temporary.replace(folder / "models.config")
        (folder / "traffic.json").write_text(json.dumps(traffic or {}))

    def files(self, model: str, version: int, symbols: dict[str, int], **reference: np.ndarray) -> Path:
        """The small files beside a version."""
        extra = self.workspace.models / model / str(version) / "assets.extra"
        extra.mkdir(parents=True, exist_ok=True)
        (extra / "serving.json").write_text(json.dumps({"feature_names": NAMES, "symbol_ids": symbols}))
        if reference:
            np.savez(extra / "reference.npz", **reference)
        return extra

    def predictor(self, **changes: Any) -> Predictor:
        return Predictor(
            self.workspace, self.config, self.server.endpoint, store=self.store, book=self.book, **changes
        )


def linear_reference(lean: float = 1.0) -> dict[str, np.ndarray]:
    """Linear parameters that lean to BUY by `lean` whatever the window says."""
    return {
        "mean": np.zeros(F),
        "scale": np.ones(F),
        "distance": np.linspace(0.5, 2.0, 100),
        "linear_coef": np.zeros((3, F)),
        "linear_intercept": np.array([0.0, 0.5, lean]),
        "return_coef": np.zeros(F),
        "return_intercept": np.array(0.004),
    }
