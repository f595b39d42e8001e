"""The interface of metrics: a metric is a class, in a file here or in a user's module."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, ClassVar, Literal, TypeVar

from torch import Tensor

from distgan.errors import UserError
from distgan.evaluation.feature_statistics import GaussianStatistics

Need = Literal["statistics", "features", "real_features", "logits"]

# Extractors of the published Inception features, and what they add to a metric's name.
_INCEPTION = {"fid": "", "fid_clean": "_clean"}

T = TypeVar("T")


@dataclass(frozen=True)
class MeanStd:
    """A value that spreads over subsets of the images: its mean and standard deviation."""

    mean: float
    std: float


@dataclass(frozen=True)
class MetricInputs:
    """The inputs of metrics. Only what one of the metrics `needs` is filled in, and always the statistics.

    Attributes:
        fake_statistics, real_statistics: mean and covariance of all features, float64 on the CPU.
        fake_features: features of the images under test in their order, float32 (M, d).
        real_features: features of real images, float32 (N, d), on the device of `fake_features`.
        classify: the extractor's classifier, features (M, d) to logits (M, classes).
    """

    fake_statistics: GaussianStatistics
    real_statistics: GaussianStatistics
    fake_features: Tensor
    real_features: Tensor
    classify: Callable[[Tensor], Tensor] | None = None
    _shared: dict[Callable[..., Any], Any] = field(default_factory=dict)

    @cached_property
    def logits(self) -> Tensor:
        """Class logits of the images under test, (M, classes)."""
        assert self.classify is not None, "the metric does not list 'logits' in its needs"
        return self.classify(self.fake_features)

    def shared(self, compute: Callable[[MetricInputs], T]) -> T:
        """`compute(self)`, run once for all metrics that share it."""
        if compute not in self._shared:
            self._shared[compute] = compute(self)
        found: T = self._shared[compute]
        return found


class Metric:
    """A number for the quality of images. A subclass sets the attributes and has `compute`.

    Attributes:
        name: as the configuration calls it; small letters, digits and `_`.
        aliases: further names for `--metrics`. Metrics with a common alias are all meant by it.
        higher_is_better: whether better images have a higher value.
        needs: what it computes from (`MetricInputs`). `statistics` alone needs no features in memory.
        min_images: how many images either side must have.
        label, inception_label: its name in reports, and on the published Inception features; `name` by default.
        group: name for the time of metrics that share a computation; `name` by default.
    """

    name: ClassVar[str]
    aliases: ClassVar[tuple[str, ...]] = ()
    higher_is_better: ClassVar[bool] = False
    needs: ClassVar[tuple[Need, ...]] = ("features", "real_features")
    min_images: ClassVar[int] = 2
    label: ClassVar[str | None] = None
    inception_label: ClassVar[str | None] = None
    group: ClassVar[str | None] = None

    def compute(self, inputs: MetricInputs) -> float | MeanStd:
        """The value, with its standard deviation where it spreads over subsets. Runs on rank 0 alone."""
        raise NotImplementedError

    @classmethod
    def report_name(cls, extractor: str, samples: int, whole: bool = False) -> str:
        """Its name over so many samples: `fid50k_full`, `kid10k`, `fd_lite0_2k`, `precision_lite0_500`.

        Only features of the published Inception network make a FID, KID or IS. `whole` says that all images of the
        data set are on the real side.
        """
        count = f"{samples // 1000}k" if samples >= 1000 else str(samples)
        label = cls.label or cls.name
        if cls.is_inception(extractor):
            return f"{cls.inception_label or label}{_INCEPTION[extractor]}{count}"
        return f"{label}_{extractor.removeprefix('fd_')}_{count}"

    @staticmethod
    def is_inception(extractor: str) -> bool:
        """Whether the extractor's features are those that papers report."""
        return extractor in _INCEPTION


def check_custom(metric: type[Any], where: str) -> None:
    """Raises UserError, naming `where`, for a custom class that is no metric."""
    if not issubclass(metric, Metric) or metric.compute is Metric.compute:
        raise UserError(f"{where}: it must be a subclass of distgan.evaluation.metrics.metric.Metric with `compute`")
    name = getattr(metric, "name", None)
    if not isinstance(name, str) or not name.isidentifier() or name != name.lower():
        raise UserError(f"{where}: its `name` is {name!r:.80}; use small letters, digits and '_'")
