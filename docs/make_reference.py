"""Write the configuration reference from the schema: `python docs/make_reference.py [--check]`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any, get_args

from pydantic import BaseModel

from barcast.config import Config

TARGET = Path(__file__).with_name("reference") / "configuration.md"
HEAD = """# Configuration reference

Every setting with its default. A configuration file holds only what differs; unknown keys are refused.
Made from the schema by `make compile`.
"""


def _inner(annotation: Any) -> type[BaseModel] | None:
    for option in (annotation, *get_args(annotation)):
        if isinstance(option, type) and issubclass(option, BaseModel):
            return option
    return None


def _shown(annotation: Any) -> str:
    text = str(annotation) if get_args(annotation) else getattr(annotation, "__name__", str(annotation))
    return text.replace("typing.", "").replace("pathlib.", "").replace("|", "or")


def section(model: type[BaseModel], path: str) -> list[str]:
    """Lines for one section, then those of the sections inside it."""
    lines = [f"\n## {path or 'top level'}\n", (model.__doc__ or "").strip().splitlines()[0], ""]
    rows, deeper = [], []
    for name, field in model.model_fields.items():
        inside = _inner(field.annotation)
        if inside is not None:
            deeper += section(inside, f"{path}.{name}".strip("."))
        else:
            default = field.get_default(call_default_factory=True)
            text = " ".join((field.description or "").split())
            rows.append(f"| `{name}` | {_shown(field.annotation)} | `{default!r}` | {text} |")
    if rows:
        lines += ["| key | type | default | meaning |", "|---|---|---|---|", *rows]
    return [*lines, *deeper]


def main(check: bool) -> int:
    """Write, or compare; 1 when it differs."""
    text = HEAD + "\n".join(section(Config, "")) + "\n"
    if check:
        same = TARGET.exists() and TARGET.read_text() == text
        if not same:
            print(
                f"docs/reference/{TARGET.name} is not what the schema makes: run `make compile` and commit it."
            )
        return 0 if same else 1
    TARGET.parent.mkdir(exist_ok=True)
    TARGET.write_text(text)
    return 0


if __name__ == "__main__":
    sys.exit(main("--check" in sys.argv[1:]))
