"""Generated images for evaluations and sample grids, and their labels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from distgan.config.schema import Config
from distgan.data.dataset import Dataset
from distgan.data.preview import choose_samples, read_samples
from distgan.errors import UserError
from distgan.evaluation.extractors.extractor import to_uint8
from distgan.evaluation.image_source import CHUNK
from distgan.losses.rng import derive_seed
from distgan.text import did_you_mean
from distgan.training.networks import DTYPES, Labels

ALL = "all"

_SQUARE = 8

_MOST_COLUMNS = 16


@dataclass(frozen=True)
class LabeledGrid:
    """Which latents and label each image of a grid has, row by row.

    Attributes:
        latents: indices of latents, int64 (N,).
        labels: int64 (N,); None for an unconditional generator.
        columns: images in a row; None for a nearly square grid.
    """

    latents: Tensor
    labels: Tensor | None = None
    columns: int | None = None


def sample_labels(labels: NDArray[np.int64], count: int, seed: int) -> Tensor:
    """`count` labels, int64 (count,), drawn from `labels` with replacement."""
    random = torch.Generator().manual_seed(seed)
    return torch.from_numpy(labels)[torch.randint(len(labels), (count,), generator=random)]


def training_grid(num_classes: int | None) -> LabeledGrid:
    """The sample grid of a run: 64 different latents, or eight rows in which each column has one label.

    Neighboring classes share their latents. Up to 8 classes are repeated to fill eight columns; of more than 16
    classes, 16 are shown, evenly spaced from the first to the last.
    """
    if num_classes is None:
        return LabeledGrid(torch.arange(_SQUARE * _SQUARE))
    shown = min(num_classes, _MOST_COLUMNS)
    repeats = max(1, _SQUARE // shown)
    labels = torch.linspace(0, num_classes - 1, shown).round().long().repeat(repeats)
    latents = torch.arange(_SQUARE * repeats).repeat_interleave(shown)
    return LabeledGrid(latents, labels.repeat(_SQUARE), len(labels))


def sample_grid(count: int, num_classes: int | None, label: str | None, names: list[str], where: str) -> LabeledGrid:
    """A grid of `count` samples of a label, given by name or number, or of `all` labels.

    For `all`, a row has the same latents and a column the same label; `count` is rounded down to whole rows, at least
    one. More than eight such rows of few labels lie side by side, in up to eight columns. Without a label, sample i has
    the label i mod `num_classes`.

    Raises UserError for an unknown label, and for any label if the generator is unconditional.
    """
    if num_classes is None:
        if label is not None:
            raise UserError(f"--label {label}: the generator of {where} takes no labels; leave --label out")
        return LabeledGrid(torch.arange(count))
    if label == ALL:
        rows = max(1, count // num_classes)
        latents = torch.arange(rows).repeat_interleave(num_classes)
        side_by_side = max(1, _SQUARE // num_classes) if rows > _SQUARE else 1
        return LabeledGrid(latents, torch.arange(num_classes).repeat(rows), num_classes * side_by_side)
    latents = torch.arange(count)
    if label is None:
        return LabeledGrid(latents, latents % num_classes)
    return LabeledGrid(latents, torch.full((count,), _number_of(label, num_classes, names[:num_classes], where)))


def _number_of(label: str, num_classes: int, names: list[str], where: str) -> int:
    if label in names:
        return names.index(label)
    if label.isascii() and label.isdigit() and len(label) < 9 and int(label) < num_classes:
        return int(label)
    nearest = did_you_mean(label, names) if len(names) <= 100 else ""
    raise UserError(
        f"--label {label}: {where} has no such label; give a number from 0 to {num_classes - 1}, `{ALL}`, or a name"
        f"{nearest}"
    )


class GeneratedImages:
    """`evaluation.samples` images of a generator in evaluation mode, with 8 bits as in saved images.

    Latents depend on the chunk's number alone. Labels of a conditional generator are drawn from those of all real
    images, or are all `label`.
    """

    def __init__(
        self,
        config: Config,
        real_labels: NDArray[np.int64],
        device: torch.device,
        generator: nn.Module,
        label: int | None = None,
    ) -> None:
        self._config, self._device, self._generator = config, device, generator
        self._real_labels, self._label = real_labels, label
        self.count = config.evaluation.samples

    @torch.inference_mode()
    def chunk(self, number: int) -> Tensor:
        """Raises UserError for images that are not finite numbers."""
        config = self._config
        seed = derive_seed(config.seed, "evaluation latents", number)
        count = min(CHUNK, self.count - number * CHUNK)
        latents = torch.randn(count, config.latent_dim, generator=torch.Generator().manual_seed(seed))
        latents = latents.to(self._device, DTYPES[config.training.precision])
        return to_uint8(self._generator(latents, *self._labels(number, count)))

    def _labels(self, number: int, count: int) -> Labels:
        if self._config.num_classes is None:
            return ()
        if self._label is not None:
            return (torch.full((count,), self._label, device=self._device),)
        seed = derive_seed(self._config.seed, "evaluation labels", number)
        return (sample_labels(self._real_labels, count, seed).to(self._device),)


class SampleGrid:
    """A run's sample grid: latents and labels on the device, drawn once.

    Attributes:
        columns: images in a row; None for a nearly square grid.
    """

    def __init__(self, config: Config, device: torch.device) -> None:
        grid = training_grid(config.num_classes)
        self.columns = grid.columns
        random = torch.Generator().manual_seed(derive_seed(config.seed, "sample latents"))
        latents = torch.randn(int(grid.latents.max()) + 1, config.latent_dim, generator=random)
        self._latents = latents[grid.latents].to(device, DTYPES[config.training.precision])
        self._labels: Labels = () if grid.labels is None else (grid.labels.to(device),)
        self._count, self._column_labels = len(grid.latents), [] if grid.labels is None else grid.labels.tolist()
        self._column_labels = self._column_labels[: grid.columns]

    def column_names(self, classes: Sequence[str]) -> list[str]:
        """The class of each column; none of an unconditional generator's grid."""
        return [classes[label] for label in self._column_labels]

    def real_images(self, dataset: Dataset, seed: int) -> Tensor:
        """Real images in the places of samples with their labels, uint8 (N, C, H, W); white where there are too few.

        They are read at once, without waiting for storage. Raises UserError where that fails.
        """
        labels: list[int | None] = [*sorted(set(self._column_labels))] or [None]
        count = self._count // len(labels)
        chosen = [choose_samples(dataset.index, label, count, seed) for label in labels]
        images, _ = read_samples(dataset, chosen, count, dataset.reader.without_retry())
        if not self._column_labels:
            return torch.from_numpy(images[0])
        left = {label: list(some) for label, some in zip(labels, images, strict=True)}
        rows = self._count // len(self._column_labels)
        return torch.from_numpy(np.stack([left[label].pop(0) for label in self._column_labels * rows]))

    @torch.inference_mode()
    def images(self, generator: nn.Module) -> Tensor:
        """The images of a generator in evaluation mode, uint8 (N, C, H, W) on the CPU."""
        return to_uint8(generator(self._latents, *self._labels)).cpu()
