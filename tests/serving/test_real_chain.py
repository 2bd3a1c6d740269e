"""The fallback chain on its real parts: SavedModels in the real model server, Feast's SQLite store, bars in Delta.

One symbol's way down, each link broken in turn; MLflow is not there at all.
"""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from serving_world import make_bars

from barcast.config import Config
from barcast.serving.model_server import start
from barcast.serving.predictor import Predictor
from barcast.serving.types import Prediction
from barcast.workspace import Workspace

pytestmark = pytest.mark.slow  # imports TensorFlow and Feast, starts a server
T = 60


def export(folder: Path, names: tuple[str, ...], p: tuple[float, float, float]) -> None:
    """A SavedModel with the contract's outputs that answers `p` to everything; NaN where p is."""
    import tensorflow as tf

    module = tf.Module()
    module.p = tf.Variable(np.array(p, np.float32))

    @tf.function(
        input_signature=[
            tf.TensorSpec([None, T, len(names)], tf.float32, name="window"),
            tf.TensorSpec([None], tf.int32, name="symbol_id"),
        ]
    )
    def answer(window: Any, symbol_id: Any) -> dict[str, Any]:
        one = tf.ones_like(window[:, 0, 0])
        p = one[:, None] * module.p[None]
        flat = dict.fromkeys(("uncertainty", "expected_return", "expected_volatility"), one * 0.01)
        return {**flat, "probabilities": p, "confidence": tf.reduce_max(p, axis=1), "entropy": one}

    module.answer = answer
    tf.saved_model.save(module, str(folder), signatures={"serving_default": answer})
    (folder / "assets.extra").mkdir()
    known = {"feature_names": names, "symbol_ids": {"AAA": 1}}
    (folder / "assets.extra" / "serving.json").write_text(json.dumps(known))


@dataclass
class Real:
    """A workspace with everything in place, its server, and what is live in it."""

    workspace: Workspace
    config: Config
    names: tuple[str, ...]
    server: Any
    predictor: Predictor
    models: dict[str, dict[str, int]]
    """Labels as the file says; `served`: those that the server took over."""
    served: dict[str, dict[str, int]]

    def live(self, name: str, **labels: int) -> None:
        """Move labels as a promotion does: first list the versions, and let the server load what it can."""
        versions = {*self.served[name].values(), *labels.values()}
        write_config(self.workspace, self.served, {name: versions})
        wait(lambda: all(self.states(name).get(v) in ("AVAILABLE", "END") for v in versions))
        self.models = {**self.models, name: labels}
        write_config(self.workspace, self.models)
        if all(self.states(name).get(v) == "AVAILABLE" for v in labels.values()):
            self.served = {**self.served, name: labels}  # else the server refuses labels of what it has not

    def states(self, name: str) -> dict[int, str]:
        return self.predictor.client.versions(name)

    def version(self, name: str, number: int, p: tuple[float, float, float]) -> Path:
        folder = self.workspace.models / name / str(number)
        temporary = self.workspace.root / "new"
        export(temporary, self.names, p)
        folder.parent.mkdir(parents=True, exist_ok=True)
        temporary.rename(folder)
        return folder

    def ask(self) -> Prediction:
        return self.predictor.predict(["AAA"])[0]


def wait(done: Callable[[], bool], seconds: float = 300) -> None:
    until = time.monotonic() + seconds
    while not done():
        assert time.monotonic() < until
        time.sleep(0.05)


def write_config(
    workspace: Workspace, models: dict[str, dict[str, int]], more: dict[str, set[int]] | None = None
) -> None:
    text = "model_config_list {\n"
    for name, labels in models.items():
        wanted = {*labels.values(), *(more or {}).get(name, ())}
        versions = "".join(f" versions: {v}" for v in sorted(wanted))
        marks = "".join(f' version_labels {{ key: "{k}" value: {v} }}' for k, v in labels.items())
        text += (
            f'config {{ name: "{name}" base_path: "{workspace.models / name}" model_platform: "tensorflow" '
            f"model_version_policy {{ specific {{{versions} }} }}{marks} }}\n"
        )
    temporary = workspace.models / ".new"
    temporary.write_text(text + "}\n")
    temporary.replace(workspace.models / "models.config")


@pytest.fixture
def real(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Real]:
    from barcast.adapters.feast import FeatureStore
    from barcast.bars import Calendar, adjusted
    from barcast.bars.ingest import open_store
    from barcast.features import compute, feature_names

    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")  # the registry is down
    config = Config(
        workspace="w",
        interval="1h",
        horizon_bars=5,
        universe={"calendar": "24/7"},
        serving={"deadline_seconds": 10.0, "retries": 0},
    )
    workspace = Workspace("w", tmp_path)
    bars = make_bars(["AAA", "BBB"], count=420)
    open_store(config, workspace).append(bars)
    names = tuple(feature_names(config.interval, config.features))
    frame = compute(adjusted(bars), interval="1h", calendar=Calendar.of("24/7"), config=config.features)
    newest = frame.filter(pl.col("symbol") == "AAA").sort("event_timestamp").tail(T)
    store = FeatureStore(workspace, config)
    store.apply()
    store.push(newest.tail(1), newest.select(names).to_numpy().astype(np.float32)[None])
    models = {"w.AAA": {"stable": 1}, "w.universal": {"stable": 1}, "w._linear": {"stable": 1}}
    made = Real(workspace, config, names, None, None, models, models)  # type: ignore[arg-type]
    made.version("w.AAA", 1, (0.1, 0.2, 0.7))
    made.version("w.universal", 1, (0.2, 0.2, 0.6))
    linear = made.version("w._linear", 1, (0.2, 0.3, 0.5))
    size = len(names)
    np.savez(
        linear / "assets.extra" / "reference.npz",
        mean=np.zeros(size),
        scale=np.ones(size),
        linear_coef=np.zeros((3, size)),
        linear_intercept=np.array([0.0, 0.0, 1.0]),
        return_coef=np.zeros(size),
        return_intercept=np.array(0.004),
    )
    write_config(workspace, models)
    flags = {
        **config.model_server.flags(workspace.models / "models.config", config.serving.batch_sizes),
        "port": 0,
        "model_config_file_poll_wait_seconds": 0.1,
        "file_system_poll_wait_seconds": 0.1,
        "max_num_load_retries": 0,
        "xla_cpu_compilation_enabled": False,
    }
    with (
        start(**flags, timeout_seconds=600) as made.server,
        Predictor(workspace, config, made.server.endpoint) as made.predictor,
    ):
        yield made


def test_chain_on_real_parts_with_each_link_broken_in_turn(real: Real) -> None:
    answer = real.ask()
    assert (answer.model, answer.model_version, answer.fallback) == ("w.AAA", 1, None)
    assert answer.price is not None

    def answered_by(link: str, model: str | None, version: int | None, because: str) -> None:
        answer = real.ask()
        assert answer.status == "success"
        assert answer.fallback is not None
        assert (answer.fallback.link, answer.model, answer.model_version) == (link, model, version)
        assert because in " ".join(answer.fallback.reasons)
        assert f'link="{link}"' in real.predictor.metrics.text().decode()

    # a version whose graph is cut short, one without its variables, one whose weights are NaN
    corrupt = real.version("w.AAA", 2, (0.1, 0.1, 0.8)) / "saved_model.pb"
    corrupt.write_bytes(corrupt.read_bytes()[:-200])
    real.live("w.AAA", stable=2, previous=1)
    answered_by("previous", "w.AAA", 1, "own w.AAA/2")
    shutil.rmtree(real.version("w.AAA", 3, (0.1, 0.1, 0.8)) / "variables")
    real.live("w.AAA", stable=3, previous=1)
    answered_by("previous", "w.AAA", 1, "own w.AAA/3")
    real.version("w.AAA", 4, (float("nan"),) * 3)
    real.live("w.AAA", stable=4, previous=1)
    answered_by("previous", "w.AAA", 1, "not three finite numbers")

    real.live("w.AAA", stable=4, previous=3)
    answered_by("universal", "w.universal", 1, "previous w.AAA/3")
    shutil.rmtree(real.version("w.universal", 2, (0.1, 0.1, 0.8)) / "variables")
    real.live("w.universal", stable=2, previous=1)
    answered_by("universal_previous", "w.universal", 1, "universal w.universal/2")
    real.live("w.universal", stable=2)
    answered_by("linear", "w._linear", 1, "universal w.universal/2")

    real.server.process.kill()
    real.server.process.wait(30)
    answered_by("linear_local", None, None, "model server: UNAVAILABLE")
    (real.workspace.models / "w._linear" / "1" / "assets.extra" / "reference.npz").unlink()
    real.predictor.live._files.clear()
    answered_by("rules", None, None, "no live version carries linear parameters")


def test_prediction_on_real_parts_with_online_store_gone_leans_on_rules(real: Real) -> None:
    assert real.ask().fallback is None
    for file in real.workspace.feast.rglob("*online*"):
        file.unlink()
    with Predictor(real.workspace, real.config, real.server.endpoint) as restarted:
        answer = restarted.predict(["AAA"])[0]
    assert answer.fallback is not None
    assert answer.fallback.link == "rules"
    assert answer.fallback.reasons[0].startswith("online store")
    assert answer.decision is not None
    assert answer.decision.size == 0


def test_predict_given_with_the_stored_bars_is_the_same_answer_and_keeps_nothing(real: Real) -> None:
    from barcast.bars.ingest import open_store

    bars = open_store(real.config, real.workspace).read()
    stored = real.ask()
    own = bars.filter(pl.col("symbol") == "AAA")
    given = real.predictor.predict_given(own)[0]
    assert given.input_hash == stored.input_hash
    assert given.model_copy(update={"answered_at": stored.answered_at}) == stored
    # as of an earlier close: the peers' later bars are not looked at
    cut = own["event_timestamp"].sort()[-10]
    earlier = real.predictor.predict_given(own.filter(pl.col("event_timestamp") <= cut))[0]
    assert earlier.feature_timestamp == cut
    assert earlier.price == own.filter(pl.col("event_timestamp") == cut)["close"][0]
    short = real.predictor.predict_given(own.tail(40))[0]
    assert short.status == "refused"
    assert "40 bars; 60 after" in short.reason
    assert real.ask().input_hash == stored.input_hash
