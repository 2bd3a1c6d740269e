"""The only modules that import feast, mlflow, kfp, kubernetes, ccxt, ib_async: one per neighbour."""

from __future__ import annotations

import sys
from importlib.util import find_spec
from typing import Any


def _import_feast_as_written() -> None:
    """Feast has typeguard rewrite a few hundred functions when it is imported, which takes six seconds of every
    command; as they are written it takes half a second. Other users of typeguard are left alone."""
    if "feast" in sys.modules or find_spec("typeguard") is None:
        return
    import typeguard

    rewrite: Any = typeguard.typechecked

    def typechecked(target: Any = None, **options: Any) -> Any:
        if getattr(target, "__module__", "").split(".")[0] == "feast":
            return target
        return rewrite(target, **options)

    typeguard.typechecked = typechecked


_import_feast_as_written()
