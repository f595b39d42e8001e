"""A trained generator in Python: `load_generator(url).sample(64)`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from PIL import Image
from torch import Tensor

from distgan.errors import UserError
from distgan.inference.exported import find_generator
from distgan.inference.latents import INTERPOLATIONS, GivenLatents, Interpolation, checked_latents
from distgan.inference.sampling import BATCH, SampleOptions, average_generator, checkpoint_config, generate
from distgan.tracking.grids import enlargement, image_grid, png_bytes
from distgan.training.checkpoints import Checkpoint
from distgan.training.fakes import LabeledGrid, sample_grid
from distgan.training.starting_point import BEST


@dataclass(frozen=True, eq=False)
class SampleBatch:
    """Generated images. A notebook shows them as a grid; `np.asarray` gives `images`.

    Attributes:
        images: uint8 (N, H, W, C), C = 1 (gray) or 3 (RGB).
        labels: of a conditional generator, int64 (N,).
        columns: images in a row of the grid; by default the grid is nearly square.
    """

    images: NDArray[np.uint8]
    labels: NDArray[np.int64] | None = None
    columns: int | None = None

    def grid(self, columns: int | None = None, scale: int | None = None) -> Image.Image:
        """All images in rows; each pixel becomes a square of `scale` pixels, by default so that images have 64."""
        tensor = torch.from_numpy(self.images).permute(0, 3, 1, 2)
        return image_grid(tensor, columns or self.columns, scale=scale or enlargement(self.images.shape[2]))

    def __len__(self) -> int:
        return len(self.images)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[Any]:
        return np.array(self.images, dtype=dtype, copy=True) if copy else np.asarray(self.images, dtype=dtype)

    def _repr_png_(self) -> bytes:
        return png_bytes(self.grid())


class TrainedGenerator:
    """The averaged generator of a checkpoint, ready to sample.

    Attributes:
        checkpoint: URL of the checkpoint.
        classes: names of the labels; empty for an unconditional generator.
        image_shape: (C, H, W).
        network: the torch module in evaluation mode; latents (N, latent_dim), and labels int64 (N,) if it is
            conditional, to images (N, C, H, W) in [-1, 1].
        notes: remarks for the user, such as damaged checkpoints that were skipped.
    """

    def __init__(self, checkpoint: Checkpoint, device: torch.device | str = "cpu", *, trust_code: bool = False) -> None:
        """Raises UserError for another network's tensors, and for code outside distgan without `trust_code`."""
        self._config = checkpoint_config(checkpoint, trust_code=trust_code)
        self._device, self._name = torch.device(device), checkpoint.manifest.name
        self.checkpoint = checkpoint.url
        self.classes = list(checkpoint.manifest.classes) if self._config.num_classes is not None else []
        self.image_shape = self._config.image_shape
        self.network = average_generator(self._config, checkpoint, self._device)
        self.notes = [f"{damaged}; {self._name} is used" for damaged in checkpoint.skipped]

    def sample(
        self,
        n: int | None = None,
        labels: str | int | Sequence[str | int] | None = None,
        seed: int = 0,
        batch_size: int = BATCH,
        *,
        truncation: float = 1.0,
        latents: ArrayLike | Tensor | None = None,
    ) -> SampleBatch:
        """`n` images, on the CPU those of `distgan sample` with this seed, to the bit.

        Sample i is the same for every `n`. Its last bits may differ on a GPU, or with another `batch_size`.

        Args:
            n: how many; by default one for each given label or latent, or 64.
            labels: of a conditional generator: a class name or number for all images, one for each image, or `all` for
                a column of every class (`n` is then rounded down to whole rows). By default image i has label
                i mod num_classes.
            seed: draws the latents, 0 to 2^63 - 1.
            batch_size: images that the network makes at once.
            truncation: from 0 to 1; the latents are multiplied by it.
            latents: float (N, latent_dim), in the place of drawn ones.

        Raises UserError for labels that do not exist, and for values out of range.
        """
        return self._generate(
            SampleOptions(n, seed, _label(labels), truncation, self._given(latents)), labels, batch_size
        )

    def interpolate(
        self,
        n: int | None = None,
        steps: int = 10,
        method: Interpolation = "spherical",
        labels: str | int | Sequence[str | int] | None = None,
        seed: int = 0,
        batch_size: int = BATCH,
        *,
        truncation: float = 1.0,
        latents: ArrayLike | Tensor | None = None,
    ) -> SampleBatch:
        """`n` rows of `steps` images each, on the way from a latent to another: the strips of `distgan sample`.

        Row i begins with sample i and ends with sample n + i, and has the label of sample i.

        Args:
            n: how many rows; by default half of the given latents, or 8.
            steps: images in a row, both ends among them.
            method: `spherical` keeps the norms of latents, `linear` does not.

        The other arguments are those of `sample`. With `labels="all"` each class is a row.

        Raises UserError as `sample` does.
        """
        if method not in INTERPOLATIONS:
            raise UserError(f"method={method!r:.40}: allowed: {', '.join(INTERPOLATIONS)}")
        options = SampleOptions(n, seed, _label(labels), truncation, self._given(latents), method, steps)
        return self._generate(options, labels, batch_size)

    def _generate(
        self, options: SampleOptions, labels: str | int | Sequence[str | int] | None, batch_size: int
    ) -> SampleBatch:
        if options.count is None and not isinstance(labels, str | int | None):
            options = replace(options, count=len(labels))
        n, seed = options.count, options.seed
        if (n is not None and n < 1) or batch_size < 1 or not 0 <= seed < 2**63:
            raise UserError(
                f"n={n}, batch_size={batch_size}, seed={seed}: the seed must be 0 or more, the others 1 or more"
            )
        samples = generate(
            self._config, self.network, lambda count: self._grid(count, labels), options, self._device, batch_size
        )
        images = torch.cat(list(samples.batches)).permute(0, 2, 3, 1).contiguous().numpy()
        return SampleBatch(images, None if samples.labels is None else samples.labels.numpy(), samples.columns)

    def _given(self, latents: ArrayLike | Tensor | None) -> GivenLatents | None:
        return None if latents is None else checked_latents(latents, self._config.latent_dim, "latents")

    def _grid(self, n: int, labels: str | int | Sequence[str | int] | None) -> LabeledGrid:
        classes = self._config.num_classes
        if labels is None or isinstance(labels, str):
            return sample_grid(n, classes, labels, self.classes, self._name)
        each = [labels] * n if isinstance(labels, int) else list(labels)
        if len(each) != n:
            raise UserError(f"{len(each)} labels for n={n} images: give one for each image, or one for all")
        numbers = {label: self._number(label) for label in set(each)}
        return LabeledGrid(torch.arange(n), torch.tensor([numbers[label] for label in each]))

    def _number(self, label: str | int) -> int:
        if isinstance(label, int) and 0 <= label < (self._config.num_classes or 0):
            return label
        found = sample_grid(1, self._config.num_classes, str(label), self.classes, self._name).labels
        assert found is not None
        return int(found[0])

    def __repr__(self) -> str:
        channels, size, _ = self.image_shape
        labels = f", {self._config.num_classes} classes" if self._config.num_classes is not None else ""
        return f"TrainedGenerator({self.checkpoint!r}, {channels}x{size}x{size}{labels})"


def _label(labels: str | int | Sequence[str | int] | None) -> str | None:
    return labels if isinstance(labels, str) else None


def load_generator(
    url: str, checkpoint: str = BEST, *, device: torch.device | str = "cpu", trust_code: bool = False
) -> TrainedGenerator:
    """The averaged generator of a run, of one of its checkpoints, or of an export as safetensors.

    Args:
        url: folder or URL of a run, of a checkpoint, or of an exported generator; `hf://USER/NAME` for one that
            `distgan push` uploaded.
        checkpoint: `best`, `last` or a checkpoint's name, where `url` is a run's.
        device: where to generate; samples are those of `distgan sample` on the CPU.
        trust_code: modules outside distgan that the checkpoint names may be imported, which runs their code.

    Raises UserError where there is no whole checkpoint, and for networks outside distgan without `trust_code`.
    """
    found = find_generator(url, None if checkpoint == BEST else checkpoint, trust_code=trust_code)
    return TrainedGenerator(found, device, trust_code=trust_code)
