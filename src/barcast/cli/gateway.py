"""`barcast gateway`: serve predictions over HTTP, and keep its API keys."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from barcast.cli._options import ConfigOption, JsonOption, current, print_json

if TYPE_CHECKING:
    from barcast.config import Config
    from barcast.serving.gateway.security import KeyFile

app = typer.Typer(add_completion=False, no_args_is_help=True, help="Serve predictions over HTTP.")
key = typer.Typer(add_completion=False, no_args_is_help=True, help="API keys.")
app.add_typer(key, name="key")


@app.command()
def serve(
    host: Annotated[str | None, typer.Option(help="Address; default from the configuration.")] = None,
    port: Annotated[int | None, typer.Option(help="Port; 0 takes a free one.")] = None,
    endpoint: Annotated[str | None, typer.Option(help="Model server, host:port.")] = None,
    config: ConfigOption = None,
) -> None:
    """Answer over HTTP until stopped."""
    import contextlib
    import socket

    import uvicorn

    from barcast import tracing
    from barcast.errors import BarcastError, ServingError
    from barcast.serving import memory
    from barcast.serving.gateway import create_app
    from barcast.serving.prediction_log import PredictionLog
    from barcast.serving.predictor import Predictor

    settings = current(config)
    workspace = settings.open_workspace()
    gate = settings.gateway
    tracing.configure(settings, "gateway")
    bound = socket.socket()
    bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        bound.bind((host or gate.host, gate.port if port is None else port))
    except OSError as error:
        bound.close()
        raise ServingError(
            f"{host or gate.host}:{gate.port if port is None else port} cannot be used ({error.strerror}).",
            hint="Another program holds the port: choose one with --port.",
        ) from error
    log = PredictionLog(workspace.logs / "predictions.db")
    predictor = Predictor(workspace, settings, endpoint, log=log)
    application = create_app(predictor, log)
    with contextlib.suppress(BarcastError):  # opens Feast now, else the first caller would wait for it
        predictor.windows.read(predictor.symbols()[:1])
    memory.prepare()
    bound.listen()  # who reads the next line may connect at once
    print(f"Gateway at http://{bound.getsockname()[0]}:{bound.getsockname()[1]}", flush=True)
    server = uvicorn.Server(
        uvicorn.Config(
            application, log_config=None, access_log=False, server_header=False, timeout_keep_alive=15
        )
    )
    server.run(sockets=[bound])


@key.command("make")
def make_key(
    name: str,
    role: Annotated[str, typer.Option(help="read or write.")] = "",
    config: ConfigOption = None,
) -> None:
    """Make a key and show it, this once."""
    from barcast.errors import ConfigError

    settings = current(config)
    chosen = role or settings.gateway.role_default
    if chosen not in ("read", "write"):
        raise ConfigError(f"Role {chosen!r} is not known.", hint="Choose read or write.")
    print(_keys(settings).make(name, "write" if chosen == "write" else "read"))


@key.command("revoke")
def revoke_key(name: str, config: ConfigOption = None) -> None:
    """Take a key back; it stops at the next request."""
    _keys(current(config)).revoke(name)
    print(f"The key {name!r} is revoked.")


@key.command("list")
def list_keys(json: JsonOption = False, config: ConfigOption = None) -> None:
    """Names and roles; never the keys."""
    found = _keys(current(config)).names()
    if json:
        print_json([{"name": name, "role": role} for name, role in found])
        return
    for name, role in found:
        print(f"{name:32} {role}")


def _keys(settings: Config) -> KeyFile:
    from barcast.serving.gateway.security import KeyFile

    path = settings.gateway.keys_file or settings.open_workspace().state / "api_keys.json"
    return KeyFile(Path(path))
