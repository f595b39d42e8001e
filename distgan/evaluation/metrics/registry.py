"""Metrics by name: those of `config.plugins.METRICS`, and custom ones as `module:Class`."""

from __future__ import annotations

import math
import time
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from typing import Any

from distgan.config.plugins import EXTRACTORS, METRICS, error_text, is_custom
from distgan.config.schema import EvaluationConfig
from distgan.errors import UserError
from distgan.evaluation.extractors.extractor import FeatureExtractor
from distgan.evaluation.metrics.metric import MeanStd, Metric, MetricInputs, check_custom
from distgan.text import did_you_mean

FRECHET = "frechet"


def metric_class(name: str) -> type[Metric]:
    """The class of a metric. Raises UserError where there is none, or a custom class is no metric."""
    found: type[Metric] = METRICS.resolve(name)
    if is_custom(name):
        check_custom(found, f"evaluation.metrics={name}")
        if found.name in METRICS or found.name in _aliases():
            raise UserError(
                f"evaluation.metrics={name}: another metric is called {found.name!r:.80}; use another `name`"
            )
    return found


def higher_is_better(name: str) -> bool:
    """Whether better images have a higher value."""
    return metric_class(name).higher_is_better


def metric_name(name: str, extractor: str, samples: int, whole: bool = False) -> str:
    """A metric's name in reports (`Metric.report_name`)."""
    return metric_class(name).report_name(extractor, samples, whole)


def further_metrics(config: EvaluationConfig) -> list[str]:
    """The metrics of a configuration beside the Fréchet distance, the monitored one included."""
    return [name for name in dict.fromkeys([*config.metrics, config.monitor]) if name != FRECHET]


def needed(names: Iterable[str]) -> set[str]:
    """What the metrics compute from (`metric.Need`)."""
    return {need for name in names for need in metric_class(name).needs}


def check_metrics(names: Collection[str], extractor: FeatureExtractor, samples: int, real: int) -> None:
    """Raises UserError where one of the metrics cannot be computed from so many samples and real images."""
    for name in names:
        if "logits" in metric_class(name).needs and not hasattr(extractor, "logits"):
            raise UserError(f"{name} needs an extractor with logits, such as fid; {extractor.name} has none")
    least = max((metric_class(name).min_images for name in names), default=2)
    if min(samples, real) < least:
        raise UserError(
            f"evaluation.metrics={','.join(names)} needs at least {least} images on either side, but there are "
            f"evaluation.samples={samples} and {real} real images; ask for more"
        )


def check_configured_metrics(config: EvaluationConfig, images: int) -> None:
    """Raises UserError for metrics that no evaluation on a data set of so many images can compute.

    It loads no network. What a custom extractor has is not known before it is built.
    """
    if is_custom(config.extractor):
        return
    names = further_metrics(config)
    real = min(images, config.real_samples or images) if "real_features" in needed(names) else config.samples
    check_metrics(names, EXTRACTORS.resolve(config.extractor), config.samples, real)


def check_statistics_suffice(config: EvaluationConfig) -> None:
    """Raises UserError for metrics of real features beside a file of statistics, which has none."""
    beyond = [name for name in further_metrics(config) if "real_features" in metric_class(name).needs]
    if config.statistics is not None and beyond:
        raise UserError(
            f"evaluation: a file of statistics has no features of real images, which {', '.join(beyond)} "
            f"need{'s' if len(beyond) == 1 else ''}; compare with images, or use the Fréchet distance alone"
        )


@dataclass(frozen=True)
class MetricValues:
    """Values by the configuration's names, `NAME_std` for standard deviations; seconds by `Metric.group`."""

    values: dict[str, float]
    seconds: dict[str, float]


def compute_metrics(names: Iterable[str], inputs: MetricInputs) -> MetricValues:
    """Computes the metrics in their order. Raises UserError where a custom one fails."""
    values: dict[str, float] = {}
    seconds: dict[str, float] = {}
    for name in names:
        metric = metric_class(name)()
        begin = time.perf_counter()
        found = _compute_custom(name, metric, inputs) if is_custom(name) else metric.compute(inputs)
        group = timed_as(name)
        seconds[group] = seconds.get(group, 0.0) + time.perf_counter() - begin
        if isinstance(found, MeanStd):
            values |= {name: found.mean, f"{name}_std": found.std}
        else:
            values[name] = found
    return MetricValues(values, seconds)


def timed_as(name: str) -> str:
    """The key of a metric in `MetricValues.seconds`."""
    metric = metric_class(name)
    return metric.group or metric.name


def _compute_custom(name: str, metric: Metric, inputs: MetricInputs) -> float | MeanStd:
    try:
        found: Any = metric.compute(inputs)
    except Exception as error:
        raise UserError(f"evaluation.metrics={name}: it raised {error_text(error)}") from error
    numbers = (found.mean, found.std) if isinstance(found, MeanStd) else (found,)
    if not all(isinstance(number, int | float) and math.isfinite(number) for number in numbers):
        raise UserError(f"evaluation.metrics={name}: it computed {found!r:.80}; return a finite float, or a MeanStd")
    return MeanStd(*map(float, numbers)) if isinstance(found, MeanStd) else float(found)


@dataclass(frozen=True)
class MetricRequest:
    """Metrics by the configuration's names, and the extractor that a name like `fid` chooses."""

    metrics: tuple[str, ...]
    extractor: str | None = None


def parse_metrics(text: str) -> MetricRequest:
    """Names joined by commas: a metric's, an alias, an extractor's for its Fréchet distance, or `module:Class`.

    Raises UserError for an unknown name, and for two extractors.
    """
    metrics: list[str] = []
    extractors: list[str] = []
    aliases = _aliases()
    for name in (part.strip() for part in text.split(",")):
        if is_custom(name):
            metric_class(name)
            metrics.append(name)
        elif name in EXTRACTORS:
            extractors.append(name)
            metrics.append(FRECHET)
        elif name in METRICS:
            metrics.append(name)
        elif name in aliases:
            metrics += aliases[name]
        else:
            known = [*METRICS, *aliases, *EXTRACTORS]
            raise UserError(f"--metrics: unknown metric {name!r:.80}{did_you_mean(name, known)}")
    if len(set(extractors)) > 1:
        raise UserError(
            f"--metrics {text}: {' and '.join(dict.fromkeys(extractors))} are distances by different extractors; "
            f"ask for one at a time"
        )
    return MetricRequest(tuple(dict.fromkeys(metrics)), extractors[0] if extractors else None)


def _aliases() -> dict[str, list[str]]:
    """The metrics that each alias stands for."""
    found: dict[str, list[str]] = {}
    for name in METRICS:
        for alias in METRICS.resolve(name).aliases:
            found.setdefault(alias, []).append(name)
    return found
