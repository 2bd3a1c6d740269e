"""A workspace with bars, live versions and a prediction log, in which a test sets how good the answers are."""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from barcast import clock, labels
from barcast.bars.ingest import open_store
from barcast.bars.schema import adjusted
from barcast.bars.sources.simulator import simulate
from barcast.config import Config
from barcast.registry import Recorded, Registry
from barcast.serving.market import micros
from barcast.serving.prediction_log import PredictionLog

VERDICT = {"outcome": "promote", "reasons": ["Better."], "numbers": {}}
PRIOR = np.array([0.3, 0.4, 0.3])


def config(root: Path, **operations: Any) -> Config:
    """Hourly bars round the clock, three-bar horizon, few features."""
    return Config.model_validate(
        {
            "workspace": "watched",
            "interval": "1h",
            "horizon_bars": 3,
            "lookback_bars": 5,
            "storage": {"root": str(root)},
            "source": {"kind": "simulator"},
            "universe": {"calendar": "24/7"},
            "features": {"categories": ["price_action"]},
            "serving": {"endpoint": "127.0.0.1:1"},
            "gateway": {"port": 1},
            "registry": {"retry_attempts": 1, "automatic_rollbacks_per_day": 2},
            "operations": operations,
        }
    )


@dataclass
class World:
    """A workspace and the handles to spoil it."""

    config: Config
    bars: pl.DataFrame
    folder: Path

    @property
    def registry(self) -> Registry:
        return Registry(self.config.open_workspace(), self.config)

    @property
    def times(self) -> pl.Series:
        return self.bars["event_timestamp"].unique().sort()

    def promote(self, symbol: str | None = None, trained_until: datetime | None = None) -> int:
        """A further version goes live by a person."""
        registry, count = self.registry, len(list(self.folder.iterdir()))
        export = self.folder / f"export-{count}"
        extra = export / "assets.extra"
        extra.mkdir(parents=True)
        (export / "saved_model.pb").write_bytes(b"graph %d" % count)
        limits = {"lower": -0.5, "upper": 0.5}
        (extra / "model.json").write_text(json.dumps({"info": {"thresholds": limits}}))
        (extra / "serving.json").write_text("{}")
        metadata = {
            "kind": "network", "data_version": "1", "data_hash": "d" * 64, "config_hash": "c" * 64,
            "features": ["a"], "metrics": {"ml_log_loss": 1.05, "ml_accuracy": 0.5, "ml_ece": 0.02},
            "trained_until": trained_until or self.times[1200],
        }  # fmt: skip
        one = np.full((1, 3, 2), count, np.float32)
        recorded = Recorded({"window": one}, {"probabilities": np.array([[0.2, 0.3, 0.5]], np.float32)})
        version = registry.register(export, symbol, metadata, recorded=recorded)
        registry.judge(symbol, version, VERDICT)
        registry.set_challenger(symbol, version)
        registry.approve(symbol, by="ana", reason="better")
        return int(registry.promote(symbol))

    def answer(
        self,
        model: str,
        version: int,
        first: int,
        last: int,
        *,
        knows: float = 0.1,
        poisoned: bool = False,
        sureness: float = 1.0,
        symbols: tuple[str, ...] | None = None,
        link: str = "",
        seed: int = 0,
    ) -> None:
        """Answers for the bars `first` to `last`, given an hour ago.

        Args:
            knows: how often the model knows the outcome; its probabilities say so honestly.
            poisoned: BUY and SELL change places, and it is very sure.
            sureness: power put on honest probabilities.
        """
        outcomes = labels.classify(
            labels.make(adjusted(self.bars), horizon_bars=3, config=self.config.labels),
            labels.Thresholds(-0.5, 0.5),
        )
        span = outcomes.filter(pl.col("event_timestamp").is_between(self.times[first], self.times[last]))
        if symbols is not None:
            span = span.filter(pl.col("symbol").is_in(symbols))
        rng = np.random.default_rng(seed)
        label = span["label"].fill_null(1).to_numpy().astype(int)
        p = honest(label, knows, rng) ** sureness
        p /= p.sum(axis=1, keepdims=True)
        if poisoned:
            p = p[:, ::-1] ** 3
            p /= p.sum(axis=1, keepdims=True)
        log = PredictionLog(self.config.open_workspace().logs / "predictions.db")
        answered = micros(clock.now())
        rows = [
            (f"{model}-{version}-{seed}-{s}-{micros(t)}", s, micros(t), answered, model, version, "universal",
             "champion", link, *map(float, q), float(q.max()))
            for s, t, q in zip(span["symbol"], span["event_timestamp"], p, strict=True)
        ]  # fmt: skip
        with log._write():
            log._connection.executemany(
                "INSERT INTO predictions (prediction_id, symbol, feature_us, answered_us, model, version, kind, arm,"
                " link, p_sell, p_hold, p_buy, confidence) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
                rows,
            )
        log.close()


def honest(label: np.ndarray, knows: float, rng: np.random.Generator) -> np.ndarray:
    """(n, 3) probabilities of a forecaster that is told the outcome with chance `knows`, and a random one else."""
    prior = np.bincount(label, minlength=3) / len(label)
    tip = np.where(rng.random(len(label)) < knows, label, rng.choice(3, len(label), p=prior))
    likely = knows * np.eye(3)[tip] + (1 - knows) * prior[tip][:, None]
    p = likely * prior
    return p / p.sum(axis=1, keepdims=True)


def build(folder: Path, num_bars: int = 2200, **operations: Any) -> World:
    """Bars of three symbols up to an hour ago, nothing live yet."""
    settings = config(folder / "root", **operations)
    end = datetime.now(UTC).replace(minute=0, second=0, microsecond=0)
    bars = simulate(3, num_bars, "1h", 11, calendar="24/7", start=end - timedelta(hours=num_bars))
    open_store(settings, settings.open_workspace()).append(bars)
    (folder / "exports").mkdir()
    return World(settings, bars, folder / "exports")
