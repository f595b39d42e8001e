"""A generator's images for an evaluation: a function of the seed, for any number of workers."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from distgan.config.schema import Config
from distgan.evaluation.images import CHUNK
from distgan.metrics.features import to_uint8
from distgan.training.draws import Purpose, derive_seed
from distgan.training.labels import drawn_labels
from distgan.training.step import DTYPES, Labels


class GeneratedImages:
    """`evaluation.samples` images of a generator in evaluation mode, 8 bit as saved ones are.

    Latents are a chunk's own; labels, for a conditional generator, are as frequent as among all real images, or all
    of them `label`.
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
        seed = derive_seed(config.seed, Purpose.EVALUATION_LATENTS, number)
        count = min(CHUNK, self.count - number * CHUNK)
        latents = torch.randn(count, config.latent_dim, generator=torch.Generator().manual_seed(seed))
        latents = latents.to(self._device, DTYPES[config.training.precision])
        return to_uint8(self._generator(latents, *self._labels(number, count)))

    def _labels(self, number: int, count: int) -> Labels:
        if self._config.num_classes is None:
            return ()
        if self._label is not None:
            return (torch.full((count,), self._label, device=self._device),)
        seed = derive_seed(self._config.seed, Purpose.EVALUATION_LABELS, number)
        return (drawn_labels(self._real_labels, count, seed).to(self._device),)
