"""The baseline computed in this process answers as the exported one does, calibration included."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from barcast.config.models import ModelConfig
from barcast.errors import ServingError
from barcast.labels import Thresholds
from barcast.models.calibration import Calibration
from barcast.models.linear import LinearFit
from barcast.models.presets import architecture
from barcast.serving import local_models
from barcast.serving.live import VersionFiles
from barcast.training import ModelInfo, TrainedModel, common
from barcast.training.trained import make_network

F, T = 6, 4
FITTED = Calibration(temperature=1.7, confidence_slope=0.6, confidence_head=0.0, confidence_bias=-0.2)


@pytest.fixture
def baseline(tmp_path: Path) -> tuple[TrainedModel, VersionFiles]:
    """A baseline over five of six features with random coefficients, as a version directory holds it."""
    rng = np.random.default_rng(3)
    selected = (0, 1, 3, 4, 5)
    shape = architecture(ModelConfig(), num_features=F, lookback_bars=T, selected=selected)
    network = make_network("linear", shape, 1)
    mean, scale = rng.normal(size=F), rng.uniform(0.5, 2, size=F)
    network.normalise.adapt(mean[list(selected)], scale[list(selected)])

    def random(*size: int) -> np.ndarray:
        return rng.normal(0, 0.3, size)

    n = len(selected)
    fit = LinearFit(
        (random(3, n), random(3)), (random(3, n), random(3)), (random(3, n), random(3)),
        (random(n) / 100, 0.001), (random(n) / 100, -4.0), (random(n), 0.5), 10.0,
    )  # fmt: skip
    network.load_fit(fit)
    for name, value in vars(FITTED).items():
        getattr(network.statistics, name).assign(value)
    facts = {"calibration": {**vars(FITTED), "calibration_rows": 500.0}}
    names = tuple(f"f{i}" for i in range(F))
    info = ModelInfo("linear", None, names, ("A",), T, 5, Thresholds(-0.5, 0.5), 1, "2024-01-01", facts=facts)
    reference = {"mean": mean, "scale": scale, **common.fallback_arrays(fit, selected, F)}
    model = TrainedModel(network, info, reference)
    folder = tmp_path / "w._linear" / "1"
    model.save(folder / "assets.extra")
    return model, VersionFiles(folder)


def test_local_baseline_answers_as_the_model_it_stands_for(
    baseline: tuple[TrainedModel, VersionFiles],
) -> None:
    model, files = baseline
    windows = np.random.default_rng(4).normal(0, 2, (32, T, F)).astype(np.float32)
    assert vars(files.baseline_calibration) == pytest.approx(vars(FITTED))
    found = local_models.linear(windows, files.reference, 0.02, files.baseline_calibration)
    served = model.network.answer(windows, np.zeros(32, np.int32))
    for name in ("probabilities", "confidence", "expected_return", "expected_volatility", "entropy"):
        np.testing.assert_allclose(found[name], np.asarray(served[name]), rtol=2e-5, atol=2e-6, err_msg=name)
    silent = {name: values for name, values in files.reference.items() if "volatility" not in name}
    found = local_models.linear(windows, silent, 0.02, files.baseline_calibration)
    assert np.all(found["expected_volatility"] == 0.02)


def test_version_without_a_description_is_not_calibrated_and_a_damaged_one_is_named(
    baseline: tuple[TrainedModel, VersionFiles],
) -> None:
    extra = baseline[1].extra
    (extra / "model.json").write_text("{")
    with pytest.raises(ServingError, match=r"model\.json cannot be read"):
        _ = VersionFiles(extra.parent).baseline_calibration
    (extra / "model.json").unlink()
    assert VersionFiles(extra.parent).baseline_calibration == Calibration()
