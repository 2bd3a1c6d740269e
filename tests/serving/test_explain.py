"""The explanation holds the model's own numbers, and says what it could not give."""

from __future__ import annotations

from datetime import timedelta

import numpy as np
import pytest
from model_double import outputs
from serving_world import NAMES, F, T, World, linear_reference

from barcast.errors import ServingError
from barcast.serving import neighbours
from barcast.serving.market import micros


def _model(inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    if inputs["signature"][0] == len("explain"):
        gradients = np.zeros((1, T, F), np.float32)
        gradients[0, -1] = [0.05, -0.2, 0.0, 0.01]
        gradients[0, 0, 0] = 0.05
        return {"attributions": gradients}
    return outputs(
        (0.1, 0.3, 0.6), attention=np.eye(1, T, T - 3, dtype=np.float32).repeat(len(inputs["window"]), 0)
    )(inputs)


def test_explain_with_known_gradients_ranks_features_by_size(world: World) -> None:
    world.server.models[("w.universal", 1)] = _model
    newest = world.bars["event_timestamp"].max()
    latest = world.store.rows["AAA"].window[-1]
    times = np.array([micros(newest - timedelta(hours=h)) for h in (2, 40, 41, 90)])
    near = latest[:2]
    neighbours.write(
        world.workspace.models / "w.universal" / "1" / "assets.extra" / neighbours.NAME,
        np.stack([near, near * 2, near + np.array([0.1, 0.0]), -near]),
        ["AAA", "BBB", "BBB", "AAA"],
        times,
        np.array([0.9, 0.01, 0.02, -0.03]),
        np.array([2, 2, 2, 0]),
    )
    with world.predictor() as predictor:
        answer = predictor.predict(["AAA"], explain=True)[0]
    why = answer.explanation
    assert why is not None
    assert [f.feature for f in why.features] == [NAMES[1], NAMES[0], NAMES[3], NAMES[2]]
    assert [f.effect for f in why.features[:3]] == pytest.approx([-0.2, 0.1, 0.01])
    assert why.features[0].latest == pytest.approx(float(latest[1]))
    assert sum(why.attention) == pytest.approx(1.0)
    # the row of two hours ago overlaps the present horizon, and the two of BBB lie within one horizon of
    # each other
    assert [(s.symbol, s.label) for s in why.similar] == [("BBB", "BUY"), ("AAA", "SELL")]
    assert why.similar[0].distance == pytest.approx(0.0, abs=1e-6)
    assert why.similar[1].distance == pytest.approx(2.0, abs=1e-6)
    assert why.missing == ()
    for words in (
        "BUY: the universal model v1",
        "Towards it: f0 (+0.100)",
        "Against it: f1 (-0.200)",
        "2 bars back",
        "rose 1 times",
        "mean log return was -1.00%",
        "Advice: BUY with 20.0% of equity",
    ):
        assert words in why.rationale


def test_explain_with_nothing_to_give_says_so(world: World) -> None:
    with world.predictor() as predictor:
        answer = predictor.predict(["AAA"], explain=True)[0]
    why = answer.explanation
    assert why is not None
    assert why.features == ()
    assert any(m.startswith("features: The explain signature answered") for m in why.missing)
    assert any("no embeddings are stored" in m for m in why.missing)
    assert "After the" not in why.rationale


def test_explain_with_rules_names_the_fallback(world: World) -> None:
    world.store.error = ConnectionError("down")
    with world.predictor() as predictor:
        answer = predictor.predict(["AAA"], explain=True)[0]
    assert answer.explanation is not None
    assert "Answered by rules because online store: ConnectionError." in answer.explanation.rationale


def test_neighbours_with_uneven_arrays_are_refused(tmp_path) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(ServingError, match="differ in length"):
        neighbours.write(tmp_path / "n.npz", np.zeros((2, 3)), ["A"], np.zeros(2), np.zeros(2), np.zeros(2))
    good = tmp_path / "n.npz"
    neighbours.write(good, np.ones((20, 3)), ["A"] * 20, np.zeros(20), np.zeros(20), np.zeros(20, int))
    whole = good.read_bytes()
    for damaged in (b"PK nonsense", b"", whole[: len(whole) // 2], whole[:60] + bytes(20) + whole[80:]):
        (tmp_path / "bad.npz").write_bytes(damaged)
        with pytest.raises(ServingError, match="cannot be read"):
            neighbours.load(tmp_path / "bad.npz")


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 cut short"])
def test_similar_windows_that_cannot_be_read_are_named_and_no_more(world: World, content: bytes) -> None:
    (world.files("w.universal", 1, {"AAA": 1}) / neighbours.NAME).write_bytes(content)
    with world.predictor() as predictor:
        answer = predictor.predict(["AAA"], explain=True)[0]
    assert answer.explanation is not None
    assert any("neighbours.npz cannot be read" in text for text in answer.explanation.missing)


def test_a_linear_model_is_not_said_to_have_attention(world: World) -> None:
    """Its servable answers the name with the newest bar alone, which is no fact about it."""
    world.live({"w._linear": {"stable": 1}})
    world.files("w._linear", 1, {}, **linear_reference())
    world.server.models[("w._linear", 1)] = outputs((0.1, 0.3, 0.6))
    with world.predictor() as predictor:
        answer = predictor.predict(["AAA"], explain=True)[0]
    assert answer.model_kind == "linear"
    assert answer.model_version == 1
    assert answer.explanation is not None
    assert answer.explanation.attention == ()
    assert "attention" not in answer.explanation.rationale
    assert "attention: a linear model has none." in answer.explanation.missing
