"""`barcast feedback report`: the ways in which trades may be written."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from barcast.cli.feedback import app
from barcast.errors import DataError

TRADE = {
    "symbol": "AAPL", "action": "BUY", "entry_price": 100, "exit_price": 103, "size": 0.1,
    "opened_at": "2024-01-10T10:00:00Z", "closed_at": "2024-01-10T12:30:00Z",
}  # fmt: skip
ONE, TWO = {"trade_id": "t-1", **TRADE}, {"trade_id": "t-2", **TRADE}
BROKEN_OVER_LINES = json.dumps(ONE, indent=1).replace("{\n ", "{", 1)  # as in a shell's quotes


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BARCAST_ROOT", str(tmp_path))
    monkeypatch.delenv("BARCAST_CONFIG", raising=False)


@pytest.mark.parametrize(
    ("text", "ids"),
    [
        (json.dumps(ONE), ["t-1"]),
        (BROKEN_OVER_LINES, ["t-1"]),
        (json.dumps([ONE, TWO], indent=2), ["t-1", "t-2"]),
        (f"{json.dumps(ONE)}\n\n{json.dumps(TWO)}\n", ["t-1", "t-2"]),
        (f"{json.dumps(ONE, indent=2)}\n{BROKEN_OVER_LINES.replace('t-1', 't-2')}", ["t-1", "t-2"]),
        ("[]", []),
    ],
)
def test_trades_are_read_however_they_lie_on_lines(text: str, ids: list[str]) -> None:
    done = CliRunner().invoke(app, ["report", "-", "--json"], input=text)
    assert done.exit_code == 0, done.exception
    assert [(row["trade_id"], row["accepted"]) for row in json.loads(done.stdout)] == [(i, True) for i in ids]


@pytest.mark.parametrize(
    ("text", "message"),
    [("", "line 1"), (f"{json.dumps(ONE)}\n{{no", "line 2 column 2"), (f"[{json.dumps(ONE)}", "column")],
)
def test_what_is_no_json_is_refused_with_its_place(text: str, message: str) -> None:
    done = CliRunner().invoke(app, ["report", "-"], input=text)
    assert isinstance(done.exception, DataError)
    assert "is not JSON" in done.exception.message
    assert message in done.exception.message


def test_tensorflow_says_nothing_of_its_own_when_the_shadow_is_taken_up(tmp_path: Path) -> None:
    code = """
import sys
from pathlib import Path
from barcast.config import load
from barcast.errors import ServingError
from barcast.serving.learn import export_shadow

config = load(root=Path(sys.argv[1]))
try:
    export_shadow(config.open_workspace(), config, Path(sys.argv[1]) / "out")
except ServingError as error:
    print(error.message)
import tensorflow
print(float(tensorflow.constant(1.0)))
"""
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == ["There is no shadow yet.", "1.0"]
    assert done.stderr == ""
