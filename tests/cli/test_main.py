"""The command itself: help is quick and whole, errors are a message and an exit code."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from barcast.cli import COMMANDS
from barcast.cli._options import current, remember
from barcast.config import load


def barcast(*arguments: str, root: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", "from barcast.cli import main; main()", *arguments],
        env={**os.environ, "BARCAST_ROOT": str(root), **environment},
        capture_output=True,
        text=True,
        timeout=120,
    )


def test_help_names_every_command(tmp_path: Path) -> None:
    done = barcast("--help", root=tmp_path)
    assert done.returncode == 0
    assert all(f"  {name} " in done.stdout for name in COMMANDS)


def test_help_imports_nothing_heavy(tmp_path: Path) -> None:
    heavy = "('tensorflow','feast','mlflow','kfp','great_expectations','polars')"
    code = (
        "import sys\nfrom barcast.cli import main\nsys.argv=['barcast','--help']\n"
        f"try: main()\nexcept SystemExit: pass\nassert not [m for m in {heavy} if m in sys.modules]"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_help(name: str, tmp_path: Path) -> None:
    from typer.main import get_command

    from barcast.cli import app

    group = get_command(app)
    command = group.get_command(None, name)  # type: ignore[attr-defined]
    assert command is not None
    assert command.help or getattr(command, "commands", None)


@pytest.mark.parametrize("name", COMMANDS)
def test_no_help_lists_options_of_shell_completion(name: str) -> None:
    from typer.main import get_command

    from barcast.cli import app

    command = get_command(app).get_command(None, name)  # type: ignore[attr-defined]
    asked = [get_command(app), command, *getattr(command, "commands", {}).values()]
    names = {option for one in asked for parameter in one.params for option in parameter.opts}
    assert not [option for option in names if "completion" in option]


def test_unknown_command_suggests_the_nearest(tmp_path: Path) -> None:
    done = barcast("predikt", root=tmp_path)
    assert done.returncode == 2
    assert "Did you mean 'predict'?" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("option", [[], ["--config"], ["-c"]])
def test_unknown_key_in_a_configuration_leaves_with_its_code(option: list[str], tmp_path: Path) -> None:
    (tmp_path / "c.yaml").write_text("horizons: 3\n")
    done = barcast("run", *option, str(tmp_path / "c.yaml"), root=tmp_path / "state")
    assert done.returncode == 2
    assert "horizons: unknown key" in done.stderr
    assert not (tmp_path / "state").exists()


def test_run_takes_one_configuration_file(tmp_path: Path) -> None:
    done = barcast("run", "one.yaml", "--config", "two.yaml", root=tmp_path / "state")
    assert done.returncode == 2
    assert "Two configuration files are named: one.yaml and --config two.yaml." in done.stderr


def test_serve_with_nothing_live_says_what_to_do(tmp_path: Path) -> None:
    done = barcast("serve", root=tmp_path)
    assert done.returncode == 7
    assert "barcast run" in done.stderr


def test_serve_opens_the_page_that_the_configuration_asks_for(tmp_path: Path) -> None:
    with socket.socket() as taken:  # a taken port is named before anything is loaded
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        path = tmp_path / "c.yaml"
        path.write_text(
            f"workspace: w\nserving: {{endpoint: '127.0.0.1:0'}}\nmodel_server: {{rest_api_port: {port}}}\n"
        )
        models = tmp_path / "w" / "models"
        models.mkdir(parents=True)
        (models / "models.config").write_text("model_config_list {}")
        done = barcast("serve", "--config", str(path), root=tmp_path)
    assert f"Port {port} (--rest_api_port)" in done.stderr


def test_predict_where_nothing_has_run_says_so_once(tmp_path: Path) -> None:
    done = barcast("predict", "AAPL", root=tmp_path / "state")
    assert done.returncode == 7
    assert done.stdout == ""
    assert done.stderr.count("no bars") == 1
    assert "`barcast run`" in done.stderr
    assert "barcast serve" not in done.stderr


def test_train_says_only_what_is_its_own(tmp_path: Path) -> None:
    done = barcast("train", "AAPL", root=tmp_path / "state")
    assert done.returncode != 0
    assert done.stderr.startswith("barcast: There is no live universal model")


def test_own_bars_need_a_name_and_an_interval(tmp_path: Path) -> None:
    done = barcast("run", "--bars", str(tmp_path), root=tmp_path / "state")
    assert done.returncode == 2
    assert "--interval" in done.stderr


def test_a_replay_refuses_to_predict_instead_of_leaving_it_out(tmp_path: Path) -> None:
    done = barcast("bars", "feed", "--replay", "1e9", "--predict", root=tmp_path / "state")
    assert done.returncode == 2
    assert "do not go together" in done.stderr


def test_remembered_configuration_holds_only_what_was_set(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BARCAST_ROOT", str(tmp_path / "state"))
    monkeypatch.delenv("BARCAST_CONFIG", raising=False)
    (tmp_path / "c.yaml").write_text("workspace: mine\nhorizon_bars: 5\ncosts: {fee_bps: 3}\n")
    config = load(tmp_path / "c.yaml", root=tmp_path / "state")
    remember(config)
    kept = yaml.safe_load((tmp_path / "state" / "current.yaml").read_text())
    assert kept == {"workspace": "mine", "horizon_bars": 5, "costs": {"fee_bps": 3.0}}
    assert current(None) == config
    remember(load(None, root=tmp_path / "state"))  # the sample's: nothing set at all
    assert current(None).workspace == "daily"


def test_what_exists_already_is_refused_with_its_code(tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").touch()
    written = ("--bars", str(tmp_path), "--interval", "1d", "--output", str(tmp_path / "mine.yaml"))
    assert barcast("init", "mine", *written, root=tmp_path / "state").returncode == 9
    assert barcast("gateway", "key", "make", "ana", root=tmp_path / "state").returncode == 0
    assert barcast("gateway", "key", "make", "ana", root=tmp_path / "state").returncode == 9


def test_bars_to_predict_that_are_not_there_name_the_option(tmp_path: Path) -> None:
    done = barcast("predict", "--bars", str(tmp_path / "no.csv"), root=tmp_path / "state")
    assert done.returncode == 3
    assert "Give --bars a CSV or Parquet file." in done.stderr


def test_remembering_leaves_alone_what_another_process_is_writing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BARCAST_ROOT", str(tmp_path))
    other = tmp_path / ".current.yaml"
    other.write_text("half of it")
    remember(load(None, root=tmp_path))
    assert other.read_text() == "half of it"


@pytest.mark.parametrize("words", [("split", "AAPL", "2", ""), ("feed", "--replay", "-60")])
def test_values_that_say_nothing_are_refused(tmp_path: Path, words: tuple[str, ...]) -> None:
    done = barcast("bars", *words, root=tmp_path)
    assert done.returncode == 2
    assert "Traceback" not in done.stderr
