"""Two predictors in one process count apart, also after Feast was imported."""

from __future__ import annotations

import pytest


@pytest.mark.filterwarnings("ignore")  # Feast's imports warn of their own ways
def test_two_registries_do_not_add_up() -> None:
    import feast.metrics  # noqa: F401

    from barcast.serving.metrics import Metrics

    first, second = Metrics(), Metrics()
    labels = {"link": "universal", "kind": "universal", "fallback": "false"}
    for _ in range(3):
        first.count("answer", labels)
    second.count("answer", labels)
    assert second.registry.get_sample_value("barcast_answers_total", labels) == 1.0
