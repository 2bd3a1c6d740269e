"""Continual learning, parents, ladder, parallel training: each does what its name says."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from barcast.errors import DataError, ModelError
from barcast.splits import Fold
from barcast.training import TrainedModel, continual, symbols


@pytest.fixture(scope="module")
def new_fold(fold: Fold) -> Fold:
    """The test span as new bars: its first part to learn, the rest to validate and calibrate."""
    learn = len(fold.test) // 2
    rest = (len(fold.test) - learn) // 2
    return Fold(
        0, fold.test[:learn], fold.test[learn : learn + rest], fold.test[learn + rest :], fold.test[-5:]
    )


@pytest.mark.parametrize("method", ["replay", pytest.param("plain", marks=pytest.mark.slow)])
def test_update_learns_on_and_leaves_the_old_model_alone(
    method: str, universal: Any, dataset: Any, fold: Any, new_fold: Fold, small: Any, tmp_path: Path
) -> None:
    before = [np.asarray(w) for w in universal.network.weights]
    after = continual.update(
        universal, dataset, new_fold, small, tmp_path, old_rows=fold.train, method=method, epochs=2
    )
    for a, b in zip(before, universal.network.weights, strict=True):
        np.testing.assert_array_equal(a, np.asarray(b))
    assert after.info.facts["continual"] == method
    assert after.info.thresholds == universal.info.thresholds
    assert np.isfinite(after.answers(dataset, fold.test[:5])["probabilities"]).all()


def test_recalibration_changes_only_how_sure_the_model_is(
    universal: Any, dataset: Any, fold: Any, small: Any
) -> None:
    doubled = continual.copy_of(universal, small.seed)
    doubled.statistics.temperature.assign(0.4)  # far too sure
    wrong = replace(universal, network=doubled, _answer=None)
    again = continual.recalibrate(wrong, dataset, fold, small)
    assert float(np.asarray(doubled.statistics.temperature)) == pytest.approx(0.4)
    truth = dataset.classes(universal.info.thresholds)[fold.calibration]

    def loss(model: Any) -> float:
        p = model.answers(dataset, fold.calibration)["probabilities"]
        return float(-np.log(p[np.arange(len(truth)), truth]).mean())

    assert loss(again) < loss(wrong)
    some = fold.test[:4]
    before, after = (
        np.asarray(m.network(dataset.windows(some), dataset.symbol_id[some])["logits"])
        for m in (universal, again)
    )
    np.testing.assert_array_equal(before, after)
    assert again.info.facts["recalibrated_from"] == universal.info.cutoff


def test_recalibration_on_too_few_rows_is_refused(
    universal: Any, dataset: Any, fold: Any, small: Any
) -> None:
    with pytest.raises(ModelError, match="too few to calibrate"):
        continual.recalibrate(universal, dataset, replace(fold, calibration=fold.calibration[:5]), small)


def test_rows_since_the_training_are_told_from_those_it_learned(
    universal: Any, dataset: Any, fold: Any
) -> None:
    nothing, old = continual.since(universal, dataset, fold)
    assert len(nothing.train) == 0
    np.testing.assert_array_equal(old, fold.train)
    later = replace(fold, train=np.concatenate([fold.train, fold.validation]))
    new, old = continual.since(universal, dataset, later)
    np.testing.assert_array_equal(new.train, fold.validation)
    np.testing.assert_array_equal(old, fold.train)


def test_replay_rows_mix_the_configured_share() -> None:
    rows = continual.replay_rows(np.arange(100), np.arange(1000, 2000), 0.25)(0, np.random.default_rng(0))
    assert (rows < 100).sum() == 100
    assert (rows >= 1000).sum() == 33


def test_progressive_column_starts_from_the_old_answer_and_freezes_it(
    universal: Any, dataset: Any, fold: Any
) -> None:
    network = continual.progressive(universal, seed=3)
    window, ids = dataset.windows(fold.test[:6]), universal.symbol_ids(dataset)[fold.test[:6]]
    old, new = (n(window, ids)["logits"] for n in (universal.network, network))
    np.testing.assert_allclose(np.asarray(old), np.asarray(new), atol=1e-5)
    assert not any(layer.trainable for layer in network.recurrent)
    assert all(layer.trainable for layer in network.columns)


def test_ewc_penalty_is_zero_at_the_old_weights_and_grows_with_importance(universal: Any) -> None:
    network = universal.network
    importance = [np.ones(v.shape, np.float32) for v in network.trainable_variables]
    term = continual.ewc_term(network, importance, 10.0)
    assert float(term()) == 0.0
    variable = network.logits.kernel
    kept = np.asarray(variable)
    count = sum(np.prod(v.shape) for v in network.trainable_variables)
    try:
        variable.assign(kept + 0.1)
        assert float(term()) == pytest.approx(0.5 * 10.0 * 0.01 * kept.size / count, rel=1e-3)
    finally:
        variable.assign(kept)


def test_fisher_is_positive_where_the_answer_depends(
    universal: Any, dataset: Any, fold: Any, small: Any
) -> None:
    from barcast.training import targets

    made = targets.make(dataset, fold.train, universal.info.thresholds, small.training, small.labels)
    found = continual.fisher(universal.network, dataset, fold.train, made, most=32)
    by_name = dict(zip([v.path for v in universal.network.trainable_variables], found, strict=True))
    logits = next(v for k, v in by_name.items() if k.endswith("logits/kernel"))
    size = next(v for k, v in by_name.items() if k.endswith("position_size/kernel"))
    assert logits.mean() > 0
    assert size.max() == 0


@pytest.mark.slow
@pytest.mark.parametrize("method", ["ewc", "distillation", "progressive"])
def test_other_methods_train(
    method: str, universal: Any, dataset: Any, fold: Any, new_fold: Fold, small: Any, tmp_path: Path
) -> None:
    after = continual.update(
        universal, dataset, new_fold, small, tmp_path, old_rows=fold.train, method=method, epochs=1
    )
    path = after.export(tmp_path / "1")
    assert (path / "saved_model.pb").is_file()


def test_update_refuses_what_it_cannot_do(
    universal: Any, linear: Any, dataset: Any, new_fold: Fold, small: Any
) -> None:
    with pytest.raises(ModelError, match="not known"):
        continual.update(universal, dataset, new_fold, small, method="magic")
    with pytest.raises(DataError, match="learned before"):
        continual.update(universal, dataset, new_fold, small, method="replay")
    with pytest.raises(ModelError, match="linear"):
        continual.update(linear, dataset, new_fold, small, method="plain")


def test_most_correlated_finds_the_twin(tools: Any) -> None:
    import polars as pl

    market = tools.bars()
    twin = market.filter(pl.col("symbol") == "S1").with_columns(pl.lit("TWIN").alias("symbol"))
    both = tools.dataset(pl.concat([market, twin]))
    every = Fold(0, np.arange(len(both)), *[np.arange(1)] * 3)
    found = symbols.most_correlated(both, every, "TWIN", ["S0", "S1", "S2"])
    assert found is not None
    assert found[0] == "S1"
    assert found[1] == pytest.approx(1.0)


def test_priorities_put_money_and_movement_first(market: Any) -> None:
    import polars as pl

    wild = pl.col("symbol") == "S2"
    busy = market.with_columns(
        pl.when(wild).then(pl.col("volume") * 1000).otherwise("volume").alias("volume"),
        pl.when(wild).then(pl.col("close") ** 2).otherwise("close").alias("close"),
    )
    assert symbols.priorities(busy)[0] == "S2"
    assert sorted(symbols.priorities(market)) == ["S0", "S1", "S2"]


def test_ladder_reports_every_symbol_on_the_same_rows(
    universal: Any, linear: Any, dataset: Any, fold: Any
) -> None:
    import polars as pl

    thresholds = universal.info.thresholds
    base, simple = (
        m.predictions(dataset, fold.test, thresholds=thresholds).filter(pl.col("label").is_not_null())
        for m in (universal, linear)
    )
    right = pl.col("symbol") == "S0"
    sure = [
        pl.when(pl.col("label") == i).then(0.9).otherwise(0.05).alias(c)
        for i, c in enumerate(("p_sell", "p_hold", "p_buy"))
    ]
    found = symbols.ladder(
        {
            "linear": simple,
            "universal": base,
            "own": base.filter(right).with_columns(sure),
            "champion": base.filter(pl.col("symbol") == "S1"),
        }
    )
    assert found["symbol"].to_list() == ["S0", "S1", "S2"]
    assert found["rows"].sum() == base.height
    first = found.row(0, named=True)
    assert first["own_log_loss"] == pytest.approx(-np.log(0.9))
    assert first["own_accuracy"] == 1
    assert first["best"] == "own"
    # A champion that is only as good as the universal model does not pass it.
    assert found["best"][1] != "champion"
    assert found["own_log_loss"].null_count() == 2


@pytest.mark.slow
def test_each_symbol_keeps_the_better_parent_and_one_failure_stops_nothing(
    universal: Any, dataset: Any, fold: Any, small: Any, tmp_path: Path
) -> None:
    universal.save(tmp_path / "universal")
    training = small.training.model_copy(
        update={"transfer_mode": "full", "transfer_epochs": 1, "transfer_from": "best"}
    )
    found = symbols.train_symbols(
        tmp_path / "universal",
        dataset,
        ["S0", "MISSING", "S1"],
        fold,
        replace(small, training=training),
        tmp_path / "own",
        export_dir=tmp_path / "models",
        workers=1,
    )
    assert [o.symbol for o in found] == ["S0", "MISSING", "S1"]
    assert [o.folder is not None for o in found] == [True, False, True]
    assert "training rows" in found[1].error
    first = found[0]
    assert set(first.rungs) == {"universal", "from universal", "from S1"}
    better = min(("from universal", "from S1"), key=lambda name: first.rungs[name])
    assert first.folder is not None
    assert first.folder.name == better.replace(" ", "-")
    served = TrainedModel.load(tmp_path / "models" / "S0")
    assert served.info.facts["rungs"] == dict(first.rungs)
    assert served.info.facts["parent_symbol"] == (None if better == "from universal" else "S1")
    assert (tmp_path / "models" / "S1" / "saved_model.pb").is_file()
    assert not (tmp_path / "models" / "MISSING").exists()


def test_with_the_universal_parent_alone_a_fit_exports_its_own_model(
    universal: Any, dataset: Any, fold: Any, small: Any, tmp_path: Path
) -> None:
    universal.save(tmp_path / "universal")
    training = small.training.model_copy(update={"transfer_mode": "full", "transfer_epochs": 1})
    (found, missing) = symbols.train_symbols(
        tmp_path / "universal",
        dataset,
        ["S0", "MISSING"],
        fold,
        replace(small, training=training),
        tmp_path / "own",
        export_dir=tmp_path / "models",
        workers=1,
    )
    assert found.folder is not None
    assert missing.folder is None
    assert [f.name for f in (tmp_path / "models").iterdir()] == ["S0"]
    served = TrainedModel.load(tmp_path / "models" / "S0")
    assert set(found.rungs) == {"universal", "from universal"}
    assert served.info.facts["rungs"] == dict(found.rungs)
    kept = TrainedModel.load(found.folder).answers(dataset, fold.test[:5])
    np.testing.assert_array_equal(
        served.answers(dataset, fold.test[:5])["probabilities"], kept["probabilities"]
    )


def test_hidden_markov_regimes_are_filtered_and_named() -> None:
    from barcast.models import hidden_markov

    rng = np.random.default_rng(2)
    drift = np.repeat([0.004, -0.004, 0.0] * 6, 60)
    close = 100 * np.exp(np.cumsum(drift + rng.normal(size=len(drift)) * 0.004))
    states = hidden_markov.fit(close[:720])
    full = hidden_markov.filtered(states, close)
    np.testing.assert_allclose(full.sum(axis=1), 1)
    # Known at t: later bars change nothing.
    np.testing.assert_array_equal(hidden_markov.filtered(states, close[:800]), full[:800])
    late = np.arange(720, len(close))
    up, down = late[(drift[late] > 0)], late[(drift[late] < 0)]
    assert full[up, 0].mean() > full[down, 0].mean() + 0.3
    with pytest.raises(DataError, match="three regimes"):
        hidden_markov.fit(close[:50])
