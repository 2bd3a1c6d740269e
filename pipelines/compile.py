"""Compile every pipeline to the YAML that the package carries; `--check` only compares.

python -m pipelines.compile [--check]
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

from kfp import compiler

from pipelines.promotion import promotion
from pipelines.training import training

FOLDER = Path(__file__).parents[1] / "src" / "barcast" / "compiled"
PIPELINES = {"training": training, "promotion": promotion}


def main(check: bool) -> int:
    """Write (or compare) one YAML per pipeline; the exit code is the number that differ."""
    FOLDER.mkdir(exist_ok=True)
    differing = 0
    for name, pipeline in PIPELINES.items():
        target = FOLDER / f"{name}.yaml"
        with tempfile.TemporaryDirectory() as folder:
            made = Path(folder) / "pipeline.yaml"
            compiler.Compiler().compile(pipeline, str(made))
            text = made.read_text()
        if check and (not target.exists() or target.read_text() != text):
            print(f"{target.name} differs from pipelines/{name}.py: run `make compile` and commit it.")
            differing += 1
        elif not check:
            target.write_text(text)
    return differing


if __name__ == "__main__":
    sys.exit(main("--check" in sys.argv[1:]))
