"""The first linear baseline goes live although it is weak, but never when it is broken or suspicious."""

from __future__ import annotations

import pytest

from barcast.evaluation.gate import Check, Verdict
from barcast.steps.govern import baseline_floor


def verdict(outcome: str, *checks: Check) -> Verdict:
    return Verdict(outcome, ("why",), {}, checks, True, None, 0.0, "_linear", None)  # type: ignore[arg-type]


LOADED = Check("infrastructure", True, "answered")
WEAK = Check("calibration", False, "0.06, limit 0.05", "keep")


def test_weak_baseline_is_promoted_and_its_weakness_said() -> None:
    found = baseline_floor(verdict("keep", LOADED, WEAK))
    assert found.outcome == "promote"
    assert any("calibration: 0.06" in reason for reason in found.reasons)


@pytest.mark.parametrize(
    "broken",
    [
        Check("infrastructure", False, "no answer", "keep"),
        Check("leak alarm, accuracy", False, "0.7", "hold"),
    ],
)
def test_broken_or_suspicious_baseline_stays_out(broken: Check) -> None:
    given = verdict("hold", broken, WEAK)
    assert baseline_floor(given) is given


def test_baseline_that_could_not_be_judged_stays_out() -> None:
    given = verdict("keep")
    assert baseline_floor(given) is given


def test_good_baseline_is_left_as_it_is() -> None:
    given = verdict("promote", LOADED)
    assert baseline_floor(given) is given
