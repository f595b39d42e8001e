"""Measures by the short names that a command line takes."""

from __future__ import annotations

from dataclasses import dataclass

from distgan.config.suggest import did_you_mean
from distgan.errors import UserError
from distgan.metrics.known import KNOWN

_MEASURES: dict[str, tuple[str, ...]] = {
    "frechet": ("frechet",),
    "kernel": ("kernel",),
    "kid": ("kernel",),
    "precision": ("precision",),
    "recall": ("recall",),
    "pr": ("precision", "recall"),
    "density": ("density",),
    "coverage": ("coverage",),
    "dc": ("density", "coverage"),
    "inception_score": ("inception_score",),
    "is": ("inception_score",),
}


@dataclass(frozen=True)
class Asked:
    """Measures as the configuration calls them, `frechet` among them, and the extractor that their names choose."""

    measures: tuple[str, ...]
    extractor: str | None = None


def parse_metrics(text: str) -> Asked:
    """Names joined by commas: a measure, a short name for one or two, or the Fréchet distance by an extractor's name.

    Raises UserError for a name that there is not, and for two extractors.
    """
    measures: list[str] = []
    extractors: list[str] = []
    for name in (part.strip() for part in text.split(",")):
        if name in KNOWN:
            extractors.append(name)
        elif name not in _MEASURES:
            raise UserError(f"--metrics: unknown metric {name!r:.80}{did_you_mean(name, [*_MEASURES, *KNOWN])}")
        measures += _MEASURES.get(name, ("frechet",))
    if len(set(extractors)) > 1:
        raise UserError(
            f"--metrics {text}: {' and '.join(dict.fromkeys(extractors))} are distances by different extractors; "
            f"ask for one at a time"
        )
    return Asked(tuple(dict.fromkeys(measures)), extractors[0] if extractors else None)
