"""The discriminator's gap between training and held-out real images: how far it knows the training images by heart."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch
from torch import Tensor, nn

from distgan.config.schema import Config
from distgan.data.dataset import Dataset
from distgan.data.preview import choose_samples
from distgan.data.stream import Group
from distgan.distributed import Distributed
from distgan.evaluation.image_source import CHUNK
from distgan.losses.context import Context
from distgan.losses.rng import derive_seed
from distgan.training.step import Step

# Images of each kind, in batches of the training, and at most.
_BATCHES, _MOST = 4, 1024


def overfitting_gap(train: float, held_out: float, fake: float) -> float:
    """Where the mean logit of held-out images lies between those of training images (0) and of generated ones (1).

    That is (train - held_out) / (train - fake), the r_v of Karras et al. (2020, equation 1), within [0, 1]. 0 where the
    discriminator does not tell training images from generated ones.
    """
    if not train > fake:
        return 0.0
    gap = (train - held_out) / (train - fake)
    return min(max(gap, 0.0), 1.0) if math.isfinite(gap) else 0.0


class HeldOutImages:
    """Some training images and as many held-out ones, in memory: this worker's share. They stay the same."""

    def __init__(self, config: Config, step: Step, dataset: Dataset, held_out: Dataset) -> None:
        """Reads the images. Raises UserError where they cannot be read."""
        self._config, self._step = config, step
        self._distributed: Distributed = step.distributed
        self._count = min(_BATCHES * config.training.batch_size, _MOST)
        self._train, self._held_out = self._chunks(dataset), self._chunks(held_out)

    def gap(self, update: int, images: int) -> float:
        """The gap of the networks as they are now, after so many updates and real images. Collective.

        All images are augmented as in training. Both networks are in evaluation mode, so dropout is off and batch
        statistics are the running ones; nothing of their state changes. Chunks of images have random numbers of their
        own, and are added in their order, so every number of workers gives the same.
        """
        sums = torch.zeros(3, 2, -(-self._count // CHUNK), dtype=torch.float64)
        device = self._distributed.device
        with (
            torch.no_grad(),
            torch.random.fork_rng([device] if device.type == "cuda" else []),
            _evaluating(self._step.generator, self._step.discriminator),
            self._step.autocast(),
        ):
            for chunk, group in self._train.items():
                context = self._context(update, images, chunk)
                sums[0, :, chunk] = self._real(group, context, "training images")
                sums[2, :, chunk] = self._fakes(group, context)
            for chunk, group in self._held_out.items():
                sums[1, :, chunk] = self._real(group, self._context(update, images, chunk), "held-out images")
        totals = self._distributed.all_reduce(sums.to(device)).cpu().sum(2)
        train, held_out, fake = (totals[:, 0] / totals[:, 1]).tolist()
        return overfitting_gap(train, held_out, fake)

    def _chunks(self, dataset: Dataset) -> dict[int, Group]:
        """This worker's chunks of the data set's images, by number."""
        chosen = np.sort(choose_samples(dataset.index, None, self._count, derive_seed(self._config.seed, "gap images")))
        found = {}
        for chunk in range(self._distributed.rank, -(-len(chosen) // CHUNK), self._distributed.size):
            read = list(dataset.images(chosen[chunk * CHUNK : (chunk + 1) * CHUNK]))
            if read:
                numbers, images = zip(*read, strict=True)
                labels = dataset.index.labels[list(numbers)].astype(np.int64)
                found[chunk] = Group(torch.from_numpy(np.stack(images)), torch.from_numpy(labels))
        return found

    def _context(self, update: int, images: int, chunk: int) -> Context:
        return Context(
            update, images / 1000, self._config.seed, chunk, self._distributed.device, self._step.inputs.dtype
        )

    def _real(self, group: Group, context: Context, stream: str) -> Tensor:
        return self._logits(self._step.inputs.real(group.images, context, f"{stream} "), group, context, stream)

    def _fakes(self, group: Group, context: Context) -> Tensor:
        latents = context.normal("gap latents", len(group.images), self._config.latent_dim)
        context.seed_layers("gap generator layers")
        fakes = _forward(self._step.generator, latents, *self._step.inputs.labels(group))
        return self._logits(fakes, group, context, "gap fakes")

    def _logits(self, images: Tensor, group: Group, context: Context, stream: str) -> Tensor:
        """The sum over images of their mean logits, and the number of images."""
        images = self._step.augment(images, context, f"augmented {stream}")
        context.seed_layers("gap discriminator layers")
        logits = _forward(self._step.discriminator, images, *self._step.inputs.labels(group))
        total = logits.double().reshape(len(images), -1).mean(1).sum().cpu()
        return torch.stack([total, torch.tensor(len(images), dtype=torch.float64)])


def _forward(network: nn.Module, *arguments: Tensor) -> Tensor:
    """A forward that is not compiled: a compiled one would be made anew for evaluation mode and these shapes."""
    found: Tensor = network._call_impl(*arguments)  # type: ignore[no-untyped-call]
    return found


@contextmanager
def _evaluating(*networks: nn.Module) -> Iterator[None]:
    """Within it the networks are in evaluation mode; each layer then has the mode back that it had."""
    modes = [(module, module.training) for network in networks for module in network.modules()]
    for module, _ in modes:
        module.training = False
    try:
        yield
    finally:
        for module, training in modes:
            module.training = training
