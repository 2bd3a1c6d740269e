"""Write the references from the code: `python docs/make_reference.py [--check]`.

`reference/configuration.md` from the schema, `reference/commands.md` from the command line, `reference/api/ROOM.md`
from what each room of the package exports (read, not imported: no room is started for it).
"""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

from pydantic import BaseModel

from barcast.config import Config

FOLDER = Path(__file__).with_name("reference")
SOURCE = Path(__file__).parents[1] / "src" / "barcast"
MADE = "Made from the code by `make compile`."

# What a user of the package calls, room by room; everything else is the package's own affair.
ROOMS = (
    "config", "errors", "bars", "bars.store", "bars.sources", "bars.feed", "features", "labels", "splits", "datasets",
    "models.savedmodel", "models.presets", "training", "training.prepare", "training.tuning", "training.compare",
    "training.multi_worker", "evaluation.evaluate", "evaluation.gate", "evaluation.backtest", "evaluation.replay",
    "registry", "serving", "serving.client", "decisions", "operations.runs", "operations.queue",
    "operations.schedules", "operations.monitoring", "adapters.feast", "adapters.beam", "adapters.beam_features",
)  # fmt: skip


def pages() -> dict[Path, str]:
    """Every generated page."""
    found = {FOLDER / "configuration.md": configuration(), FOLDER / "commands.md": commands()}
    for room in ROOMS:
        found[FOLDER / "api" / f"{room}.md"] = api(room)
    found[FOLDER / "api" / "README.md"] = index()
    return found


# Configuration


def configuration() -> str:
    """The schema, section by section."""
    head = (
        "# Configuration reference\n\nEvery setting with its default. A configuration file holds only what differs; "
        f"unknown keys are refused.\n{MADE}\n"
    )
    return head + "\n".join(section(Config, "")) + "\n"


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


def _inner(annotation: Any) -> type[BaseModel] | None:
    for option in (annotation, *get_args(annotation)):
        if isinstance(option, type) and issubclass(option, BaseModel):
            return option
    return None


def _shown(annotation: Any) -> str:
    text = str(annotation) if get_args(annotation) else getattr(annotation, "__name__", str(annotation))
    text = re.sub(r"Annotated\[(\w+), [^]]*\]", r"\1", text)  # bounds are the schema's matter
    return text.replace("typing.", "").replace("pathlib.", "").replace("|", "or")


# Command line


def commands() -> str:
    """Every command with its arguments and options."""
    import typer

    from barcast.cli import app

    group = typer.main.get_command(app)
    lines = ["# Commands", "", f"`--help` behind a command says the same. {MADE}"]
    for words, command in _commands(group, ["barcast"]):
        text = " ".join((command.help or "").split())
        lines += ["", f"## {' '.join(words)}", "", text]
        rows = []
        for parameter in command.params:
            if parameter.name in ("help", "install_completion", "show_completion"):
                continue
            spoken = ", ".join(f"`{o}`" for o in [*parameter.opts, *parameter.secondary_opts])
            if parameter.param_type_name == "argument":
                spoken = f"`{str(parameter.name).upper()}`"
            said = " ".join((getattr(parameter, "help", None) or "").split()).replace("|", "\\|")
            default = parameter.default if isinstance(parameter.default, str | int | float) else None
            shown = f" Default: `{default}`." if default not in (None, "", False, True) else ""
            rows.append(f"| {spoken} | {'required' if parameter.required else ''} | {said}{shown} |")
        if rows:
            lines += ["", "| | | |", "|---|---|---|", *rows]
    return "\n".join(lines) + "\n"


def _commands(command: Any, words: list[str]) -> Iterator[tuple[list[str], Any]]:
    context = command.context_class(command)
    if not hasattr(command, "list_commands"):
        yield words, command
        return
    for name in command.list_commands(context):
        yield from _commands(command.get_command(context, name), [*words, name])


# Python


def index() -> str:
    """The rooms, each with the first line of its docstring."""
    lines = ["# Python API", "", f"What each room exports. {MADE}", "", "| room | |", "|---|---|"]
    for room in ROOMS:
        first = _paragraph(ast.get_docstring(_module(room)[1]) or "")
        lines.append(f"| [`barcast.{room}`]({room}.md) | {first} |")
    return "\n".join(lines) + "\n"


def api(room: str) -> str:
    """One room: its text, then each exported class and function."""
    path, tree = _module(room)
    lines = [f"# barcast.{room}", "", ast.get_docstring(tree) or ""]
    for name in _exported(tree):
        node = _definition(path, tree, name)
        if isinstance(node, ast.ClassDef):
            lines += _class(node, name)
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            lines += _function(node, name, level=2)
    return "\n".join(lines) + "\n"


def _module(room: str) -> tuple[Path, ast.Module]:
    base = SOURCE.joinpath(*room.split("."))
    path = base / "__init__.py" if base.is_dir() else base.with_suffix(".py")
    return path, ast.parse(path.read_text())


def _exported(tree: ast.Module) -> list[str]:
    """Names in `__all__`, else those defined here without an underscore."""
    for node in tree.body:
        if isinstance(node, ast.Assign) and [ast.unparse(t) for t in node.targets] == ["__all__"]:
            return [str(name) for name in ast.literal_eval(node.value)]
    kinds = (ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    return [n.name for n in tree.body if isinstance(n, kinds) and not n.name.startswith("_")]


def _definition(path: Path, tree: ast.Module, name: str) -> ast.AST | None:
    """Where a name is defined: here, or where it is imported from."""
    for node in ast.walk(tree):
        if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef) and node.name == name:
            return node
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("barcast"):
            for alias in node.names:
                if (alias.asname or alias.name) == name:
                    module = str(node.module).removeprefix("barcast").strip(".")
                    if (SOURCE / module.replace(".", "/")).exists() or SOURCE.joinpath(
                        *module.split(".")
                    ).with_suffix(".py").exists():
                        other, inside = _module(module)
                        if other != path:
                            return _definition(other, inside, alias.name)
    return None


def _class(node: ast.ClassDef, name: str) -> list[str]:
    bases = ", ".join(ast.unparse(base) for base in node.bases)
    lines = ["", f"## {name}" + (f"({bases})" if bases else ""), "", _text(node)]
    for part in node.body:
        public = isinstance(part, ast.FunctionDef | ast.AsyncFunctionDef) and not part.name.startswith("_")
        if public:
            lines += _function(part, f"{name}.{part.name}", level=3)  # type: ignore[attr-defined, arg-type]
    return lines


def _function(node: ast.FunctionDef | ast.AsyncFunctionDef, name: str, *, level: int) -> list[str]:
    returns = f" -> {ast.unparse(node.returns)}" if node.returns else ""
    word = "async " if isinstance(node, ast.AsyncFunctionDef) else ""
    signature = f"{word}{name.rpartition('.')[2]}({ast.unparse(node.args)}){returns}"
    return ["", f"{'#' * level} {name}", "", "```python", signature, "```", "", _text(node)]


def _text(node: Any) -> str:
    """A docstring as Markdown: its argument sections stay as they are, in a block."""
    text = ast.get_docstring(node) or ""
    head, _, rest = text.partition("\n\n")
    return head + (f"\n\n```text\n{rest}\n```" if rest else "")


def _paragraph(text: str) -> str:
    return " ".join(text.partition("\n\n")[0].split())


def main(check: bool) -> int:
    """Write, or compare; 1 when a page differs."""
    made = pages()
    stale = [p for p in (FOLDER / "api").glob("*.md") if p not in made]
    if check:
        wrong = [p for p, text in made.items() if not p.exists() or p.read_text() != text] + stale
        for path in wrong:
            print(
                f"docs/{path.relative_to(FOLDER.parent)} is not what the code makes: run `make compile`, commit it."
            )
        return 1 if wrong else 0
    (FOLDER / "api").mkdir(parents=True, exist_ok=True)
    for path, text in made.items():
        path.write_text(text)
    for path in stale:
        path.unlink()
    return 0


if __name__ == "__main__":
    sys.exit(main("--check" in sys.argv[1:]))
