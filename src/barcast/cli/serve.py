"""`barcast serve`: the model server for what is live in the workspace."""

from __future__ import annotations

from typing import Annotated

import typer

from barcast.cli._options import ConfigOption, current
from barcast.errors import ServingError


def serve(
    port: Annotated[
        int | None, typer.Option(help="gRPC port; by default that of `serving.endpoint`.")
    ] = None,
    rest_port: Annotated[
        int | None,
        typer.Option(help="REST port; 0 leaves REST off; by default `model_server.rest_api_port`."),
    ] = None,
    config: ConfigOption = None,
) -> None:
    """Serve every live model over gRPC until interrupted (TensorFlow Serving's protocol)."""
    from barcast.serving import model_server

    settings = current(config)
    workspace = settings.open_workspace()
    models_config = workspace.models_config
    if not models_config.exists():
        raise ServingError(
            f"Nothing is live in workspace {workspace.name!r}: {models_config} does not exist.",
            hint="Run `barcast run` (and `barcast models approve`, if approval is manual) first.",
        )
    chosen = port if port is not None else int(settings.serving.endpoint.rpartition(":")[2])
    flags = settings.model_server.flags(
        models_config, settings.serving.batch_sizes, workspace.root / "xla-cache"
    )
    from barcast.serving.model_server.process import command_line

    rest = {} if rest_port is None else {"rest_api_port": rest_port}
    code = model_server.main(command_line({**flags, "port": chosen, **rest}))
    if code:
        raise typer.Exit(code)
