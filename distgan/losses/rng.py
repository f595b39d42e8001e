"""All randomness of training: pure functions of (seed, purpose, update, group), never of a worker or of history.

So a resume needs no random state beyond the run's seed and its counters, and any number of workers draws the
same numbers.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum

import numpy as np
import torch
from torch import Tensor


class Purpose(IntEnum):
    """What a draw is for. The values are part of every run's random streams: never renumber them."""

    INITIAL_WEIGHTS = 0
    CRITIC_LATENTS = 1  # and the layers of the generator that maps them
    GENERATOR_LATENTS = 2
    FLIPS = 3
    LABEL_NOISE = 4
    LABEL_FLIPS = 5
    INTERPOLATION = 6
    CRITIC_LAYERS = 7
    FROZEN_CRITIC_LAYERS = 8  # of the critic in a generator update
    SAMPLE_LATENTS = 9
    EVALUATION_LATENTS = 10
    EVALUATION_LABELS = 11
    DEQUANTIZATION = 12
    AUGMENTED_REALS = 14
    AUGMENTED_FAKES = 15
    AUGMENTED_GENERATOR_FAKES = 16  # in a generator update


def derive_seed(seed: int, purpose: Purpose, update: int = 0, group: int = 0) -> int:
    """A 63-bit seed of its own for each combination."""
    state = np.random.SeedSequence([seed, int(purpose), update, group]).generate_state(1, np.uint64)
    return int(state[0]) >> 1


@dataclass(frozen=True)
class StepRng:
    """The random numbers of one group in one update.

    Numbers are drawn on the CPU, so that they are the same on every device, then moved.
    """

    seed: int
    update: int
    group: int
    device: torch.device
    dtype: torch.dtype

    def normal(self, purpose: Purpose, *shape: int) -> Tensor:
        """Standard normal numbers."""
        return torch.randn(shape, generator=self._generator(purpose)).to(self.device, self.dtype)

    def uniform(self, purpose: Purpose, *shape: int) -> Tensor:
        """Numbers uniform in [0, 1)."""
        return torch.rand(shape, generator=self._generator(purpose)).to(self.device, self.dtype)

    def seed_layers(self, purpose: Purpose) -> None:
        """Seeds torch's global generators, which dropout draws from.

        As `torch.manual_seed`, which spends 2 ms a call on noting stack traces for devices that are not in use.
        """
        seed = derive_seed(self.seed, purpose, self.update, self.group)
        torch.default_generator.manual_seed(seed)
        if self.device.type == "cuda":
            torch.cuda.manual_seed_all(seed)

    def _generator(self, purpose: Purpose) -> torch.Generator:
        return torch.Generator().manual_seed(derive_seed(self.seed, purpose, self.update, self.group))
