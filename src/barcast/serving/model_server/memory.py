"""Gives back what unloaded versions leave behind, without stopping requests for it.

A TensorFlow graph in Python is full of cycles, so it waits for the garbage collector; and a full collection walks the
hundreds of thousands of objects of TensorFlow itself (0.4 s with the interpreter's lock held). What exists before the
first model loads is therefore set aside once, and each collection afterwards only sees what models brought.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import sys

# A request waits at most this long for the interpreter's lock while a model loads (Python's default is 5 ms).
_SWITCH_SECONDS = 0.0005


def prepare() -> None:
    """Set aside what lives as long as the process; call once, before models load."""
    gc.collect()
    gc.freeze()
    sys.setswitchinterval(_SWITCH_SECONDS)


def release() -> None:
    """Collect what a version left, and return free pages to the system."""
    gc.collect()
    with contextlib.suppress(OSError, AttributeError):  # only glibc has it
        ctypes.CDLL(None).malloc_trim(0)
