"""Every command in the documents exists with its options, every link leads somewhere, and what is marked works."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import documents
import pytest
import typer
from documents import PAGES, ROOT

BIN = Path(sys.executable).parent
NAMES = [str(page.relative_to(ROOT)) for page in PAGES]


def page_of(name: str) -> Path:
    return ROOT / name


@pytest.fixture(scope="module")
def group() -> Any:
    from barcast.cli import app

    return typer.main.get_command(app)


def problem(group: Any, words: list[str]) -> str:
    """What the command line would refuse in these words; "" where it would begin to work."""
    command, context = group, None
    while True:
        try:
            context = command.make_context(command.name or "barcast", list(words), parent=context)
        except typer.Exit:  # --help, --version
            return ""
        except Exception as error:
            return str(getattr(error, "message", error)) or type(error).__name__
        rest = [*context._protected_args, *context.args]
        if not hasattr(command, "resolve_command"):
            return ""
        if not rest:
            return "" if command.invoke_without_command else f"{command.name} alone does nothing"
        try:
            _, command, words = command.resolve_command(context, list(rest))
        except Exception as error:
            return str(getattr(error, "message", error))
        if command is None:
            return f"there is no command {rest[0]}"


@pytest.mark.parametrize("name", NAMES)
def test_every_barcast_command_in_a_page_is_one(group: Any, name: str) -> None:
    page = page_of(name)
    wrong = []
    for block in documents.blocks(page):
        if block.kind in ("sh", "bash", "console", ""):
            for words in documents.commands(block.text):
                if found := problem(group, words):
                    wrong.append(f"barcast {' '.join(words)}: {found}")
    for words in documents.inline_commands(page):
        # In a sentence a command may stand without its arguments.
        found = problem(group, words)
        if (
            found
            and "Missing" not in found
            and "alone does nothing" not in found
            and "[" not in " ".join(words)
        ):
            wrong.append(f"`barcast {' '.join(words)}`: {found}")
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize(
    "words", [["no-such"], ["runs", "list", "--no-such"], ["queue", "no-such"], ["train"]]
)
def test_a_wrong_command_would_be_found(group: Any, words: list[str]) -> None:
    assert problem(group, words)


@pytest.mark.parametrize("name", NAMES)
def test_every_link_leads_somewhere(name: str) -> None:
    page = page_of(name)
    wrong = []
    for target in documents.links(page):
        path, _, anchor = target.partition("#")
        file = (page.parent / path).resolve() if path else page
        if not file.exists() or (anchor and file.suffix == ".md" and anchor not in documents.anchors(file)):
            wrong.append(target)
    assert not wrong


def test_every_page_is_in_the_index() -> None:
    index = ROOT / "docs" / "README.md"
    listed = {(index.parent / t.partition("#")[0]).resolve() for t in documents.links(index)}
    covered = {folder for folder in listed if folder.is_dir()}
    missing = [
        name
        for name in NAMES
        if (page := page_of(name)) not in listed | {index, ROOT / "README.md"}
        and not covered & set(page.parents)
    ]
    assert not missing


def marked(*kinds: str) -> list[str]:
    """Pages with a block that is run in one of these ways."""
    return [name for name in NAMES if any(block.run in kinds for block in documents.blocks(page_of(name)))]


def play(name: str, folder: Path, state: Path, *kinds: str) -> None:
    """Follow a page's marked blocks in one folder, in their order."""
    environment = {
        **os.environ,
        "PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}",
        "BARCAST_ROOT": str(state),
        "OMP_NUM_THREADS": "1",
    }
    environment.pop("BARCAST_CONFIG", None)
    for part in (
        "k8s",
        "examples",
        "docs",
        "pipelines",
        "benchmarks",
    ):  # pages speak from the checkout's root
        if (ROOT / part).exists() and not (folder / part).exists():
            (folder / part).symlink_to(ROOT / part)
    for block in documents.blocks(page_of(name)):
        if block.run not in kinds:
            continue
        if block.rest.startswith("file="):
            (folder / block.rest.removeprefix("file=")).write_text(block.text)
            continue
        program = ["bash", "-eo", "pipefail", "-c"] if block.kind == "sh" else [sys.executable, "-c"]
        done = subprocess.run(
            [*program, block.text], cwd=folder, env=environment, capture_output=True, text=True, timeout=600
        )
        said = done.stdout + done.stderr
        assert done.returncode == block.code, f"{block.text}\n{said}"
        assert block.expect in said, f"{block.text}\n{said}"


@pytest.mark.parametrize("name", marked("fast"))
def test_marked_blocks_work(name: str, tmp_path: Path) -> None:
    play(name, tmp_path, tmp_path / "state", "fast")


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("name", marked("slow"))
def test_all_marked_blocks_work_from_nothing(name: str, tmp_path: Path) -> None:
    play(name, tmp_path, tmp_path / "state", "fast", "slow")


@pytest.fixture(scope="module")
def sample(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The state after the first run of the sample."""
    folder = tmp_path_factory.mktemp("sample")
    done = subprocess.run(
        [BIN / "barcast", "run"], cwd=folder, env={**os.environ, "BARCAST_ROOT": str(folder / "state")},
        capture_output=True, text=True, timeout=1200,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    return folder / "state"


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("name", marked("sample"))
def test_marked_blocks_work_after_a_run_of_the_sample(name: str, tmp_path: Path, sample: Path) -> None:
    play(name, tmp_path, sample, "sample")
