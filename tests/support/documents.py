"""The documents as their readers use them: links, commands, and blocks that can be followed."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGES = [
    ROOT / "README.md",
    *sorted((ROOT / "docs").rglob("*.md")),
    *sorted((ROOT / "examples").glob("*.md")),
]
_BLOCK = re.compile(
    r"^(?P<marks>(?:<!--[^\n]*-->\n)*)(?P<indent> *)```(?P<kind>\w*)(?P<rest>[^\n]*)\n(?P<text>.*?)^ *```$",
    re.S | re.M,
)
_RUN = re.compile(r"<!-- run(?P<options>[^>]*)-->")


@dataclass(frozen=True)
class Block:
    """A fenced block.

    Attributes:
        run: "" where no one runs it; "fast"; "slow" (too long for every check); "sample" (after a run of the sample).
        expect: text that its output must hold.
        code: exit code that it must leave with.
    """

    kind: str
    rest: str
    text: str
    run: str
    expect: str
    code: int


def blocks(page: Path) -> Iterator[Block]:
    """All fenced blocks of a page; `<!-- run [slow|sample] [code=N] [expect="text"] -->` above one: it is run."""
    for found in _BLOCK.finditer(page.read_text()):
        text = re.sub(rf"^{found['indent']}", "", found["text"], flags=re.MULTILINE)
        mark = _RUN.search(found["marks"])
        options = mark["options"] if mark else ""
        expect = re.search(r'expect="([^"]*)"', options)
        code = re.search(r"code=(\d+)", options)
        yield Block(
            found["kind"], found["rest"].strip(), text,
            next((w for w in ("slow", "sample") if w in options.split()), "fast") if mark else "",
            expect[1] if expect else "", int(code[1]) if code else 0,
        )  # fmt: skip


def commands(text: str) -> Iterator[list[str]]:
    """Words of every `barcast ...` command in a shell block or a line of code."""
    joined = re.sub(r"\\\n\s*", " ", text)
    for line in joined.splitlines():
        for part in re.split(r"&&|\|\||;|\||(?<!\S)&(?!\S)", line):
            words = _words(part)
            while words and re.fullmatch(r"\w+=\S*", words[0]):  # VARIABLE=value in front
                words = words[1:]
            if words and words[0].removeprefix(".venv/bin/") == "barcast":
                out = []
                for word in words[1:]:
                    if word.startswith((">", "2>", "<")):
                        break
                    out.append(word)
                yield out


def _words(part: str) -> list[str]:
    try:
        return shlex.split(part, comments=True)
    except ValueError:
        return []


def inline_commands(page: Path) -> Iterator[list[str]]:
    """Words of every `barcast ...` in inline code, outside fenced blocks."""
    prose = _BLOCK.sub("", page.read_text())
    for code in re.findall(r"`(barcast [^`]+)`", prose):
        yield from commands(" ".join(code.split()))


def links(page: Path) -> Iterator[str]:
    """Targets of a page's links and pictures that are no web addresses."""
    prose = _BLOCK.sub("", page.read_text())
    for target in re.findall(r"\]\(([^)\s]+)\)", prose):
        if not target.startswith(("http:", "https:", "mailto:")):
            yield target


def anchors(page: Path) -> set[str]:
    """Names of a page's headings, as GitHub makes them."""
    found = set()
    for heading in re.findall(r"^#+ (.+)$", _BLOCK.sub("", page.read_text()), flags=re.MULTILINE):
        plain = re.sub(r"[`*]|\[([^]]*)\]\([^)]*\)", r"\1", heading)
        found.add(re.sub(r"[^\w\- ]", "", plain.lower()).replace(" ", "-"))
    return found
