"""Metrics against torch-fidelity on the same features, and the vision transformer against timm's with the same weights.

python -m benchmarks.fidelity FOLDER [--samples N] [--features N]

FOLDER has both packages, beside no others: pip install --no-deps --target FOLDER torch-fidelity==0.4.0 timm==1.0.31.
Both import torchvision, which is not needed here; empty modules stand in for it. Features and weights are drawn.
"""

from __future__ import annotations

import argparse
import importlib
import sys
from collections.abc import Sequence
from typing import Any
from unittest.mock import MagicMock

import numpy as np
import torch
from rich.table import Table
from torch import Tensor

from benchmarks.evaluation import draw_features
from benchmarks.report import console, machine
from distgan.evaluation.extractors.dinov2 import Dinov2FeaturesS14
from distgan.evaluation.extractors.inception import FEATURES
from distgan.evaluation.extractors.vision_transformer import VisionTransformer
from distgan.evaluation.feature_statistics import FeatureSums, GaussianStatistics
from distgan.evaluation.metrics.frechet import frechet_distance
from distgan.evaluation.metrics.kid import SUBSET_SIZE, SUBSETS, kernel_distance
from distgan.evaluation.metrics.prdc import PRECISION_NEIGHBORS, prdc

_TORCHVISION = (
    "",
    ".datasets",
    ".models",
    ".ops",
    ".ops.misc",
    ".transforms",
    ".transforms.functional",
    ".utils",
)

_KID = {"kid_kernel": "poly", "kid_kernel_poly_degree": 3, "kid_kernel_poly_gamma": None, "kid_kernel_poly_coef0": 1}


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", help="torch-fidelity and timm")
    parser.add_argument("--samples", type=int, default=5000, help="images of each set")
    parser.add_argument("--features", type=int, default=FEATURES, help="length of a feature vector")
    given = parser.parse_args(arguments)
    sys.path.append(given.folder)
    sys.modules.update({f"torchvision{name}": MagicMock() for name in _TORCHVISION})
    real, fake = (features[:, : given.features].contiguous() for features in draw_features(given.samples))
    table = Table("", "distgan", "other", "relative difference", title_justify="left")
    table.title = f"two sets of {len(real):,} x {real.shape[1]:,} features against torch-fidelity"
    for name, ours, theirs in against_torch_fidelity(real, fake):
        table.add_row(name, f"{ours:.9g}", f"{theirs:.9g}", f"{abs(ours - theirs) / abs(theirs):.1e}")
    console.print(table)
    largest, size = against_timm()
    console.print(f"ViT-S/14 of drawn weights against timm: features, {size:.3g} on average, differ by {largest:.1e}")
    console.print(machine())


def against_torch_fidelity(real: Tensor, fake: Tensor) -> list[tuple[str, float, float]]:
    """FID, KID, precision and recall by name, of distgan and of torch-fidelity."""
    fid, kid, prc = (importlib.import_module(f"torch_fidelity.metric_{name}") for name in ("fid", "kid", "prc"))
    statistics = [fid.fid_features_to_statistics(features.double()) for features in (fake, real)]
    theirs = fid.fid_statistics_to_metric(*statistics, False)[fid.KEY_METRIC_FID]
    found = [("Fréchet distance", frechet_distance(_statistics(fake), _statistics(real)), theirs)]
    ours = _kernel_distances(kid, real, fake)
    found += [(f"kernel distance, {name}, same subsets", *values) for name, values in ours.items()]
    own = kernel_distance(real, fake).mean
    found.append(("kernel distance, mean, each by its own subsets", own, ours["mean"][1]))
    parts = prdc(real, fake)
    precision, recall = prc.calculate_precision_recall_full(fake, real, PRECISION_NEIGHBORS)
    return [*found, ("precision", parts.precision, precision), ("recall", parts.recall, recall)]


def _kernel_distances(kid: Any, real: Tensor, fake: Tensor) -> dict[str, tuple[float, float]]:
    """Mean and standard deviation over the subsets that torch-fidelity draws, of distgan and of torch-fidelity."""
    size = min(SUBSET_SIZE, len(real))
    random = np.random.default_rng(0)
    values = []
    for _ in range(SUBSETS):
        one, other = (each[random.choice(len(each), size, replace=False)] for each in (fake.double(), real.double()))
        own = kernel_distance(other, one, subsets=1, subset_size=size).mean
        values.append((own, float(kid.kernel_mmd(one.numpy(), other.numpy(), **_KID))))
    ours, theirs = np.array(values).T
    return {
        "mean": (float(ours.mean()), float(theirs.mean())),
        "deviation": (float(ours.std()), float(theirs.std())),
    }


def against_timm() -> tuple[float, float]:
    """The largest difference of features of drawn weights, and the features' mean size.

    timm interpolates positions otherwise, so it is given those of the grid of 224 pixels.
    """
    timm = importlib.import_module("timm")
    sizes = Dinov2FeaturesS14
    ours = VisionTransformer(sizes.dimension, sizes.depth, sizes.heads).requires_grad_(False).eval()
    random = torch.Generator().manual_seed(0)
    for parameter in ours.parameters():
        scale = 0.02 if parameter.ndim > 1 and len(parameter) > 1 else 0.3
        parameter.copy_(torch.randn(parameter.shape, generator=random) * scale)
    theirs = timm.create_model("vit_small_patch14_dinov2", pretrained=False, num_classes=0, img_size=sizes.image_size)
    weights = {name: value for name, value in ours.state_dict().items() if name != "mask_token"}
    grid = sizes.image_size // 14
    theirs.load_state_dict({**weights, "pos_embed": ours.positions(grid, grid)})
    images = torch.randn(8, 3, sizes.image_size, sizes.image_size, generator=random)
    with torch.inference_mode():
        features, expected = ours(images), theirs.eval()(images)
    return float((features - expected).abs().max()), float(expected.abs().mean())


def _statistics(features: Tensor) -> GaussianStatistics:
    sums = FeatureSums.zeros(features.shape[1])
    sums.update(features)
    return sums.statistics()


if __name__ == "__main__":
    main()
