"""What an evaluation costs beside its network: features of 2,048 numbers, as the published FID's.

python -m benchmarks.evaluation [frechet|rest] [--samples N]
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from rich.table import Table
from scipy.linalg import sqrtm  # type: ignore[import-untyped]
from torch import Tensor

from benchmarks.report import console, machine, print_ratio
from distgan.evaluation.extractors.fid import InceptionFeatures
from distgan.evaluation.extractors.inception import FEATURES, InceptionV3
from distgan.evaluation.feature_statistics import FeatureSums, GaussianStatistics
from distgan.evaluation.metrics.frechet import frechet_distance
from distgan.evaluation.metrics.kid import kernel_distance
from distgan.evaluation.metrics.prdc import prdc

_TIMED_IMAGES = 64


def frechet(samples: int, repeats: int) -> None:
    """The distance from symmetric decompositions against the form with scipy's matrix square root."""
    one, other = (_statistics(features) for features in draw_features(samples))
    ours, theirs = [], []
    values: dict[str, float] = {}
    for _ in range(repeats):
        ours.append(_seconds(lambda: values.update(ours=frechet_distance(one, other))))
        theirs.append(_seconds(lambda: values.update(theirs=_with_sqrtm(one, other))))
    table = Table("Fréchet distance", "seconds", "value", title=f"{samples:,} x {FEATURES}", title_justify="left")
    table.add_row("singular values", f"{statistics.median(ours):.2f}", f"{values['ours']:.9g}")
    table.add_row("scipy's sqrtm", f"{statistics.median(theirs):.2f}", f"{values['theirs']:.9g}")
    console.print(table)
    print_ratio("sqrtm / singular values", statistics.median(theirs) / statistics.median(ours), 3.0)


def all_but_the_network(samples: int, repeats: int) -> None:
    """Everything but the network, against the network on so many images (timed on a few of them, drawn weights)."""
    with tempfile.TemporaryDirectory() as folder:
        weights = Path(folder) / "drawn.pth"
        torch.save(InceptionV3().state_dict(), weights)
        extractor = InceptionFeatures("cpu", weights)
    images = torch.randint(0, 256, (_TIMED_IMAGES, 3, 32, 32), dtype=torch.uint8)
    extractor(images[:8])
    forward = statistics.median(_seconds(lambda: extractor(images)) for _ in range(repeats)) * samples / _TIMED_IMAGES
    real, fake = draw_features(samples)
    one = _statistics(real)
    parts: dict[str, Callable[[], object]] = {
        "sums and Fréchet distance": lambda: frechet_distance(one, _statistics(fake)),
        "kernel distance": lambda: kernel_distance(real, fake),
        "precision, recall, density, coverage": lambda: prdc(real, fake),
    }
    table = Table("what", "seconds", "of the network's", title=f"{samples:,} x {FEATURES}", title_justify="left")
    table.add_row(f"the network ({_TIMED_IMAGES} images, scaled up)", f"{forward:.1f}", "")
    total = 0.0
    for name, compute in parts.items():
        seconds = _seconds(compute)
        total += seconds
        table.add_row(name, f"{seconds:.1f}", f"{seconds / forward:.1%}")
    table.add_row("all of them", f"{total:.1f}", f"{total / forward:.1%}")
    console.print(table)


def draw_features(samples: int) -> tuple[Tensor, Tensor]:
    """Two sets that are not negative and of unequal directions, as pooled ReLU features are."""
    random = torch.Generator().manual_seed(0)
    mixing = torch.randn(FEATURES, FEATURES, generator=random) * torch.logspace(0, -2, FEATURES)
    sets = torch.randn(2, samples, FEATURES, generator=random) @ mixing
    return (sets[0] / 20).relu(), (sets[1] / 20 + 0.05).relu()


def _statistics(features: Tensor) -> GaussianStatistics:
    sums = FeatureSums.zeros(FEATURES)
    for part in torch.split(features, 64):
        sums.update(part)
    return sums.statistics()


def _with_sqrtm(one: GaussianStatistics, other: GaussianStatistics) -> float:
    root = sqrtm(one.covariance.numpy() @ other.covariance.numpy())
    apart = float((one.mean - other.mean).square().sum())
    return apart + float(one.covariance.trace() + other.covariance.trace()) - 2 * float(np.trace(root).real)


def _seconds(compute: Callable[[], object]) -> float:
    begin = time.perf_counter()
    compute()
    return time.perf_counter() - begin


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("frechet", "rest"))
    parser.add_argument("--samples", type=int, default=10_000)
    parser.add_argument("--repeats", type=int, default=3)
    arguments = parser.parse_args()
    measure = {"frechet": frechet, "rest": all_but_the_network}[arguments.what]
    console.print(machine())
    measure(arguments.samples, arguments.repeats)


if __name__ == "__main__":
    main()
