"""Small plots as inline SVG: evidence of the gate, and what answered when. No script, no style attributes.

Colours are CSS classes, so that light and dark pages and the content security policy are served alike.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from html import escape
from typing import Any

WIDTH = 560


def interval(name: str, unit: str, low: float, mean: float, high: float, note: str) -> str:
    """One confidence interval against zero: whiskers, the mean as a dot; green right of zero, red left of it."""
    edge = max(abs(low), abs(high), 1e-12) * 1.15
    middle, half = WIDTH / 2, WIDTH / 2 - 20

    def x(value: float) -> float:
        return middle + value / edge * half

    tone = "good" if low > 0 else "bad" if high < 0 else "wait"
    label = f"{name}: {mean:+.4g} {unit}, 95% interval {low:+.4g} to {high:+.4g}"
    return (
        f'<svg class="plot" viewBox="0 0 {WIDTH} 84" role="img" aria-label="{escape(label)}">'
        f'<text x="0" y="12" class="t-name">{escape(name)}</text>'
        f'<text x="{WIDTH}" y="12" class="t-note" text-anchor="end">{escape(note)}</text>'
        f'<line x1="20" x2="{WIDTH - 20}" y1="44" y2="44" class="axis"/>'
        f'<line x1="{middle}" x2="{middle}" y1="26" y2="62" class="zero"/>'
        f'<rect x="{x(low):.1f}" y="38" width="{max(1.5, x(high) - x(low)):.1f}" height="12" rx="6" '
        f'class="band {tone}"/>'
        f'<circle cx="{x(mean):.1f}" cy="44" r="5" class="dot {tone}"/>'
        f'<text x="{x(low):.1f}" y="70" class="t-num" text-anchor="middle">{low:+.3g}</text>'
        f'<text x="{x(high):.1f}" y="70" class="t-num" text-anchor="middle">{high:+.3g}</text>'
        f'<text x="{middle}" y="22" class="t-num" text-anchor="middle">0 {escape(unit)}</text>'
        "</svg>"
    )


def verdict_plots(numbers: Mapping[str, Any]) -> list[str]:
    """The gate's two tests, where the verdict carries them."""
    plots = []
    for key, name, unit, p in (
        ("net_gain_bps", "Net return gained", "bps", "p_net_return"),
        ("log_loss_gain", "Log loss gained", "", "p_log_loss"),
    ):
        values = [numbers.get(f"{key}_low"), numbers.get(key), numbers.get(f"{key}_high")]
        if all(isinstance(v, int | float) for v in values):
            chance = numbers.get(p)
            note = f"p = {chance:.3f}" if isinstance(chance, int | float) else ""
            plots.append(interval(name, unit, float(values[0]), float(values[1]), float(values[2]), note))  # type: ignore[arg-type]
    return plots


def timeline(spans: Sequence[Mapping[str, Any]], now: datetime) -> str:
    """What answered when: one bar a span, its width its share of the model's life."""
    if not spans:
        return ""
    start = spans[0]["since"]
    whole = max((now - start).total_seconds(), 1.0)
    parts = []
    for index, span in enumerate(spans):
        begin = (span["since"] - start).total_seconds() / whole * WIDTH
        end = ((span["until"] or now) - start).total_seconds() / whole * WIDTH
        width = max(end - begin, 2.0)
        title = (
            f"{'version ' + str(span['version']) if span['version'] else 'no own model'} from "
            f"{span['since']:%Y-%m-%d %H:%M} ({span['change']} by {span['by']})"
        )
        tone = "gone" if span["version"] is None else f"c{index % 4}"
        parts.append(
            f'<g><title>{escape(title)}</title><rect x="{begin:.1f}" y="6" width="{width:.1f}" height="26" '
            f'rx="4" '
            f'class="span {tone}"/>'
        )
        if width > 34:
            shown = f"v{span['version']}" if span["version"] else "–"
            parts.append(
                f'<text x="{begin + width / 2:.1f}" y="24" class="t-span" text-anchor="middle">{shown}</text>'
            )
        parts.append("</g>")
    return (
        f'<svg class="plot timeline" viewBox="0 0 {WIDTH} 54" role="img" aria-label="What answered '
        f'when">{"".join(parts)}'
        f'<text x="0" y="50" class="t-num">{start:%Y-%m-%d}</text>'
        f'<text x="{WIDTH}" y="50" class="t-num" text-anchor="end">{now:%Y-%m-%d}</text></svg>'
    )


def gauge(value: float | None) -> str:
    """A reliability index in 0..1 as a bar."""
    if value is None:
        return ""
    tone = "good" if value >= 0.6 else "wait" if value >= 0.35 else "bad"
    return (
        f'<svg class="gauge" viewBox="0 0 100 8" role="img" aria-label="reliability {value:.2f}">'
        '<rect x="0" y="0" width="100" height="8" rx="4" class="track"/>'
        f'<rect x="0" y="0" width="{max(2.0, 100 * value):.1f}" height="8" rx="4" class="band {tone}"/></svg>'
    )
