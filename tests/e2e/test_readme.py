"""The README's three commands, as they stand there: a folder of CSV files to served predictions."""

from __future__ import annotations

import json
import os
import re
import socket
import subprocess
import sys
import time
from datetime import timedelta
from pathlib import Path

import pytest

from barcast.bars.sources.simulator import simulate

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]
README = Path(__file__).parents[2] / "README.md"


def three_commands() -> list[str]:
    section = README.read_text().partition("## Your own bars: three commands")[2]
    block = re.search(r"```sh\n(.*?)```", section, re.S)
    assert block is not None
    return [line.partition("#")[0].strip() for line in block[1].strip().splitlines()]


def test_three_commands_lead_from_own_files_to_served_predictions(tmp_path: Path) -> None:
    folder = tmp_path / "path" / "to" / "bars"
    folder.mkdir(parents=True)
    for (symbol,), bars in simulate(2, 1500, "1h", seed=3).group_by("symbol"):
        opened = bars.with_columns(timestamp=bars["event_timestamp"] - timedelta(hours=1))
        opened.select("timestamp", "open", "high", "low", "close", "volume").write_csv(
            folder / f"{symbol}.csv"
        )
    (tmp_path / ".venv" / "bin").mkdir(parents=True)
    (tmp_path / ".venv" / "bin" / "barcast").symlink_to(Path(sys.executable).with_name("barcast"))
    environment = {k: v for k, v in os.environ.items() if not k.startswith("BARCAST_")}
    run, serve, predict = three_commands()
    with socket.socket() as taken:
        if taken.connect_ex(("127.0.0.1", 8500)) == 0:
            pytest.skip("port 8500, the default of `barcast serve`, is in use here")

    done = subprocess.run(run.split(), cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    server = subprocess.Popen(serve.split(), cwd=tmp_path, env=environment)
    try:
        until = time.monotonic() + 120
        while True:
            answered = subprocess.run(
                [*predict.split(), "--json"], cwd=tmp_path, env=environment, capture_output=True, text=True
            )
            assert answered.returncode == 0, answered.stderr
            answers = json.loads(answered.stdout)
            if all(answer["status"] == "success" and answer["fallback"] is None for answer in answers):
                break
            assert server.poll() is None
            assert time.monotonic() < until, answers
        assert [answer["symbol"] for answer in answers] == ["SIM0000", "SIM0001"]
        assert all(answer["model_version"] == 1 for answer in answers)
    finally:
        server.terminate()
        server.wait(30)
