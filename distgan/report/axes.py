"""How the axes of all pictures look."""

from __future__ import annotations

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter, NullLocator
from numpy.typing import NDArray

# Okabe and Ito's colours, told apart by colour-blind readers.
BLUE = "#0072B2"
ORANGE = "#D55E00"
GREEN = "#009E73"
PINK = "#CC79A7"
GREY = "#666666"

_LOG_RATIO = 10


def style(axes: Axes, label: str) -> None:
    """A quiet grid and no frame; `label` names the vertical axis."""
    axes.set_ylabel(label)
    axes.grid(color="#dddddd", linewidth=0.6)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)


def note(axes: Axes, text: str) -> None:
    """Says in the middle of empty axes why they are."""
    axes.set_yticks([])
    axes.text(0.5, 0.5, text, transform=axes.transAxes, ha="center", va="center", color=GREY)


def is_wide(values: NDArray[np.float64], ratio: float = _LOG_RATIO) -> bool:
    """Whether values are shown by their logarithm: positive ones, the largest more than `ratio` times the smallest."""
    low, high = float(values.min()), float(values.max())
    return low > 0 and high / low > ratio


def scale(axes: Axes, values: NDArray[np.float64], ratio: float = _LOG_RATIO) -> None:
    """The vertical axis for some values, at least one: from zero on, or logarithmic where they are wide."""
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
