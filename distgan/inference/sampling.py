"""Images of a checkpoint's averaged generator, made batch by batch: samples, and ways between them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from distgan.config.load import build_config
from distgan.config.plugins import without_custom_observers
from distgan.config.schema import Config
from distgan.errors import UserError
from distgan.evaluation.extractors.extractor import to_uint8
from distgan.inference.latents import (
    MOST_INTERPOLATED,
    DrawnLatents,
    GivenLatents,
    Interpolation,
    Latents,
    distinct_latents,
    loop,
    strips,
)
from distgan.training.checkpoints import Checkpoint, matching_tensors
from distgan.training.fakes import ALL, LabeledGrid, sample_grid
from distgan.training.networks import DTYPES, build_networks
from distgan.training.state_file import difference, specs_of

BATCH = 64

MOST_STEPS = 1000

# Latents that an image of an animation goes through.
_STOPS = 4

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
        columns: images in a row, where the labels or the interpolation ask for a number of them.
        frame: images in a frame of an animation; N for what is none.
        classes: names of the labels; empty for an unconditional generator.
    """

    shape: tuple[int, int, int, int]
    batches: Iterator[Tensor]
    labels: Tensor | None
    columns: int | None
    frame: int
    classes: Sequence[str] = ()


@dataclass(frozen=True)
class SampleOptions:
    """Which images.

    Attributes:
        count: number of samples, of rows with `interpolate`, or of images in a frame with `loop`. None for all
            given latents, or else 64, 8 and 16.
        seed: draws the latents, 0 to 2^63 - 1.
        label: of all images, by name or number; or `all` for a column (with `interpolate`, a row) of each.
        truncation: from 0 to 1; the latents are multiplied by it, which moves them towards their mean, 0. It is the
            temperature of Kingma and Dhariwal 2018, or psi of Karras et al. 2019 with latents in the place of w.
        latents: those of the samples; None to draw them.
        interpolate: makes each sample a row of images on the way from it to another.
        steps: images in such a row; in a loop, frames from one latent to the next. None for 10.
        loop: makes frames of an animation, in which every image goes around and comes back.
    """

    count: int | None = None
    seed: int = 0
    label: str | None = None
    truncation: float = 1.0
    latents: GivenLatents | None = None
    interpolate: Interpolation | None = None
    steps: int | None = None
    loop: bool = False

    def __post_init__(self) -> None:
        """Raises UserError for values out of range."""
        if not 0 <= self.truncation <= 1:
            raise UserError(f"--truncation {self.truncation}: give a number from 0 to 1")
        if self.steps is not None and not 2 <= self.steps <= MOST_STEPS:
            raise UserError(f"--steps {self.steps}: give a number from 2 to {MOST_STEPS}")


def draw_samples(
    checkpoint: Checkpoint, count: int, seed: int, label: str | None = None, *, trust_code: bool = False
) -> Samples:
    """`count` images of a label, or for the label `all` a column of each; see `draw`."""
    return draw(checkpoint, SampleOptions(count, seed, label), trust_code=trust_code)


def draw(checkpoint: Checkpoint, options: SampleOptions, *, trust_code: bool = False) -> Samples:
    """Images of a checkpoint; on the CPU.

    With `trust_code` a network may be of a module that the checkpoint names. Raises UserError, before anything is
    generated, for an unknown label, for another network's tensors, and for untrusted modules.
    """
    config, manifest = checkpoint_config(checkpoint, trust_code=trust_code), checkpoint.manifest

    def grid(count: int) -> LabeledGrid:
        return sample_grid(count, config.num_classes, options.label, manifest.classes, manifest.name)

    generator = average_generator(config, checkpoint, CPU)
    return replace(generate(config, generator, grid, options), classes=_class_names(config, manifest.classes))


def generate(
    config: Config,
    generator: nn.Module,
    grid: Callable[[int], LabeledGrid],
    options: SampleOptions,
    device: torch.device = CPU,
    batch_size: int = BATCH,
) -> Samples:
    """The images that options ask for, by a generator on `device`; `grid` gives latents and labels for a count.

    The last bits of an image may differ between devices and batch sizes, never between numbers of images.
    Raises UserError for more images than there are given latents for.
    """
    arranged, latents, frame = _arranged(config, grid, options)
    shape = (len(arranged.latents), config.channels, config.image_size, config.image_size)
    scaled = _Inputs(latents, options.truncation, DTYPES[config.training.precision], device)
    batches = _batches(generator, arranged, scaled, device, batch_size)
    return Samples(shape, batches, arranged.labels, arranged.columns, frame or shape[0])


def sample_images(checkpoint: Checkpoint, count: int, seed: int) -> Tensor:
    """`count` images of the averaged generator, uint8 (count, C, H, W). Raises UserError as `draw_samples` does."""
    return torch.cat(list(draw_samples(checkpoint, count, seed).batches))


def _class_names(config: Config, classes: Sequence[str]) -> Sequence[str]:
    """A name for each label; its number where the checkpoint has none."""
    return [*classes, *map(str, range(len(classes), config.num_classes or 0))][: config.num_classes or 0]


def _arranged(
    config: Config, grid: Callable[[int], LabeledGrid], options: SampleOptions
) -> tuple[LabeledGrid, Latents, int | None]:
    """The latents and labels of all images, and how many are a frame of an animation; None for all."""
    base, stops = _with_stops(config, grid, options)
    latents: Latents = options.latents or DrawnLatents(config.latent_dim, options.seed)
    if stops == 1:
        if options.steps is not None:
            raise UserError(f"--steps {options.steps} is for --interpolate and animations; leave it out, or add one")
        return base, latents, None
    count, steps, method = len(base.latents), options.steps or 10, options.interpolate or "spherical"
    total = count * steps * (stops if options.loop else 1)
    if total > MOST_INTERPOLATED:
        raise UserError(
            f"--count and --steps ask for {total:,} images, and an interpolation has at most {MOST_INTERPOLATED:,}; "
            "give smaller numbers"
        )
    if options.loop:
        return *loop(base, latents, steps, method, stops), count
    return *strips(base, latents, steps, method), None


def _with_stops(config: Config, grid: Callable[[int], LabeledGrid], options: SampleOptions) -> tuple[LabeledGrid, int]:
    """The samples that images begin with, and the number of latents that each goes through; 1 for no interpolation.

    Raises UserError for fewer given latents, or a number that is no multiple of those in the grid.
    """
    stops, default = (_STOPS, 16) if options.loop else (1, 64) if options.interpolate is None else (2, 8)
    if options.latents is None:
        return grid(options.count or default), stops
    given = len(options.latents)
    per_latent = (config.num_classes or 1) if options.label == ALL else 1
    base = grid(options.count or per_latent * (1 if options.loop else max(1, given // stops)))
    used = distinct_latents(base)
    if stops == 1 and used > given:
        raise UserError(f"--latents: holds {given:,}, and {used:,} samples need as many; give a smaller --count")
    if stops > 1 and (given < 2 * used or given % used):
        what = "images of a frame" if options.loop else "rows"
        raise UserError(
            f"--latents: holds {given:,}, and {used:,} {what} need a multiple of that, at least twice as many; give "
            "another --count"
        )
    return base, given // used if options.loop else stops


@dataclass(frozen=True)
class _Inputs:
    """Latents as the network takes them, scaled."""

    latents: Latents
    truncation: float
    dtype: torch.dtype
    device: torch.device

    def take(self, numbers: Tensor) -> Tensor:
        found = self.latents.take(numbers)
        return (found if self.truncation == 1 else found * self.truncation).to(self.device, self.dtype)


def _batches(
    generator: nn.Module, grid: LabeledGrid, latents: _Inputs, device: torch.device, batch_size: int
) -> Iterator[Tensor]:
    """Always runs whole batches: the last bits of an image depend on their size."""
    count = len(grid.latents)
    for first in range(0, count, batch_size):
        rows = torch.arange(first, first + batch_size).clamp(max=count - 1)
        labels = () if grid.labels is None else (grid.labels[rows].to(device),)
        with torch.inference_mode():
            images = to_uint8(generator(latents.take(grid.latents[rows]), *labels)).cpu()
        yield images[: count - first]
