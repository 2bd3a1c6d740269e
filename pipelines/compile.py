"""Write what is generated: every pipeline's YAML, which the package carries, and every step's README.

`--check` only compares.

python -m pipelines.compile [--check]
"""

from __future__ import annotations

import ast
import sys
import tempfile
from pathlib import Path

from kfp import compiler

from pipelines.backfill import backfill
from pipelines.monitoring import monitoring
from pipelines.promotion import promotion
from pipelines.retraining import retraining
from pipelines.training import training
from pipelines.tuning import tuning

ROOT = Path(__file__).parents[1]
PIPELINES = {
    "training": training,
    "retraining": retraining,
    "tuning": tuning,
    "backfill": backfill,
    "monitoring": monitoring,
    "promotion": promotion,
}


def generated() -> dict[Path, str]:
    """All generated files with what they must hold."""
    files = {}
    for name, pipeline in PIPELINES.items():
        with tempfile.TemporaryDirectory() as folder:
            made = Path(folder) / "pipeline.yaml"
            compiler.Compiler().compile(pipeline, str(made))
            files[ROOT / "src" / "barcast" / "compiled" / f"{name}.yaml"] = made.read_text()
    for source in sorted((ROOT / "components").glob("*/component.py")):
        files[source.with_name("README.md")] = _readme(source)
    return files


def _readme(source: Path) -> str:
    """A step's page, made from its docstrings."""
    tree = ast.parse(source.read_text())
    function = next(node for node in tree.body if isinstance(node, ast.FunctionDef))
    head = ast.get_docstring(tree) or ""
    body = ast.get_docstring(function) or ""
    return f"# {function.name}\n\n{head}\n\n```text\n{body}\n```\n\nMade from `component.py` by `make compile`.\n"


def main(check: bool) -> int:
    """Write (or compare) the generated files; the exit code says whether any differed."""
    differing = 0
    for path, text in generated().items():
        if check and (not path.exists() or path.read_text() != text):
            print(f"{path.relative_to(ROOT)} is not what its source makes: run `make compile` and commit it.")
            differing = 1
        elif not check:
            path.parent.mkdir(exist_ok=True)
            path.write_text(text)
    return differing


if __name__ == "__main__":
    sys.exit(main("--check" in sys.argv[1:]))
