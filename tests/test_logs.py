"""Log lines beside a command's own output."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from barcast import logs


@pytest.fixture(autouse=True)
def _as_it_was() -> Iterator[None]:
    yield
    logs.configure()


@pytest.mark.parametrize(("level", "heard"), [("warning", False), ("info", True)])
def test_what_the_command_says_itself_is_left_out_unless_more_is_asked_for(
    level: str, heard: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    logs.configure(level)
    log = logs.get("x").bind(symbol="AAPL")
    with logs.without("model server absent"):
        log.warning("model server absent", code=3)
        log.warning("prediction log failed")
    said = capsys.readouterr().err
    assert ("model server absent" in said) is heard
    assert "prediction log failed" in said
    log.warning("model server absent")
    assert "model server absent" in capsys.readouterr().err
