"""The pictures of a search."""

from __future__ import annotations

import io
from collections.abc import Iterator

from matplotlib.figure import Figure

from distgan.report.search.curves import curves_figure
from distgan.report.search.keys import keys_figure, parallel_figure
from distgan.search.ranking import leaderboard
from distgan.search.record import SearchRecord
from distgan.search.trials import Trial

_MOST_DRAWN = 200  # a trial takes 20 ms


def draw_pictures(record: SearchRecord) -> Iterator[tuple[str, bytes]]:
    """File names and PNG files: values over kimg, parallel coordinates, values against each key.

    Of a search of many trials they show the best.
    """
    record = _of_the_best(record)
    for name, draw in (("curves", curves_figure), ("parallel", parallel_figure), ("keys", keys_figure)):
        yield f"{name}.png", _png(draw(record))


def _of_the_best(record: SearchRecord) -> SearchRecord:
    if len(record.trials) <= _MOST_DRAWN:
        return record
    rank = {one.trial.number: place for place, one in enumerate(leaderboard(record.plan, record.trials))}

    def place(trial: Trial) -> int:
        return rank.get(trial.number if trial.repeats is None else trial.repeats, len(rank))

    best = sorted(sorted(record.trials, key=place)[:_MOST_DRAWN], key=lambda trial: trial.number)
    name = f"{record.name}: the best {_MOST_DRAWN} of {len(record.trials):,} trials"
    return record.model_copy(update={"name": name, "trials": best})


def _png(figure: Figure) -> bytes:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    return buffer.getvalue()
