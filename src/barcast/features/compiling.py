"""Compiles the feature kernels, once per source state, and hands them to the engines as one typed list.

Every kernel has the same signature, so that one compiled loop drives any number of them: the batch engine runs it over
all bars, the streaming engine over one, and both therefore execute the same machine code.
"""

from __future__ import annotations

import hashlib
import inspect
import re
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numba
from numba import types
from numba.core.caching import FunctionCache, IndexDataCacheFile
from numba.experimental.function_type import _get_wrapper_address

# x (series, bars), t: column of this bar, n: bars seen including this one, s: the group's state, out: its values
KERNEL = types.void(types.float64[:, ::1], types.int64, types.int64, types.float64[::1], types.float64[::1])
KERNEL_TYPE = types.FunctionType(KERNEL)

Kernel = Callable[..., None]


@cache
def source_stamp(path: Path) -> tuple[str]:
    """A fingerprint of a source file and of every file of this package that it imports: kernels call across files."""
    seen: dict[Path, bytes] = {}
    todo = [path, Path(__file__)]
    while todo:
        one = todo.pop()
        if one not in seen and one.exists():
            seen[one] = one.read_bytes()
            names = re.findall(rb"from barcast\.features\.(\w+) import", seen[one])
            todo += [Path(__file__).with_name(name.decode() + ".py") for name in names]
    digest = hashlib.sha256()
    for one in sorted(seen):
        digest.update(one.name.encode() + b"\0" + seen[one])
    return (digest.hexdigest(),)


class _Code(IndexDataCacheFile):  # type: ignore[misc]
    """Machine code on disk: what the package brought, else what was compiled here.

    Numba looks only where it may write. An image's package is read-only, so its code would be compiled again by every
    process of every pod.
    """

    def __init__(self, brought: Path, *args: Any) -> None:
        super().__init__(*args)  # type: ignore[no-untyped-call]
        self._brought = IndexDataCacheFile(str(brought), *args[1:])  # type: ignore[no-untyped-call]

    def load(self, key: Any) -> Any:
        found = self._brought.load(key)  # type: ignore[no-untyped-call]
        return super().load(key) if found is None else found  # type: ignore[no-untyped-call]


def njit(*args: Any, **options: Any) -> Any:
    """`numba.njit` with a disk cache that knows the sources of a kernel and of what it calls.

    Numba's own cache looks at the function's file only: a changed helper in another file would leave old machine code
    in use, that is, wrong values without a word.
    """

    def decorate(function: Callable[..., Any]) -> Any:
        signature = args if not (args and callable(args[0])) else ()
        dispatcher = numba.njit(**{"error_model": "numpy", "nogil": True, **options})(function)
        store: Any = FunctionCache(function)  # type: ignore[no-untyped-call]
        source = Path(inspect.getfile(function))
        store._cache_file = _Code(
            source.parent / "__pycache__", store._cache_path, store._impl.filename_base, source_stamp(source)
        )
        dispatcher._cache = store
        for one in signature:
            dispatcher.compile(one)
        if signature:
            dispatcher.disable_compile()
        return dispatcher

    if (
        args
        and callable(args[0])
        and not isinstance(args[0], types.Type)
        and not hasattr(args[0], "return_type")
    ):
        return decorate(args[0])
    return decorate


@cache
def compiled(kernel: Kernel) -> Any:
    """The machine code of one group's kernel."""
    return njit(KERNEL)(kernel)


class _Address(types.WrapperAddressProtocol):  # type: ignore[misc]
    """A compiled kernel by its address: all have one Python type, so numba compiles their conversion once, not each."""

    def __init__(self, kernel: Kernel) -> None:
        # `compiled` keeps the code alive
        self.address = _get_wrapper_address(compiled(kernel), KERNEL)  # type: ignore[no-untyped-call]

    def __wrapper_address__(self) -> int:
        return int(self.address)

    def signature(self) -> Any:
        return KERNEL


def kernel_list(kernels: tuple[Kernel, ...]) -> Any:
    """The kernels as the typed list that the drivers loop over."""
    out = numba.typed.List.empty_list(KERNEL_TYPE)
    for kernel in kernels:
        out.append(_Address(kernel))
    return out
