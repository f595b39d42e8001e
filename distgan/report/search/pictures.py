"""The pictures of a search."""

from __future__ import annotations

import io
from collections.abc import Iterator

from matplotlib.figure import Figure

from distgan.report.search.curves import curves_figure
from distgan.report.search.keys import keys_figure, parallel_figure
from distgan.search.record import SearchRecord


def draw_pictures(record: SearchRecord) -> Iterator[tuple[str, bytes]]:
    """File names and PNG files: values over kimg, parallel coordinates, values against each key."""
    for name, draw in (("curves", curves_figure), ("parallel", parallel_figure), ("keys", keys_figure)):
        yield f"{name}.png", _png(draw(record))


def _png(figure: Figure) -> bytes:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    return buffer.getvalue()
