"""Images of a checkpoint's averaged generator, drawn batch by batch."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from distgan.config.load import build_config
from distgan.config.plugins import without_custom_observers
from distgan.config.schema import Config
from distgan.errors import UserError
from distgan.evaluation.extractors.extractor import to_uint8
from distgan.training.checkpoints import Checkpoint, matching_tensors
from distgan.training.fakes import LabeledGrid, sample_grid
from distgan.training.networks import DTYPES, build_networks
from distgan.training.state_file import difference, specs_of

BATCH = 64

CPU = torch.device("cpu")


def checkpoint_config(checkpoint: Checkpoint, *, trust_code: bool = False) -> Config:
    """The configuration of a checkpoint's networks, without custom metrics and trackers.

    Raises UserError for networks of modules outside distgan without `trust_code`.
    """
    manifest = checkpoint.manifest
    return build_config(without_custom_observers(manifest.config), manifest.name, trust_code=trust_code)


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
    """Images that are generated as they are read; sample i is the same for every count.

    Attributes:
        shape: (N, C, H, W).
        batches: the images in their order, uint8 (up to the batch size, C, H, W) on the CPU; to be read once.
        labels: of a conditional generator, int64 (N,).
        columns: images in a row, where the labels ask for a number of them.
    """

    shape: tuple[int, int, int, int]
    batches: Iterator[Tensor]
    labels: Tensor | None
    columns: int | None


def draw_samples(
    checkpoint: Checkpoint, count: int, seed: int, label: str | None = None, *, trust_code: bool = False
) -> Samples:
    """`count` images of a label, or for the label `all` a column of each (see `fakes.sample_grid`); on the CPU.

    With `trust_code` a network may be of a module that the checkpoint names. Raises UserError, before anything is
    generated, for an unknown label, for another network's tensors, and for untrusted modules.
    """
    config, manifest = checkpoint_config(checkpoint, trust_code=trust_code), checkpoint.manifest
    grid = sample_grid(count, config.num_classes, label, manifest.classes, manifest.name)
    return generate(config, average_generator(config, checkpoint, CPU), grid, seed)


def generate(
    config: Config,
    generator: nn.Module,
    grid: LabeledGrid,
    seed: int,
    device: torch.device = CPU,
    batch_size: int = BATCH,
) -> Samples:
    """The images of a grid's latents and labels, by a generator on `device`.

    The last bits of an image may differ between devices and batch sizes, never between numbers of images.
    """
    shape = (len(grid.latents), config.channels, config.image_size, config.image_size)
    latents = _Latents(config.latent_dim, seed, DTYPES[config.training.precision])
    return Samples(shape, _batches(generator, grid, latents, device, batch_size), grid.labels, grid.columns)


def sample_images(checkpoint: Checkpoint, count: int, seed: int) -> Tensor:
    """`count` images of the averaged generator, uint8 (count, C, H, W). Raises UserError as `draw_samples` does."""
    return torch.cat(list(draw_samples(checkpoint, count, seed).batches))


class _Latents:
    """Normal latents by their numbers, which may only ascend; earlier ones are dropped."""

    def __init__(self, dimension: int, seed: int, dtype: torch.dtype) -> None:
        self._random, self._dtype = torch.Generator().manual_seed(seed), dtype
        self._first, self._drawn = 0, torch.empty(0, dimension)

    def take(self, numbers: Tensor) -> Tensor:
        """Latents of these numbers, (len(numbers), dimension)."""
        while self._first + len(self._drawn) <= int(numbers[-1]):
            # Always 64 at once: the last numbers of a tensor depend on its size.
            more = torch.randn(BATCH, self._drawn.shape[1], generator=self._random)
            self._drawn = torch.cat([self._drawn, more])
        behind = int(numbers[0]) - self._first
        self._first, self._drawn = self._first + behind, self._drawn[behind:]
        return self._drawn[numbers - self._first].to(self._dtype)


def _batches(
    generator: nn.Module, grid: LabeledGrid, latents: _Latents, device: torch.device, batch_size: int
) -> Iterator[Tensor]:
    """Always runs whole batches: the last bits of an image depend on their size."""
    count = len(grid.latents)
    for first in range(0, count, batch_size):
        rows = torch.arange(first, first + batch_size).clamp(max=count - 1)
        labels = () if grid.labels is None else (grid.labels[rows].to(device),)
        with torch.inference_mode():
            images = to_uint8(generator(latents.take(grid.latents[rows]).to(device), *labels)).cpu()
        yield images[: count - first]
