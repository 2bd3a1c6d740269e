"""Numbers in sentences."""

from __future__ import annotations

from barcast.wording import count, state_of_run


def test_one_is_singular_and_many_have_commas() -> None:
    assert [count(number, "bar") for number in (0, 1, 2, 12154)] == [
        "0 bars",
        "1 bar",
        "2 bars",
        "12,154 bars",
    ]
    assert count(1, "outcome of a day", "outcomes of a day") == "1 outcome of a day"
    assert count(3, "outcome of a day", "outcomes of a day") == "3 outcomes of a day"


def test_a_cancelled_run_is_spelt_in_one_way_whoever_names_its_state() -> None:
    assert [state_of_run(s) for s in ("SUCCEEDED", "CANCELED", "CANCELLED")] == [
        "succeeded",
        "cancelled",
        "cancelled",
    ]
