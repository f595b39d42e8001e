"""What an evaluation of its own found."""

from __future__ import annotations

from dataclasses import dataclass

from distgan.evaluation.nearest import Nearest


@dataclass(frozen=True)
class Finding:
    """One measure: as the configuration and as reports call it, its value, and its deviation where it has one.

    `seconds` are its own, without those of the features; what is computed together (precision, recall and their kin)
    has the same ones.
    """

    measure: str
    name: str
    value: float
    deviation: float | None
    seconds: float


@dataclass(frozen=True)
class ClassFinding:
    """The Fréchet distance between generated and real images of one class."""

    label: int
    name: str
    samples: int
    real_images: int
    distance: float


@dataclass(frozen=True)
class Findings:
    """What a job found.

    Attributes:
        extractor: its name; features: numbers that it makes of an image.
        real_images: how many it was compared with; 0 where nobody knows.
        floor: what `floor_images` of the real images measure, where it is known.
        small_classes: names of those that have too few real images to be measured.
        nearest: the training images nearest to the first samples, where they were asked for.
        seconds: of the real side, of the images' features, of the classes, of the nearest images, and in all.
    """

    extractor: str
    features: int
    samples: int
    real_images: int
    floor: float | None
    floor_images: int | None
    measures: list[Finding]
    classes: list[ClassFinding]
    small_classes: list[str]
    nearest: Nearest | None
    seconds: dict[str, float]
    workers: int
    device: str
