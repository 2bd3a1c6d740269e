"""`barcast console`: the web page for those who approve."""

from __future__ import annotations

from functools import partial
from typing import Annotated

import typer

from barcast.cli._options import ConfigOption, NamespaceOption, TokenOption, current


def console(
    host: Annotated[
        str, typer.Option(help="Address to listen on; anything but loopback needs --name.")
    ] = "127.0.0.1",
    port: Annotated[
        int | None, typer.Option(help="Port; else registry.console_port; 0 takes a free one.")
    ] = None,
    name: Annotated[
        list[str] | None, typer.Option("--name", help="Host name it may be called by (behind a TLS proxy).")
    ] = None,
    add_person: Annotated[
        str | None,
        typer.Option(
            "--add-person",
            help="Make a token for a person (a new one in place of an old one), print it once, and leave.",
        ),
    ] = None,
    pipelines: Annotated[
        str | None,
        typer.Option(
            "--pipelines", envvar="KFP_HOST", help="Kubeflow Pipelines API: it promotes and rolls back."
        ),
    ] = None,
    namespace: NamespaceOption = "kubeflow",
    token: TokenOption = None,
    config: ConfigOption = None,
) -> None:
    """The web page where challengers are approved, rejected and rolled back."""
    import socket

    import uvicorn

    from barcast.console import Access, create_app
    from barcast.console.access import PERSONS_FILE
    from barcast.errors import ConfigError
    from barcast.registry import Registry

    settings = current(config)
    workspace = settings.open_workspace()
    access = Access(workspace.state / PERSONS_FILE, settings.registry.console_session_minutes)
    if add_person is not None:
        before = "; the one before no longer works" if add_person.strip() in access.persons() else ""
        print(f"Token of {add_person.strip()} (shown once{before}): {access.add_person(add_person)}")
        return
    if host not in ("127.0.0.1", "localhost", "::1") and (not name or access.asks_name):
        raise ConfigError(
            f"The console would listen on {host}, open to others.",
            hint="Put it behind a proxy with TLS, name it with --name HOST, and make a token for each "
            "person with --add-person.",
        )
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    wanted = settings.registry.console_port if port is None else port
    try:
        listener.bind((host, wanted))
        listener.listen(128)  # from here on a browser that reads the printed address gets through
    except OSError as error:
        raise ConfigError(
            f"The console cannot listen on {host}:{wanted}: {error.strerror}.", hint="Choose another --port."
        ) from error
    submit = None
    if pipelines:
        from barcast.adapters.kubeflow_cluster import promote

        submit = partial(promote, settings, host=pipelines, namespace=namespace, token=token)
    registry = Registry(workspace, settings)
    app = create_app(registry, access, settings.serving.endpoint, tuple(name or ()), submit)
    shown = f"[{host}]" if ":" in host else host
    print(f"Console of workspace {workspace.name}: http://{shown}:{listener.getsockname()[1]}/", flush=True)
    if access.start_token:
        print(f"Token: {access.start_token}", flush=True)
    print("Ctrl+C stops it.", flush=True)
    server = uvicorn.Server(uvicorn.Config(app, log_level="warning", access_log=False, server_header=False))
    server.run(sockets=[listener])
