"""Images from a run or checkpoint, on this machine's CPU."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from distgan.config.load import build_config
from distgan.config.schema import Config
from distgan.errors import UserError
from distgan.evaluation.extractors.extractor import to_uint8
from distgan.training.checkpoints import Checkpoint, matching_tensors
from distgan.training.fakes import LabeledGrid, sample_grid
from distgan.training.networks import DTYPES, build_networks
from distgan.training.state_file import difference, specs_of

_BATCH = 64


def average_generator(config: Config, checkpoint: Checkpoint, device: torch.device) -> nn.Module:
    """A checkpoint's averaged generator, in evaluation mode. Raises UserError where it is another network's."""
    wanted = specs_of(build_networks(config, torch.device("meta")).generator.state_dict())
    differs = difference(specs_of(checkpoint.tensors.get("ema")), wanted, "ema")
    if differs is not None:
        raise UserError(
            f"{checkpoint.url}: its tensors are not those of the run's networks ({differs}); give another checkpoint"
        )
    generator = build_networks(config, device).generator.eval().requires_grad_(False)
    with matching_tensors(checkpoint.url):
        generator.load_state_dict(checkpoint.tensors["ema"])
    return generator


@dataclass(frozen=True)
class Samples:
    """Images of the averaged generator, drawn as they are asked for; sample i is the same for every count.

    Attributes:
        shape: (N, C, H, W).
        batches: the images in their order, uint8 (up to 64, C, H, W); to be read once.
        labels: of a conditional generator, int64 (N,).
        columns: images in a row, where labels ask for a number of them.
    """

    shape: tuple[int, int, int, int]
    batches: Iterator[Tensor]
    labels: Tensor | None
    columns: int | None


def draw_samples(
    checkpoint: Checkpoint, count: int, seed: int, label: str | None = None, *, trust_code: bool = False
) -> Samples:
    """`count` images of a label, or for the label `all` a column of each (see `labels.sample_grid`).

    With `trust_code` a network may be of a module that the checkpoint names. Raises UserError, before anything is
    drawn, for an unknown label, for another network's tensors, and for networks beyond the package without trust.
    """
    manifest = checkpoint.manifest
    config = build_config(manifest.config, manifest.name, trust_code=trust_code)
    grid = sample_grid(count, config.num_classes, label, manifest.classes, manifest.name)
    generator = average_generator(config, checkpoint, torch.device("cpu"))
    shape = (len(grid.latents), config.channels, config.image_size, config.image_size)
    latents = _Latents(config.latent_dim, seed, DTYPES[config.training.precision])
    return Samples(shape, _batches(generator, grid, latents), grid.labels, grid.columns)


def sample_images(checkpoint: Checkpoint, count: int, seed: int) -> Tensor:
    """`count` images of the averaged generator, uint8 (count, C, H, W). Raises UserError as `draw_samples` does."""
    return torch.cat(list(draw_samples(checkpoint, count, seed).batches))


class _Latents:
    """Normal latents by their numbers, which may only ascend; those that are behind are forgotten."""

    def __init__(self, dimension: int, seed: int, dtype: torch.dtype) -> None:
        self._random, self._dtype = torch.Generator().manual_seed(seed), dtype
        self._first, self._drawn = 0, torch.empty(0, dimension)

    def take(self, numbers: Tensor) -> Tensor:
        """Latents of these numbers, (len(numbers), dimension)."""
        while self._first + len(self._drawn) <= int(numbers[-1]):
            # Always whole batches: the last numbers of a tensor depend on its size.
            more = torch.randn(_BATCH, self._drawn.shape[1], generator=self._random)
            self._drawn = torch.cat([self._drawn, more])
        behind = int(numbers[0]) - self._first
        self._first, self._drawn = self._first + behind, self._drawn[behind:]
        return self._drawn[numbers - self._first].to(self._dtype)


def _batches(generator: nn.Module, grid: LabeledGrid, latents: _Latents) -> Iterator[Tensor]:
    """Always runs whole batches: the last bits of an image depend on their size."""
    count = len(grid.latents)
    for first in range(0, count, _BATCH):
        rows = torch.arange(first, first + _BATCH).clamp(max=count - 1)
        labels = () if grid.labels is None else (grid.labels[rows],)
        with torch.inference_mode():
            images = to_uint8(generator(latents.take(grid.latents[rows]), *labels))
        yield images[: count - first]
