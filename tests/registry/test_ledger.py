"""The ledger's chain: what is appended can be read; what is changed is noticed."""

from __future__ import annotations

import json
import multiprocessing
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from barcast import clock
from barcast.errors import RegistryError
from barcast.registry import Ledger


@pytest.fixture
def ledger(tmp_path: Path) -> Ledger:
    ledger = Ledger(tmp_path / "ledger.jsonl")
    for number in range(1, 6):
        ledger.append(
            "registered", model="daily.AAPL", version=number, by="pipeline", details={"digest": "x"}
        )
    return ledger


def test_append_then_read_gives_the_chain(ledger: Ledger) -> None:
    entries = ledger.read()
    assert [e.number for e in entries] == [1, 2, 3, 4, 5]
    assert [e.previous for e in entries[1:]] == [e.digest for e in entries[:-1]]


def test_append_takes_the_time_from_the_clock(tmp_path: Path) -> None:
    with clock.fixed(datetime(2024, 5, 6, 7, tzinfo=UTC)):
        Ledger(tmp_path / "l").append("x", model="m", by="ana")
    assert Ledger(tmp_path / "l").read()[0].time == datetime(2024, 5, 6, 7, tzinfo=UTC)


def edit_reason(lines: list[bytes]) -> list[bytes]:
    raw = json.loads(lines[2])
    raw["by"] = "somebody else"
    return [*lines[:2], json.dumps(raw, sort_keys=True).encode(), *lines[3:]]


@pytest.mark.parametrize(
    ("tamper", "said"),
    [
        (edit_reason, "line 3: its content does not match its own hash"),
        (lambda lines: [*lines[:2], *lines[3:]], "does not follow line 2"),
        (lambda lines: [*lines[:2], lines[3], lines[2], lines[4]], "does not follow"),
        (lambda lines: [*lines[:3], lines[2], *lines[3:]], "does not follow"),
        (lambda lines: lines[:-1], "its end was cut off"),
        (lambda lines: [b"not json", *lines[1:]], "cannot be read"),
        (lambda lines: [], "its end was cut off"),
    ],
)
def test_tampering_is_detected(
    ledger: Ledger, tamper: Callable[[list[bytes]], list[bytes]], said: str
) -> None:
    lines = ledger.path.read_bytes().splitlines()
    ledger.path.write_bytes(b"".join(line + b"\n" for line in tamper(lines)))
    with pytest.raises(RegistryError, match=said):
        ledger.read()


def test_removed_or_changed_head_is_detected(ledger: Ledger) -> None:
    head = ledger.head_path.read_text()
    ledger.head_path.unlink()
    with pytest.raises(RegistryError, match="is missing"):
        ledger.read()
    ledger.head_path.write_text(head.replace("5", "4", 1))
    with pytest.raises(RegistryError, match="does not match line 4"):
        ledger.read()
    ledger.head_path.write_text("garbage")
    with pytest.raises(RegistryError, match="does not match"):
        ledger.read()


@given(data=st.data())
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_changed_byte_is_detected(ledger: Ledger, data: st.DataObject) -> None:
    content = ledger.path.read_bytes()
    place = data.draw(
        st.integers(0, len(content) - 2)
    )  # the last newline alone is a torn line, not tampering
    new = data.draw(st.integers(0, 255).filter(lambda b: b != content[place]))
    ledger.path.write_bytes(content[:place] + bytes([new]) + content[place + 1 :])
    _, findings = ledger.inspect()
    ledger.path.write_bytes(content)
    assert findings


def test_torn_last_line_is_cut_and_the_chain_goes_on(ledger: Ledger) -> None:
    with ledger.path.open("ab") as handle:
        handle.write(b'{"action": "promo')  # its writer died here
    assert len(ledger.read()) == 5
    ledger.append("rejected", model="daily.AAPL", version=5, by="ana")
    assert [e.number for e in ledger.read()] == [1, 2, 3, 4, 5, 6]


def test_append_after_an_unreadable_last_line_is_refused(ledger: Ledger) -> None:
    with ledger.path.open("ab") as handle:
        handle.write(b"garbage\n")
    with pytest.raises(RegistryError, match="cannot be read"):
        ledger.append("rejected", model="daily.AAPL", by="ana")


def test_long_lines_are_read_back_whole(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "l")
    for _ in range(3):
        ledger.append("judged", model="m", by="gate", reason="x" * 200_000)
    assert len(ledger.read()) == 3


def _write(path: Path) -> None:
    for _ in range(20):
        Ledger(path).append("judged", model="m", by="gate")


def test_writers_of_several_processes_keep_one_chain(tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    writers = [context.Process(target=_write, args=(tmp_path / "l",)) for _ in range(4)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    assert [e.number for e in Ledger(tmp_path / "l").read()] == list(range(1, 81))


def test_a_reader_beside_a_writer_sees_no_tampering(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "l")
    for _ in range(100):
        ledger.append("judged", model="m", by="gate")
    writer = multiprocessing.get_context("fork").Process(target=_write_on, args=(tmp_path / "l",))
    writer.start()
    try:
        seen = [len(ledger.read()) for _ in range(40)]
    finally:
        writer.terminate()
        writer.join()
    assert seen == sorted(seen)
    assert seen[-1] > 101  # it wrote meanwhile


def _write_on(path: Path) -> None:
    while True:
        Ledger(path).append("judged", model="m", by="gate")
