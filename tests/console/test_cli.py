"""`barcast console` as it is started: what it refuses, and that it answers."""

from __future__ import annotations

import os
import re
import socket
import subprocess
import sys
from pathlib import Path

import httpx
import pytest

from barcast.cli.console import console
from barcast.errors import ConfigError
from barcast.registry import Registry


@pytest.fixture
def root(scene: Registry, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("BARCAST_ROOT", str(scene.workspace.base))
    return scene.workspace.base


def test_address_open_to_others_needs_name_and_persons(root: Path) -> None:
    with pytest.raises(ConfigError, match="open to others"):
        console(host="0.0.0.0")
    with pytest.raises(ConfigError, match="open to others"):
        console(host="0.0.0.0", name=["console.example"])  # nobody has a token of their own


def test_busy_port_is_a_clear_error(root: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        with pytest.raises(ConfigError, match="cannot listen on"):
            console(port=taken.getsockname()[1])


def test_person_gets_a_token_that_is_not_kept(
    root: Path, scene: Registry, capsys: pytest.CaptureFixture[str]
) -> None:
    console(add_person="Ana Alba")
    token = capsys.readouterr().out.strip().rpartition(" ")[2]
    kept = (scene.workspace.state / "console_persons.json").read_text()
    assert "Ana Alba" in kept
    assert token not in kept
    console(add_person="Ana Alba")
    assert "the one before no longer works" in capsys.readouterr().out


def test_started_console_lets_its_token_in(root: Path) -> None:
    command = [sys.executable, "-c", "from barcast.cli import main; main()", "console", "--port", "0"]
    environment = {**os.environ, "BARCAST_ROOT": str(root)}
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as process:
        try:
            assert process.stdout is not None
            printed = "".join(process.stdout.readline() for _ in range(2))
            url = re.search(r"http://\S+", printed)
            token = re.search(r"Token: (\S+)", printed)
            assert url is not None
            assert token is not None
            with httpx.Client(base_url=url[0], follow_redirects=True, timeout=60) as client:
                page = client.post("/login", data={"token": token[1], "name": "ana"})
            assert "1 decision waits for you" in page.text
        finally:
            process.terminate()
