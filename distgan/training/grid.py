"""The grid of samples that a run keeps of its way: always of the same latents and labels."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from distgan.config.schema import Config
from distgan.metrics.features import to_uint8
from distgan.training.draws import Purpose, derive_seed
from distgan.training.labels import training_grid
from distgan.training.step import DTYPES, Labels


class SampleGrid:
    """Latents and labels on the device, drawn once.

    Attributes:
        columns: images in a row, where labels ask for a number of them.
    """

    def __init__(self, config: Config, device: torch.device) -> None:
        grid = training_grid(config.num_classes)
        self.columns = grid.columns
        random = torch.Generator().manual_seed(derive_seed(config.seed, Purpose.SAMPLE_LATENTS))
        latents = torch.randn(int(grid.latents.max()) + 1, config.latent_dim, generator=random)
        self._latents = latents[grid.latents].to(device, DTYPES[config.training.precision])
        self._labels: Labels = () if grid.labels is None else (grid.labels.to(device),)

    @torch.inference_mode()
    def images(self, generator: nn.Module) -> Tensor:
        """What a generator in evaluation mode makes of them, uint8 (N, C, H, W) on the CPU."""
        return to_uint8(generator(self._latents, *self._labels)).cpu()
