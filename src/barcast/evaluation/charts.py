"""Charts of the report as inline SVG: matplotlib draws, colours become CSS variables, so that light and dark
both fit.

Series come in as arrays with the model's name; SVG text goes out. matplotlib is imported inside (it is
heavy).
"""

from __future__ import annotations

import io
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np

# Colours that stand for CSS variables; `_to_css` replaces them in the SVG.
INK, MUTED, LINE, PAPER, GOOD, BAD = "#010101", "#020202", "#030303", "#040404", "#050505", "#060606"
SERIES = ("#0a0a01", "#0a0a02", "#0a0a03", "#0a0a04", "#0a0a05", "#0a0a06")
_CSS = {
    INK: "--ink",
    MUTED: "--muted",
    LINE: "--line",
    PAPER: "--paper",
    GOOD: "--good",
    BAD: "--bad",
    **{color: f"--s{k + 1}" for k, color in enumerate(SERIES)},
}


def css_variable(index: int) -> str:
    """The CSS variable of the n-th series' colour, for legends outside the charts."""
    return f"--s{index % len(SERIES) + 1}"


@contextmanager
def _figure(
    name: str, *, width: float = 7.6, height: float = 2.9, rows: int = 1, ratios: Sequence[float] = (1,)
) -> Iterator[Any]:
    import matplotlib

    with matplotlib.rc_context(
        {
            "svg.fonttype": "none",
            "svg.hashsalt": name,
            "font.family": "sans-serif",
            "font.size": 9,
            "text.color": INK,
            "axes.edgecolor": LINE,
            "axes.labelcolor": MUTED,
            "axes.facecolor": "none",
            "xtick.color": MUTED,
            "ytick.color": MUTED,
            "axes.spines.top": False,
            "axes.spines.right": False,
            "axes.grid": True,
            "axes.axisbelow": True,
            "grid.color": LINE,
            "grid.linewidth": 0.7,
            "xtick.major.size": 0,
            "ytick.major.size": 0,
            "legend.frameon": False,
            "path.simplify_threshold": 1.0,
        }
    ):
        from matplotlib.backends.backend_svg import FigureCanvasSVG
        from matplotlib.figure import Figure

        figure = Figure(figsize=(width, height), layout="constrained")
        FigureCanvasSVG(figure)
        axes = figure.subplots(rows, 1, sharex=True, height_ratios=list(ratios), squeeze=False)[:, 0]
        figure.patch.set_alpha(0.0)
        holder: dict[str, str] = {}
        yield figure, axes, holder
        stream = io.StringIO()
        figure.savefig(stream, format="svg", metadata={"Date": None, "Creator": None})
        holder["svg"] = _to_css(stream.getvalue(), name)


def _to_css(svg: str, name: str) -> str:
    svg = svg[svg.index("<svg") :]
    # ids must not meet those of another chart on the page
    svg = re.sub(r'id="([\w.-]+)"', lambda m: f'id="{name}-{m[1]}"', svg)
    svg = re.sub(r'(xlink:href="#|url\(#)([\w.-]+)', lambda m: f"{m[1]}{name}-{m[2]}", svg)
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.S)
    for color, variable in _CSS.items():
        svg = svg.replace(color, f"var({variable})")
    svg = re.sub(r"font: ([\d.]+)px [^;\"]*", r"font: \1px var(--font)", svg)
    return re.sub(
        r'<svg ([^>]*?)width="[\d.]+pt" height="[\d.]+pt"|<svg height="[\d.]+pt"', r"<svg \1", svg, count=1
    )


def _thin(*arrays: np.ndarray, most: int = 700) -> tuple[np.ndarray, ...]:
    """Every k-th point and the last, so that the page stays small."""
    n = len(arrays[0])
    keep = np.unique(np.append(np.arange(0, n, max(1, -(-n // most))), n - 1))
    return tuple(a[keep] for a in arrays)


def equity_and_drawdown(curves: Mapping[str, tuple[np.ndarray, np.ndarray]]) -> str:
    """Equity (start = 1) after costs, and below it the fall from the last peak.

    Args:
        curves: name -> (times datetime64, equity).
    """
    with _figure("equity", height=4.0, rows=2, ratios=(2.2, 1)) as (_, axes, out):
        for k, (name, (times, equity)) in enumerate(curves.items()):
            drawdown = equity / np.maximum.accumulate(np.maximum(equity, 1e-12)) - 1
            t, e, d = _thin(times, equity, drawdown)
            strong = k == 0
            style = {"color": SERIES[k % len(SERIES)], "linewidth": 1.9 if strong else 1.1, "label": name}
            axes[0].plot(t, e, zorder=10 - k, **style)
            if strong:
                axes[1].fill_between(t, d * 100, 0, color=SERIES[0], alpha=0.18, linewidth=0)
            axes[1].plot(t, d * 100, zorder=10 - k, **style)
        axes[0].axhline(1, color=MUTED, linewidth=0.8)
        axes[0].set_ylabel("equity, start = 1")
        axes[1].set_ylabel("drawdown, %")
        axes[1].set_ylim(top=0)
    return str(out["svg"])


def calibration(bands_by_model: Mapping[str, Sequence[Mapping[str, float]]]) -> str:
    """Stated confidence against the share that was right; the dot's area is the share of rows."""
    with _figure("calibration", width=4.2, height=3.4) as (_, axes, out):
        axis = axes[0]
        axis.plot([0, 1], [0, 1], color=MUTED, linewidth=0.9, linestyle=(0, (4, 3)))
        for k, (_name, bands) in enumerate(bands_by_model.items()):
            x = [b["confidence"] for b in bands]
            y = [b["accuracy"] for b in bands]
            axis.plot(x, y, color=SERIES[k], linewidth=1.6 if k == 0 else 1.0, zorder=5 - k)
            axis.scatter(
                x,
                y,
                s=[10 + 160 * b["share"] for b in bands],
                color=SERIES[k],
                alpha=0.75,
                linewidth=0,
                zorder=6 - k,
            )
        axis.set_xlim(0.25, 1)
        axis.set_ylim(0, 1)
        axis.set_xlabel("stated confidence")
        axis.set_ylabel("share right")
    return str(out["svg"])


def coverage(curves: Mapping[str, tuple[np.ndarray, np.ndarray]]) -> str:
    """Share right among the most confident answers, against how many answers are taken."""
    with _figure("coverage", width=4.2, height=3.4) as (_, axes, out):
        for k, (name, (share, accuracy)) in enumerate(curves.items()):
            axes[0].plot(
                share * 100,
                accuracy * 100,
                color=SERIES[k],
                linewidth=1.7 if k == 0 else 1.2,
                label=name,
                linestyle="-" if k == 0 else (0, (5, 2)),
            )
        axes[0].set_xlabel("answers taken, most confident first, %")
        axes[0].set_ylabel("share right, %")
        axes[0].legend(loc="best", labelcolor=INK)
    return str(out["svg"])


def cost_curve(curves: Mapping[str, tuple[np.ndarray, np.ndarray]], paid_bps: float) -> str:
    """Yearly return against the one-way trading cost; the vertical line is the configured cost."""
    with _figure("costs", width=4.2, height=3.0) as (_, axes, out):
        axes[0].axhline(0, color=MUTED, linewidth=0.9)
        axes[0].axvline(paid_bps, color=MUTED, linewidth=0.9, linestyle=(0, (4, 3)))
        for k, (_name, (cost, value)) in enumerate(curves.items()):
            axes[0].plot(
                cost,
                np.asarray(value) * 100,
                color=SERIES[k],
                marker="o",
                markersize=3,
                linewidth=1.7 if k == 0 else 1.1,
            )
        axes[0].set_xlabel("one-way cost, bps")
        axes[0].set_ylabel("return a year, %")
    return str(out["svg"])


def learning_curves(curves: Mapping[str, Mapping[str, Sequence[float]]]) -> str:
    """Loss per epoch: training faint, validation strong, one colour per model."""
    with _figure("learning", width=4.2, height=3.0) as (_, axes, out):
        for k, (_name, series) in enumerate(curves.items()):
            for kind, values in series.items():
                strong = "val" in kind
                axes[0].plot(
                    np.arange(1, len(values) + 1),
                    values,
                    color=SERIES[k % len(SERIES)],
                    linewidth=1.7 if strong else 1.0,
                    linestyle="-" if strong else (0, (3, 2)),
                )
        axes[0].set_xlabel("epoch")
        axes[0].set_ylabel("loss")
        axes[0].xaxis.get_major_locator().set_params(integer=True)
    return str(out["svg"])


def importance(
    names: Sequence[str], values: Sequence[float], spread: Sequence[float] | None = None, *, chart: str
) -> str:
    """Horizontal bars, the largest on top, with the spread over folds where known; `chart` sets its ids apart."""
    n = len(names)
    with _figure(chart, width=7.6, height=0.9 + 0.21 * n) as (_, axes, out):
        place = np.arange(n)[::-1]
        axes[0].barh(
            place,
            values,
            color=SERIES[0],
            height=0.62,
            xerr=spread,
            error_kw={"ecolor": MUTED, "elinewidth": 1},
        )
        axes[0].set_yticks(place, names)
        axes[0].grid(visible=False, axis="y")
        axes[0].margins(y=0.01)
    return str(out["svg"])


def per_period(starts: np.ndarray, accuracy: np.ndarray, majority: float) -> str:
    """Share right per period of time against the commonest class."""
    with _figure("periods", width=4.2, height=3.0) as (figure, axes, out):
        axes[0].plot(starts, accuracy * 100, color=SERIES[0], marker="o", markersize=4, linewidth=1.7)
        axes[0].axhline(majority * 100, color=MUTED, linewidth=0.9, linestyle=(0, (4, 3)))
        axes[0].set_ylabel("share right, %")
        figure.autofmt_xdate(rotation=30)
    return str(out["svg"])


def attention(weights: Sequence[float]) -> str:
    """Mean attention of each bar of the window, the newest at the right; dashed: attention spread evenly."""
    bars = np.arange(1 - len(weights), 1)
    with _figure("attention", width=4.2, height=3.0) as (_, axes, out):
        axes[0].fill_between(bars, np.asarray(weights) * 100, 0, color=SERIES[0], alpha=0.18, linewidth=0)
        axes[0].plot(bars, np.asarray(weights) * 100, color=SERIES[0], linewidth=1.7)
        axes[0].axhline(100 / len(weights), color=MUTED, linewidth=0.9, linestyle=(0, (4, 3)))
        axes[0].set_ylim(bottom=0)
        axes[0].set_xlabel("bars before the decision")
        axes[0].set_ylabel("share of attention, %")
    return str(out["svg"])


def gain(times: np.ndarray, ratio: np.ndarray) -> str:
    """One account divided by another, less one, in percent, over time."""
    with _figure("gain", height=2.3) as (_, axes, out):
        t, r = _thin(times, ratio)
        axes[0].axhline(0, color=MUTED, linewidth=0.9)
        axes[0].plot(t, (r - 1) * 100, color=SERIES[0], linewidth=1.6)
        axes[0].fill_between(t, (r - 1) * 100, 0, color=SERIES[0], alpha=0.14, linewidth=0)
        axes[0].set_ylabel("ahead, %")
    return str(out["svg"])
