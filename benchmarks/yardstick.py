"""Distances of known images from real ones, to compare a run's distance with.

python -m benchmarks.yardstick --data URL --held-out URL [--extractor NAME] [--samples N]

Both are data sets of `distgan data`, of the same kind of images. The reference is all of `--data`; measured are images
of `--held-out`: unchanged in several counts, blurred, noisy, and only of one class (repeated).
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFilter
from rich.table import Table

import distgan
from benchmarks.report import console, machine
from distgan.config.schema import DataConfig
from distgan.data.dataset import Dataset
from distgan.data.index import Index
from distgan.storage.storage import Storage

Images = NDArray[np.uint8]  # (N, H, W, C)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True, help="URL of the reference")
    parser.add_argument("--held-out", required=True, help="URL of other real images")
    parser.add_argument("--extractor", default="fd_lite0")
    parser.add_argument("--samples", type=int, default=2048, help="images of each changed set")
    given = parser.parse_args(arguments)
    reference = Index.load(Storage.open(given.data)).header.samples
    table = Table(title=f"{given.extractor} against {reference:,} real images", title_justify="left")
    table.add_column("images")
    table.add_column("count", justify="right")
    table.add_column("distance", justify="right")
    for name, images in image_sets(given.held_out, given.samples):
        result = distgan.evaluate(images, data=given.data, extractor=given.extractor, progress=False)
        table.add_row(name, f"{len(images):,}", f"{next(iter(result.metrics.values())):.4g}")
    console.print(table)
    console.print(machine())


def image_sets(url: str, samples: int) -> list[tuple[str, Images]]:
    """Named sets of images: real ones in several counts, and the first `samples` of them changed."""
    index = Index.load(Storage.open(url))
    images = read_images(url, np.arange(len(index)))
    sets = [("real", images[: samples * 2**power // 4]) for power in range(5) if samples * 2**power // 4 <= len(images)]
    some = images[:samples]
    sets += [(f"blurred, Gaussian of {radius:g} pixels", blurred(some, radius)) for radius in (0.5, 1, 2)]
    sets += [(f"noisy, Gaussian of {level} gray levels", noisy(some, level)) for level in (4, 16, 64)]
    labels = index.labels
    if (labels >= 0).any():
        largest = int(np.bincount(labels[labels >= 0]).argmax())
        sets.append(("real, of one class", np.resize(images[labels == largest], some.shape)))
    return [*sets, ("gray, all alike", np.full_like(some, 128))]


def read_images(url: str, numbers: NDArray[np.int64]) -> Images:
    """Images of a data set, uint8 (N, H, W, C)."""
    header = Index.load(Storage.open(url)).header
    if header.image_size is None:
        raise SystemExit(f"{url}: its images have several sizes; pack them with one")
    dataset = Dataset.open(DataConfig(url=url), (header.channels, header.image_size, header.image_size))
    return np.stack([image.transpose(1, 2, 0) for _, image in dataset.images(numbers)])


def blurred(images: Images, radius: float) -> Images:
    """The images after Pillow's Gaussian blur."""
    blur = ImageFilter.GaussianBlur(radius)
    changed = [np.asarray(Image.fromarray(image.squeeze()).filter(blur)) for image in images]
    return np.stack(changed).reshape(images.shape)


def noisy(images: Images, level: float) -> Images:
    """The images with independent normal noise of this standard deviation in gray levels."""
    noise = np.random.default_rng(0).normal(scale=level, size=images.shape)
    return np.clip(images + noise, 0, 255).round().astype(np.uint8)


if __name__ == "__main__":
    main()
