"""Machine code that the package brought is used where its folder may not be written, as in an image."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

KERNEL = """
from numba import types
from barcast.features.compiling import njit

@njit(types.float64(types.float64))
def twice(x):
    return 2.0 * x

if __name__ == "__main__":
    print(twice(21.0), sum(twice.stats.cache_hits.values()))
"""


def run(file: Path, cache: str = "") -> list[str]:
    environment = os.environ | {"NUMBA_CACHE_DIR": cache}
    done = subprocess.run(
        [sys.executable, str(file)], env=environment, check=True, capture_output=True, text=True
    )
    return done.stdout.split()


def test_code_from_the_package_is_used_where_the_cache_lies_elsewhere(tmp_path: Path) -> None:
    file, elsewhere = tmp_path / "kernel.py", tmp_path / "elsewhere"
    file.write_text(KERNEL)
    assert run(file) == ["42.0", "0"]
    assert run(file, str(elsewhere)) == ["42.0", "1"]
    assert list(elsewhere.rglob("*.nbc")) == []


def test_changed_source_is_compiled_anew_into_the_cache(tmp_path: Path) -> None:
    file, elsewhere = tmp_path / "kernel.py", tmp_path / "elsewhere"
    file.write_text(KERNEL)
    run(file)
    file.write_text(KERNEL.replace("2.0 * x", "3.0 * x"))
    assert run(file, str(elsewhere)) == ["63.0", "0"]
    assert run(file, str(elsewhere)) == ["63.0", "1"]
    assert len(list(elsewhere.rglob("*.nbc"))) == 1
