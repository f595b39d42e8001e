"""Metrics between two sets of features, by name."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection
from dataclasses import dataclass

from torch import Tensor

from distgan.config.schema import EvaluationConfig
from distgan.errors import UserError
from distgan.evaluation.extractors.extractor import FeatureExtractor
from distgan.evaluation.extractors.published import KNOWN
from distgan.evaluation.metrics.inception_score import SPLITS, InceptionScore, inception_score
from distgan.evaluation.metrics.kid import KernelDistance, kernel_distance
from distgan.evaluation.metrics.prdc import MOST_NEIGHBOURS, manifold
from distgan.text import did_you_mean

_MANIFOLD = frozenset({"precision", "recall", "density", "coverage"})

NEEDS_REAL_FEATURES = _MANIFOLD | {"kernel"}

_HIGHER_IS_BETTER = _MANIFOLD | {"inception_score"}

# Extractors whose distances have the published names, and what their names add.
_PUBLISHED = {"fid": "", "fid_clean": "_clean"}


def higher_is_better(measure: str) -> bool:
    """Whether better images give a measure a greater value."""
    return measure in _HIGHER_IS_BETTER


def metric_name(measure: str, extractor: str, samples: int, whole: bool = False) -> str:
    """How a measure over so many samples is called: `fid50k_full`, `kid10k`, `fd_lite0_2k`, `precision_lite0_500`.

    Only features of the published Inception network make a FID, KID or IS. `whole` says that the real side was all
    images of the data set, which a FID's name tells.
    """
    count = f"{samples // 1000}k" if samples >= 1000 else str(samples)
    if extractor in _PUBLISHED:
        base = {"frechet": "fid", "kernel": "kid", "inception_score": "is"}.get(measure, measure)
        return f"{base}{_PUBLISHED[extractor]}{count}{'_full' if measure == 'frechet' and whole else ''}"
    base = {"frechet": "fd", "kernel": "kd"}.get(measure, measure)
    return f"{base}_{extractor.removeprefix('fd_')}_{count}"


def measures_of(config: EvaluationConfig) -> list[str]:
    """What a configuration has measured beside the Fréchet distance: the monitored measure too."""
    monitored = [] if config.monitor == "frechet" else [config.monitor]
    return list(dict.fromkeys([*config.metrics, *monitored]))


@dataclass(frozen=True)
class Measured:
    """Numbers by name, and the seconds that each name's computation took."""

    values: dict[str, float]
    seconds: dict[str, float]


def check_measures(names: Collection[str], extractor: FeatureExtractor, samples: int, real: int) -> None:
    """Raises UserError where one of the measures cannot be taken of so many samples and real images."""
    if "inception_score" in names and not hasattr(extractor, "logits"):
        raise UserError(f"inception_score needs an extractor with logits, such as fid; {extractor.name} has none")
    least = max(
        MOST_NEIGHBOURS if _MANIFOLD.intersection(names) else 1, SPLITS - 1 if "inception_score" in names else 1
    )
    if min(samples, real) <= least:
        raise UserError(
            f"evaluation.metrics={','.join(names)} needs more than {least} images on either side, but there are "
            f"evaluation.samples={samples} and {real} real images; ask for more"
        )


def measure(names: Collection[str], real: Tensor, fake: Tensor, extractor: FeatureExtractor) -> Measured:
    """The named measures of features (N, d) and (M, d); those that spread over subsets have a `_std` beside them.

    What `check_measures` refuses is not asked for.
    """
    values: dict[str, float] = {}
    seconds: dict[str, float] = {}

    def timed(name: str, compute: Callable[[], dict[str, float]]) -> dict[str, float]:
        begin = time.perf_counter()
        found = compute()
        seconds[name] = time.perf_counter() - begin
        return found

    asked = set(names)
    if "kernel" in asked:
        values |= timed("kernel", lambda: _with_deviation("kernel", kernel_distance(real, fake)))
    if asked & _MANIFOLD:
        found = timed("manifold", lambda: vars(manifold(real, fake)))
        values |= {name: value for name, value in found.items() if name in asked}
    if "inception_score" in asked:
        logits: Callable[[Tensor], Tensor] = extractor.logits  # type: ignore[attr-defined]
        values |= timed("inception_score", lambda: _with_deviation("inception_score", inception_score(logits(fake))))
    return Measured(values, seconds)


def _with_deviation(name: str, found: KernelDistance | InceptionScore) -> dict[str, float]:
    return {name: found.mean, f"{name}_std": found.std}


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
