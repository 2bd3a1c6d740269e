"""The outcome of a validation, as an object, JSON and a page for people."""

from __future__ import annotations

import html
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from barcast.errors import QualityError
from barcast.wording import count


@dataclass(frozen=True)
class CheckResult:
    """One expectation's outcome.

    Attributes:
        name: the measure.
        expectation: what was expected, in words.
        severity: "critical" stops a run, "warning" does not.
        observed: what came: the worst subjects with their values.
        failing: the subjects (symbols, features, columns) that broke it, worst first.
    """

    name: str
    expectation: str
    severity: str
    passed: bool
    observed: str
    failing: tuple[str, ...] = ()

    @property
    def ok(self) -> bool:
        return self.passed

    @property
    def critical(self) -> bool:
        """Whether a failure of this expectation stops a run."""
        return self.severity == "critical"

    def __str__(self) -> str:
        state = "passed" if self.passed else self.severity
        return f"{state}: {self.name}: expected {self.expectation}; came {self.observed}"


@dataclass(frozen=True)
class QualityReport:
    """All outcomes of one validation.

    Attributes:
        title: what was validated.
        results: one per expectation.
        facts: rows, symbols, span, hash and the like, for the reader.
        notes: sentences that belong beside the results (a universe chosen in hindsight).
    """

    title: str
    results: tuple[CheckResult, ...]
    facts: Mapping[str, Any] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    @property
    def critical(self) -> tuple[CheckResult, ...]:
        """Critical expectations that failed."""
        return tuple(r for r in self.results if not r.passed and r.critical)

    @property
    def warnings(self) -> tuple[CheckResult, ...]:
        """Warnings that failed."""
        return tuple(r for r in self.results if not r.passed and not r.critical)

    @property
    def ok(self) -> bool:
        """Whether no critical expectation failed."""
        return not self.critical

    def raise_if_critical(self) -> None:
        """Stop here if a critical expectation failed.

        Raises:
            QualityError: names each failed expectation and its worst subjects.
        """
        if self.ok:
            return
        lines = "; ".join(f"{r.name}: expected {r.expectation}, came {r.observed}" for r in self.critical)
        raise QualityError(
            f"{self.title}: {count(len(self.critical), 'critical expectation')} failed: {lines}.",
            hint="Correct the data at its source; nothing downstream has seen it.",
        )

    def to_dict(self) -> dict[str, Any]:
        return {
            "title": self.title,
            "ok": self.ok,
            "num_critical": len(self.critical),
            "num_warnings": len(self.warnings),
            "facts": dict(self.facts),
            "notes": list(self.notes),
            "results": [asdict(r) for r in self.results],
        }

    def to_json(self) -> str:
        return json.dumps(self.to_dict(), indent=2, default=str)

    def to_html(self) -> str:
        """One self-contained page: facts, then failures first."""
        facts = "".join(f"<tr><th>{_e(k)}</th><td>{_e(v)}</td></tr>" for k, v in self.facts.items())
        order = sorted(self.results, key=lambda r: (r.passed, not r.critical))
        rows = "".join(_row(r) for r in order)
        notes = "".join(f"<p class=note>{_e(n)}</p>" for n in self.notes)
        verdict = (
            f"stopped: {len(self.critical)} critical" if not self.ok else "passed"
        ) + f", {count(len(self.warnings), 'warning')}, {count(len(self.results), 'expectation')}"
        return _PAGE.format(
            title=_e(self.title),
            state="pass" if self.ok else "critical",
            verdict=_e(verdict),
            facts=facts,
            notes=notes,
            rows=rows,
        )

    def write(self, folder: str | Path, name: str) -> tuple[Path, Path]:
        """Write `name`.html and `name`.json into `folder`; returns both paths."""
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        page, data = folder / f"{name}.html", folder / f"{name}.json"
        page.write_text(self.to_html())
        data.write_text(self.to_json())
        return page, data


def _e(value: object) -> str:
    return html.escape(str(value))


def _row(result: CheckResult) -> str:
    state = "pass" if result.passed else result.severity
    word = "passed" if result.passed else result.severity
    return (
        f'<tr class="{state}"><td>{word}</td><td>{_e(result.name)}</td><td>{_e(result.expectation)}</td>'
        f"<td>{_e(result.observed)}</td></tr>"
    )


_PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>{title}</title><style>
body {{ font: 15px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 62rem; padding: 0 1rem;
  color: #1b1f24; }}
table {{ border-collapse: collapse; width: 100%; margin: 1rem 0; }}
th, td {{ text-align: left; padding: .35rem .6rem; border-bottom: 1px solid #d8dee4; vertical-align: top; }}
.verdict {{ padding: .6rem 1rem; border-radius: 6px; font-weight: 600; }}
.verdict.pass {{ background: #dafbe1; }} .verdict.critical {{ background: #ffd8d3; }}
tr.critical td:first-child {{ color: #b3261e; font-weight: 700; }}
tr.warning td:first-child {{ color: #8a5a00; font-weight: 700; }}
tr.pass td:first-child {{ color: #1a7f37; }}
.note {{ background: #fff8c5; padding: .5rem 1rem; border-radius: 6px; }}
</style></head><body><h1>{title}</h1><p class="verdict {state}">{verdict}</p>{notes}
<table>{facts}</table>
<table><thead><tr><th>result</th><th>measure</th><th>expected</th><th>came</th></tr></thead><tbody>{rows}</tbody></table>
</body></html>
"""
