"""Memory of a process that serves: collected and given back without stopping requests for it.

A TensorFlow graph in Python is full of cycles, so it waits for the garbage collector; and a full collection walks the
hundreds of thousands of objects of TensorFlow or Feast itself (0.1 to 0.4 s with the interpreter's lock held). What
lives as long as the process is therefore set aside once, and each collection afterwards only sees what came later.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc

# glibc's malloc.h. By default memory of a few megabytes goes back to the system after each request and comes again,
# page by page, with the next: a third of the processor time of a request of 25 windows.
_M_TRIM_THRESHOLD, _KEPT_BYTES = -1, 256 * 2**20
_M_MMAP_THRESHOLD, _HEAP_BYTES = -3, 32 * 2**20  # the most it takes


def prepare() -> None:
    """Set aside what lives as long as the process; call once, before requests come."""
    gc.collect()
    gc.freeze()
    _malloc("mallopt", _M_MMAP_THRESHOLD, _HEAP_BYTES)
    _malloc("mallopt", _M_TRIM_THRESHOLD, _KEPT_BYTES)


def release() -> None:
    """Collect what a version left, and return free pages to the system."""
    gc.collect()
    _malloc("malloc_trim", 0)


def _malloc(function: str, *arguments: int) -> None:
    with contextlib.suppress(OSError, AttributeError):  # only glibc has these
        getattr(ctypes.CDLL(None), function)(*arguments)
