"""Compiles the feature kernels, once per source state, and hands them to the engines as one typed list.

Every kernel has the same signature, so that one compiled loop drives any number of them: the batch engine runs it over
all bars, the streaming engine over one, and both therefore execute the same machine code.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numba
from numba import types
from numba.core.caching import FunctionCache, IndexDataCacheFile

# x (series, bars), t: column of this bar, n: bars seen including this one, s: the group's state, out: its values
KERNEL = types.void(types.float64[:, ::1], types.int64, types.int64, types.float64[::1], types.float64[::1])
KERNEL_TYPE = types.FunctionType(KERNEL)

Kernel = Callable[..., None]


@cache
def source_stamp(folder: Path = Path(__file__).parent) -> tuple[str]:
    """A fingerprint of every source file beside this one: kernels call one another across files."""
    digest = hashlib.sha256()
    for path in sorted(folder.glob("*.py")):
        digest.update(path.name.encode() + b"\0" + path.read_bytes())
    return (digest.hexdigest(),)


def njit(*args: Any, **options: Any) -> Any:
    """`numba.njit` with a disk cache that knows all of this package's sources.

    Numba's own cache looks at the function's file only: a changed helper in another file would leave old machine code
    in use, that is, wrong values without a word.
    """

    def decorate(function: Callable[..., Any]) -> Any:
        signature = args if not (args and callable(args[0])) else ()
        dispatcher = numba.njit(**{"error_model": "numpy", "nogil": True, **options})(function)
        store = FunctionCache(function)
        store._cache_file = IndexDataCacheFile(
            cache_path=store._cache_path, filename_base=store._impl.filename_base, source_stamp=source_stamp()
        )
        dispatcher._cache = store
        for one in signature:
            dispatcher.compile(one)
        if signature:
            dispatcher.disable_compile()
        return dispatcher

    if args and callable(args[0]) and not isinstance(args[0], types.Type) and not hasattr(args[0], "return_type"):
        return decorate(args[0])
    return decorate


@cache
def compiled(kernel: Kernel) -> Any:
    """The machine code of one group's kernel."""
    return njit(KERNEL)(kernel)


def kernel_list(kernels: tuple[Kernel, ...]) -> Any:
    """The kernels as the typed list that the drivers loop over."""
    out = numba.typed.List.empty_list(KERNEL_TYPE)
    for kernel in kernels:
        out.append(compiled(kernel))
    return out
