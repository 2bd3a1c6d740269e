"""An embedded model server that speaks TensorFlow Serving's protocol, for one machine.

On a cluster TensorFlow Serving itself does this work; the same files and clients fit both. Data passes: a request at
a door (gRPC, REST) → its handler (`protocol_*`) → the version held by the life cycle → XLA-compiled code → the answer.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

from barcast.serving.model_server.process import RunningServer, start

__all__ = ["main", "start", "RunningServer"]


def main(arguments: Sequence[str] | None = None) -> int:
    """The `barcast-model-server` command; the exit code."""
    from barcast.errors import BarcastError
    from barcast.serving.model_server import flags, server

    try:
        options, warnings = flags.parse(list(sys.argv[1:] if arguments is None else arguments))
        for warning in warnings:
            print(f"Warning: {warning}", file=sys.stderr)
        server.run(options)
    except BarcastError as error:
        code = getattr(error, "code", None)
        detail = f"{code.name}: {error}" if code is not None else str(error)
        print(f"Failed to start server. Error: {detail}", file=sys.stderr)
        return error.exit_code
    return 0
