"""The fallback chain, each link broken in turn; the answer and the metrics name what happened."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from typing import Any

import grpc
import numpy as np
import polars as pl
import pytest
from model_double import outputs
from serving_world import F, T, World, linear_reference, make_bars

from barcast import clock

ALL = {
    "w.AAA": {"stable": 5, "previous": 4},
    "w.universal": {"stable": 2, "previous": 1},
    "w._linear": {"stable": 9},
}
ORDER = [
    ("w.AAA", 5, None, "specific"),
    ("w.AAA", 4, "previous", "specific"),
    ("w.universal", 2, "universal", "universal"),
    ("w.universal", 1, "universal_previous", "universal"),
    ("w._linear", 9, "linear", "linear"),
]


@pytest.fixture
def full(world: World) -> World:
    """Every link in place; the version can be told from p(BUY)."""
    world.live(ALL)
    for i, (model, version, _, _) in enumerate(ORDER):
        world.server.models[(model, version)] = outputs((0.1, 0.9 - 0.1 * (i + 1), 0.1 * i + 0.1))
        world.files(model, version, {"AAA": 1})
    world.files("w._linear", 9, {"AAA": 1}, **linear_reference())
    return world


@pytest.mark.parametrize("broken", range(6))
@pytest.mark.parametrize("how", ["not_found", "internal", "nan", "bad_sum", "missing_output"])
def test_chain_with_first_links_broken_answers_by_the_next(full: World, broken: int, how: str) -> None:
    for model, version, _, _ in ORDER[:broken]:
        full.server.models[(model, version)] = {
            "not_found": grpc.StatusCode.NOT_FOUND,
            "internal": grpc.StatusCode.INTERNAL,
            "nan": outputs((0.2, 0.3, 0.5), expected=float("nan")),
            "bad_sum": outputs((0.9, 0.9, 0.9)),
            "missing_output": lambda inputs: {"confidence": np.zeros(len(inputs["window"]), np.float32)},
        }[how]
    with full.predictor() as predictor:
        answer = predictor.predict(["AAA"])[0]
        text = predictor.metrics.text().decode()
    assert answer.status == "success"
    if broken == 0:
        assert answer.fallback is None
        assert (answer.model, answer.model_version, answer.model_kind) == ("w.AAA", 5, "specific")
        return
    link = ORDER[broken][2] if broken < 5 else "linear_local"
    assert answer.fallback is not None
    assert answer.fallback.link == link
    assert len(answer.fallback.reasons) == broken
    assert answer.fallback.reasons[0].startswith("own w.AAA/5:")
    assert answer.model_kind == ("linear" if broken == 5 else ORDER[broken][3])
    assert f'fallback="true",kind="{answer.model_kind}",link="{link}"' in text
    if broken == 5:  # the parameters' softmax by hand: exp(0), exp(0.5), exp(1)
        assert answer.probabilities is not None
        assert pytest.approx(np.e / (1 + np.exp(0.5) + np.e), abs=1e-6) == answer.probabilities.BUY
        assert answer.expected_return == pytest.approx(np.tanh(0.004))
        assert answer.model is None


def test_the_ensemble_answers_for_symbols_without_their_own_model(full: World) -> None:
    full.live({**{k: v for k, v in ALL.items() if k != "w.AAA"}, "w._ensemble": {"stable": 3, "previous": 2}})
    for version in (3, 2):
        full.server.models[("w._ensemble", version)] = outputs((0.1, 0.3, 0.6))
        full.files("w._ensemble", version, {"AAA": 1})
    with full.predictor() as predictor:
        answer = predictor.predict(["AAA"])[0]
        assert (answer.model, answer.model_version, answer.fallback) == ("w._ensemble", 3, None)
        full.server.models[("w._ensemble", 3)] = full.server.models[("w._ensemble", 2)] = (
            grpc.StatusCode.INTERNAL
        )
    with full.predictor() as predictor:
        answer = predictor.predict(["AAA"])[0]
    assert (answer.model, answer.model_kind) == ("w.universal", "universal")
    assert answer.fallback is not None
    assert answer.fallback.reasons[0].startswith("ensemble w._ensemble/3:")


def test_chain_with_server_killed_answers_linear_without_asking_each_link(full: World) -> None:
    full.server.stop()
    with full.predictor() as predictor:
        answers = predictor.predict(["AAA", "BBB"])
        assert predictor.client.breaker.state in ("closed", "open")
    for answer in answers:
        assert answer.fallback is not None
        assert answer.fallback.link == "linear_local"
        assert any(r.startswith("model server: ") for r in answer.fallback.reasons)


def test_chain_with_slow_server_keeps_the_deadline(full: World) -> None:
    full.config = full.config.model_copy(
        update={"serving": full.config.serving.model_copy(update={"deadline_seconds": 0.2})}
    )
    full.server.delay_seconds = 1.0
    with full.predictor() as predictor, predictor.metrics.timed("test"):
        answer = predictor.predict(["AAA"])[0]
    assert answer.fallback is not None
    assert answer.fallback.link == "linear_local"
    assert answer.fallback.reasons == ("model server: DEADLINE_EXCEEDED",)


def test_chain_with_no_linear_numbers_leans_on_rules_that_never_act(full: World) -> None:
    full.server.stop()
    (full.workspace.models / "w._linear" / "9" / "assets.extra" / "reference.npz").unlink()
    (full.workspace.models / "w.universal" / "1" / "assets.extra" / "reference.npz").unlink()
    with full.predictor() as predictor:
        answer = predictor.predict(["AAA"])[0]
    assert answer.fallback is not None
    assert answer.fallback.link == "rules"
    assert answer.model_kind == "rules"
    assert answer.expected_return == 0.0
    assert answer.decision is not None
    assert answer.decision.size == 0
    assert {r.rule for r in answer.decision.refusals} & {"confidence", "no_side"}


def test_chain_with_damaged_reference_goes_on_to_rules(full: World) -> None:
    full.server.stop()
    for path in full.workspace.models.rglob("reference.npz"):
        path.write_bytes(b"not an archive")
    with full.predictor() as predictor:
        answer = predictor.predict(["AAA"])[0]
    assert answer.fallback is not None
    assert answer.fallback.link == "rules"
    assert any("cannot be read" in r for r in answer.fallback.reasons)


@pytest.mark.parametrize("damage", ["cut short", "empty"])
def test_a_damaged_reference_costs_its_own_version_only(full: World, damage: str) -> None:
    whole = full.files("w._linear", 9, {"AAA": 1}, **linear_reference()) / "reference.npz"
    content = whole.read_bytes()
    damaged = full.files("w.AAA", 5, {"AAA": 1}) / "reference.npz"
    damaged.write_bytes(content[: len(content) // 2] if damage == "cut short" else b"")
    with full.predictor() as predictor:
        first, second = predictor.predict(["AAA", "BBB"])
    assert first.fallback is not None
    assert first.fallback.link == "previous"
    assert "reference.npz cannot be read" in first.fallback.reasons[0]
    assert second.fallback is None


def test_damaged_linear_numbers_of_one_symbol_leave_the_others_theirs(full: World) -> None:
    full.live({"w.AAA": {"stable": 5}, "w.universal": {"stable": 2}})
    (full.files("w.AAA", 5, {"AAA": 1}) / "reference.npz").write_bytes(b"")
    full.files("w.universal", 2, {"AAA": 1}, **linear_reference())
    full.server.stop()
    with full.predictor() as predictor:
        answers = predictor.predict(["AAA", "BBB"])
    assert [a.fallback.link for a in answers if a.fallback] == ["linear_local", "linear_local"]


@pytest.mark.parametrize("name", ["expected_return", "expected_volatility"])
def test_numbers_that_no_price_can_have_are_no_answer(full: World, name: str) -> None:
    wild = outputs((0.1, 0.3, 0.6), **{name: np.full(1, 3e38, np.float32)})
    full.server.models[("w.AAA", 5)] = wild
    with full.predictor() as predictor:
        first, second = predictor.predict(["AAA", "BBB"])
    assert first.fallback is not None
    assert f"{name} 3e+38" in first.fallback.reasons[0]
    assert second.fallback is None


def test_chain_with_online_store_down_answers_by_rules_from_bars(full: World) -> None:
    full.store.error = ConnectionError("refused")
    with full.predictor() as predictor:
        answer = predictor.predict(["AAA"])[0]
    assert answer.fallback is not None
    assert answer.fallback.link == "rules"
    assert answer.fallback.reasons == ("online store: ConnectionError",)
    assert answer.feature_timestamp == full.bars["event_timestamp"].max()


def test_chain_with_stale_features_never_serves_them(full: World) -> None:
    newest = full.bars["event_timestamp"].max()
    full.store.put("AAA", newest - timedelta(hours=1), np.zeros((T, F)))
    with full.predictor() as predictor:
        answer = predictor.predict(["AAA"])[0]
    assert full.server.calls == []
    assert answer.fallback is not None
    assert answer.fallback.link == "rules"
    assert "stale features" in answer.fallback.reasons[0]


def test_a_bar_that_comes_while_windows_are_read_does_not_make_them_stale(
    full: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another request takes over the bar that has just closed, between this one's look at bars and its check."""
    newest = full.bars["event_timestamp"].max()
    coming = full.bars.filter(pl.col("event_timestamp") == newest).with_columns(
        pl.col("event_timestamp", "created_timestamp") + timedelta(hours=1)
    )
    read = full.store.online

    def read_and_close(symbols: Sequence[str]) -> Any:
        found = read(symbols)
        full.book.update(coming)
        return found

    monkeypatch.setattr(full.store, "online", read_and_close)
    with full.predictor() as predictor:
        answer = predictor.predict(["AAA"])[0]
    assert answer.fallback is None
    assert answer.feature_timestamp == newest


@pytest.mark.timeout(60)
def test_a_clock_set_back_does_not_make_an_answer_wait_for_it(full: World) -> None:
    newest = full.bars["event_timestamp"].max()
    full.store.put("AAA", newest - timedelta(hours=1), np.zeros((T, F)))
    with clock.fixed(newest - timedelta(hours=3)), full.predictor() as predictor:
        answer = predictor.predict(["AAA"])[0]
    assert answer.fallback is not None
    assert "stale features" in answer.fallback.reasons[0]


def test_predict_with_everything_old_by_the_clock_is_refused(full: World) -> None:
    full.config = full.config.model_copy(
        update={"serving": full.config.serving.model_copy(update={"max_stale_bars": 2.0})}
    )
    newest = full.bars["event_timestamp"].max()
    with clock.fixed(newest + timedelta(hours=1)), full.predictor() as predictor:
        assert predictor.predict(["AAA"])[0].fallback is None
    with clock.fixed(newest + timedelta(hours=3)), full.predictor() as predictor:
        answer = predictor.predict(["AAA"])[0]
    assert answer.status == "refused"
    assert answer.reason.startswith("old data: 3:00:00 old")


def test_predict_with_nan_window_is_refused_and_names_the_columns(full: World) -> None:
    window = np.zeros((T, F))
    window[3, 2] = np.nan
    full.store.put("AAA", full.bars["event_timestamp"].max(), window)
    with full.predictor() as predictor:
        bad, good = predictor.predict(["AAA", "BBB"])
    assert (bad.status, good.status) == ("refused", "success")
    assert "columns [2]" in bad.reason
    assert bad.probabilities is None
    assert bad.action is None


def test_predict_with_wrong_window_shape_is_refused(full: World) -> None:
    full.store.put("AAA", full.bars["event_timestamp"].max(), np.zeros((T - 1, F)))
    with full.predictor() as predictor:
        assert "shape (59, 4)" in predictor.predict(["AAA"])[0].reason


def test_chain_with_model_of_other_features_passes_it_over(full: World) -> None:
    full.store.names = ("f0", "f2", "f1", "f3")  # type: ignore[attr-defined]
    with full.predictor() as predictor:
        answer = predictor.predict(["AAA"])[0]
    assert full.server.calls == []
    assert answer.fallback is not None
    assert "made for other features" in answer.fallback.reasons[0]


def test_predict_with_unknown_symbol_is_refused(full: World) -> None:
    with full.predictor() as predictor:
        answer = predictor.predict(["NOPE"])[0]
    assert answer.status == "refused"
    assert answer.reason == "the symbol has no bars and no features"


def test_predict_with_short_history_says_what_is_needed(full: World) -> None:
    short = make_bars(["NEW"], count=20).with_columns(
        (pl.col("event_timestamp") + timedelta(hours=280)).alias("event_timestamp")
    )
    full.book.update(short)
    with full.predictor() as predictor:
        answer = predictor.predict(["NEW"])[0]
    assert answer.status == "refused"
    assert "20 bars; 60 after" in answer.reason


def test_predict_with_nothing_live_leans_on_rules_and_says_so(world: World) -> None:
    world.live({})
    (world.workspace.models / "models.config").unlink()
    with world.predictor() as predictor:
        answer = predictor.predict(["AAA"])[0]
    assert answer.fallback is not None
    assert answer.fallback.link == "rules"
    assert answer.fallback.reasons[0] == "no model is live"


def test_predict_with_damaged_live_table_keeps_the_last_known_one_out(world: World) -> None:
    from barcast.errors import ServingError

    (world.workspace.models / "models.config").write_text("model_config_list { nonsense")
    with world.predictor() as predictor, pytest.raises(ServingError, match=r"models\.config cannot be read"):
        predictor.predict(["AAA"])


def test_breaker_with_dead_server_stops_asking_then_tries_again(full: World) -> None:
    from barcast.serving.breaker import Breaker

    seconds = [0.0]
    breaker = Breaker(2, 5.0, timer=lambda: seconds[0])
    for _ in range(2):
        assert breaker.allow()
        breaker.failure()
    assert breaker.state == "open"
    assert not breaker.allow()
    seconds[0] = 6.0
    assert breaker.allow()  # one trial
    assert not breaker.allow()  # not a second at the same time
    breaker.failure()
    assert breaker.state == "open"
    seconds[0] = 12.0
    assert breaker.allow()
    assert breaker.state == "half-open"
    seconds[0] = 18.0  # that trial was cancelled and says nothing
    assert breaker.allow()
    breaker.success()
    assert breaker.state == "closed"


def test_client_with_unavailable_once_is_repeated(full: World) -> None:
    full.server.unavailable_times = 1
    with full.predictor() as predictor:
        answer = predictor.predict(["AAA"])[0]
    assert answer.fallback is None
    assert len(full.server.calls) == 2


def test_client_with_internal_error_is_not_repeated(full: World) -> None:
    full.server.models[("w.AAA", 5)] = grpc.StatusCode.INTERNAL
    with full.predictor() as predictor:
        predictor.predict(["AAA"])
    assert [c[:2] for c in full.server.calls] == [("w.AAA", 5), ("w.AAA", 4)]
