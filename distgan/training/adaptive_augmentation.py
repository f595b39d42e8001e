"""The probability of augmentations, adapted to how far the discriminator overfits (Karras et al. 2020, section 3)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, ClassVar

import torch
from pydantic import ConfigDict, Field

from distgan.config.schedule import value_at
from distgan.config.schema import Config
from distgan.errors import UserError
from distgan.losses.objective import Objective

# Overfitting that differs from the target by no more is equal to it: sums depend on the number of workers in last bits.
_EQUAL = 1e-6


def sign_accuracy(objective: Objective) -> str | None:
    """The accuracy, as metrics call it, whose excess over chance shows overfitting; None without a meaning of signs.

    It is that of real images, or of pairs for a relativistic objective.
    """
    if objective.chance_loss is None:
        return None
    names = objective.accuracies(torch.zeros(1), torch.zeros(1))
    return next((f"accuracy/{name}" for name in ("real", "pairs") if name in names), None)


@dataclass
class AdaptiveProbability:
    """An adapted probability, and the overfitting of the current window of updates: plain numbers of a run's progress.

    Without held-out images overfitting is r = E[sign D(real)], so twice the accuracy less 1. With them it is the gap of
    `training.held_out`.

    Attributes:
        total, updates: the sum of the accuracies over the current window, and the number of its updates.
        held_out: hash of the data set of held-out images; empty without one.
    """

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(extra="forbid")

    probability: Annotated[float, Field(ge=0, le=1)] = 0.0
    total: Annotated[float, Field(ge=0)] = 0.0
    updates: Annotated[int, Field(ge=0, le=2**53)] = 0
    held_out: str = ""

    def add_steps(self, steps: Sequence[Mapping[str, float]], accuracy: str | None) -> None:
        """Adds the metrics of updates. `accuracy` is the name of `sign_accuracy`."""
        if self.held_out or accuracy is None:
            return
        self.total += sum(metrics[accuracy] for metrics in steps)
        self.updates += len(steps)

    def end_window(self, config: Config, images: int, kimg: float, gap: float | None) -> None:
        """Moves the probability, after a window with `images` real images of updates, at `kimg` of the run.

        It rises where overfitting is above `training.augment_target` and falls where it is below, by the window's share
        of `training.augment_target_kimg`, within 0 and `training.augment_probability`.
        """
        training = config.training
        assert training.augment_target is not None
        overfitting = gap
        if overfitting is None:
            overfitting = 2 * self.total / self.updates - 1 if self.updates else training.augment_target
        self.total, self.updates = 0.0, 0
        above, change = overfitting - training.augment_target, images / (1000 * training.augment_target_kimg)
        if abs(above) > _EQUAL:
            self.probability += change if above > 0 else -change
        self.probability = min(max(self.probability, 0.0), value_at(training.augment_probability, kimg))


def restored_probability(
    kept: AdaptiveProbability | None, config: Config, held_out: str | None, where: str
) -> AdaptiveProbability | None:
    """The adapted probability that a session begins with: that of its checkpoint (`kept`), or 0; None if not adapted.

    `held_out` is the hash of the held-out images. Raises UserError where they are not those of earlier sessions.
    """
    if config.training.augment_target is None:
        return None
    if kept is None:
        return AdaptiveProbability(held_out=held_out or "")
    if kept.held_out != (held_out or ""):
        before = "other held-out images" if kept.held_out else "no held-out images"
        raise UserError(
            f"{where}: training.augment_target={config.training.augment_target:g} has adapted the augmentation to "
            f"{before}; set data.held_out {'to them' if kept.held_out else 'to null'}, or start a new run with another "
            f"--name"
        )
    return kept
