"""Losses and distance of a run as a picture, and the style of all pictures."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter, NullLocator
from numpy.typing import NDArray

from distgan.tracking.formatting import kimg_count, number, start_name

# Okabe and Ito's colors, for color-blind readers.
BLUE = "#0072B2"

ORANGE = "#D55E00"

GREEN = "#009E73"

PINK = "#CC79A7"

GRAY = "#666666"

_LOG_RATIO = 10


def style(axes: Axes, label: str) -> None:
    """Sets a light grid, no frame, and the vertical axis's label."""
    axes.set_ylabel(label)
    axes.grid(color="#dddddd", linewidth=0.6)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)


def note(axes: Axes, text: str) -> None:
    """Explains empty axes in their middle."""
    axes.set_yticks([])
    axes.text(0.5, 0.5, text, transform=axes.transAxes, ha="center", va="center", color=GRAY)


def is_wide(values: NDArray[np.float64], ratio: float = _LOG_RATIO) -> bool:
    """Whether values need a logarithmic axis: all positive, the largest more than `ratio` times the smallest."""
    low, high = float(values.min()), float(values.max())
    return low > 0 and high / low > ratio


def scale(axes: Axes, values: NDArray[np.float64], ratio: float = _LOG_RATIO) -> None:
    """Scales the vertical axis to at least one value: from zero, or logarithmic if they are wide."""
    low, high = float(values.min()), float(values.max())
    if is_wide(values, ratio):
        axes.set_yscale("log")
        axes.set_ylim(low / 1.3, high * 1.3)
        axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.yaxis.set_minor_locator(NullLocator())
        axes.yaxis.set_minor_formatter(NullFormatter())
    else:
        axes.set_ylim(min(0.0, low), high + 0.05 * (high - min(0.0, low)) or 1.0)
    axes.yaxis.set_major_formatter(FuncFormatter(plain))


def plain(value: float, _: int | None) -> str:
    """A tick's label without an exponent: `1,000`."""
    return f"{value:,.10g}"


_LOSSES = {"generator": BLUE, "discriminator": ORANGE, "adversarial": GREEN, "penalty": PINK}

_STYLES = {"adversarial": "--", "penalty": "--"}  # the parts of a discriminator's loss with a penalty

_SMOOTHING = 40

_FEW = 40

_Array = NDArray[np.float64]


def draw_curves(rows: Sequence[dict[str, Any]], path: Path, *, title: str = "", floor: float | None = None) -> None:
    """Draws the rows of a `metrics.jsonl` as a PNG: losses above, distance below, over kimg.

    Args:
        rows: of `distgan.tracking.jsonl.read_rows`; may be empty.
        path: the PNG file to write.
        title: the run's name.
        floor: distance of real images, a dashed line.
    """
    figure = Figure(figsize=(9, 7), dpi=130, layout="constrained")
    upper, lower = figure.subplots(2, 1, sharex=True)
    _draw_losses(upper, [row for row in rows if row["event"] == "step"])
    _draw_distance(lower, [row for row in rows if row["event"] == "evaluation"], floor)
    lower.set_xlabel("kimg (thousands of real images)")
    lower.set_xlim(left=0)
    lower.xaxis.set_major_formatter(FuncFormatter(plain))
    figure.suptitle(title, fontsize=13, fontweight="bold")
    figure.savefig(path, format="png")


def _draw_losses(axes: Axes, rows: Sequence[dict[str, Any]]) -> None:
    style(axes, "loss")
    kimg = np.array([row["kimg"] for row in rows], dtype=np.float64)
    shown = []
    for name, color in _LOSSES.items():
        values = _column(rows, f"loss/{name}")
        if not np.isfinite(values).any():
            continue
        few = len(values) <= _FEW
        axes.plot(kimg, values, color=color, linewidth=0.8, alpha=0.3, marker="o" if few else "", markersize=3)
        axes.plot(kimg, _smoothed(values), color=color, linewidth=1.8, linestyle=_STYLES.get(name, "-"), label=name)
        shown.append(values[np.isfinite(values)])
    if not shown:
        note(axes, "no losses recorded")
        return
    _limit(axes, np.concatenate(shown))
    _legend(axes, len(shown))


def _draw_distance(axes: Axes, rows: Sequence[dict[str, Any]], floor: float | None) -> None:
    rows = [row for row in rows if row["value"] is not None]
    if not rows:
        style(axes, "distance")
        note(axes, "no evaluation yet")
        return
    last = rows[-1]
    metric = last["metric"]
    rows = [row for row in rows if row["metric"] == metric]
    kimg, distance = _column(rows, "kimg"), _column(rows, "value")
    style(axes, f"{metric} ({'higher' if last['higher_is_better'] else 'lower'} is better)")
    axes.plot(kimg, distance, color=BLUE, linewidth=1.8, marker="o", markersize=4, label=metric)
    if rows[0]["step"] == 0:
        label = f"{start_name(bool(rows[0].get('given')))}: {number(distance[0])}"
        axes.plot(kimg[0], distance[0], "s", color=GRAY, markersize=8, label=label, clip_on=False)
    if last["best"] is not None:
        label = f"best: {number(last['best'])} at {kimg_count(last['best_kimg'])} kimg"
        place = last["best_kimg"], last["best"]
        axes.plot(*place, "*", color=ORANGE, markersize=15, label=label, zorder=4, clip_on=False)
    if floor is not None:
        axes.axhline(floor, color=GRAY, linestyle="--", linewidth=1.2, label=f"floor: {number(floor)}")
    scale(axes, np.append(distance, [] if floor is None else [floor]))
    _legend(axes, 4)


def _limit(axes: Axes, values: _Array) -> None:
    """Cuts off rare spikes, which would flatten everything else."""
    cut = (0.0, 100.0) if len(values) <= _FEW else (0.5, 99.5)
    low, high = np.percentile(values, cut)
    margin = 0.08 * (high - low) or 1.0
    axes.set_ylim(float(low - margin), float(high + margin))


def _smoothed(values: _Array) -> _Array:
    """Centered mean over a twentieth of the rows, with a Hann window; missing values do not count."""
    half = len(values) // _SMOOTHING + 1
    window = np.hanning(2 * half + 1)
    known = np.isfinite(values)
    sums = np.convolve(np.where(known, values, 0.0), window)[half:-half]
    weights = np.convolve(known.astype(np.float64), window)[half:-half]
    smooth: _Array = np.divide(sums, weights, out=np.full(len(values), np.nan), where=weights > 0)
    return smooth


def _column(rows: Sequence[dict[str, Any]], name: str) -> _Array:
    """One value a row; NaN where a row has none."""
    return np.array([np.nan if row.get(name) is None else row[name] for row in rows], dtype=np.float64)


def _legend(axes: Axes, columns: int) -> None:
    axes.legend(loc="lower right", bbox_to_anchor=(1, 1), ncols=columns, frameon=False, borderaxespad=0.2)
