"""The signs of ill health: pure rules of what a stretch of training and an evaluation showed against the run's past.

The bounds are measured, on small runs that were provoked and on healthy ones: the figures stand beside each.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

from distgan.health.states import State

# Means over a window of updates, by the names that the terms have in the metrics.
Means = Mapping[str, float]
# States whose sign is there, each with a sentence of what was seen.
Signs = dict[State, str]

GRADIENT = "gradients/generator"
LOSSES = ("loss/generator", "loss/discriminator")
SIZES = (*LOSSES, GRADIENT, "gradients/discriminator")

_COLLAPSED_LOSS = 0.05
_ALMOST_ALL = 0.98
_NO_GRADIENT = 1e-6
_EXPLODED = 100.0
_SMALL = 1.0
_BEYOND = 1e5
_ALIKE = 0.3
_FALLEN = 0.75
_ALL_ALIKE = 0.1
_RISING = 1.1


def discriminator_overpowers(means: Means, chance_loss: float | None, largest_gradient: float) -> Signs:
    """The discriminator's loss is next to nothing and it tells almost all images, real and fake.

    Asked of objectives in which a logit's sign means something (`Objective.chance_loss`). A Wasserstein critic is meant
    to be trained to its best, its loss estimates a distance that has no scale, and only differences of its logits
    mean anything: of such a critic there is no overpowering to see, and nothing is said. Nor with flipped labels,
    with which the loss cannot get small, and the logits not large.

    Where it was provoked the loss fell to 1 % of chance and far below, and all images were told. In healthy runs
    (`quickstart`, a small `dcgan-bricks`) it stayed above 14 % with at most 97 % told; in the first hundred updates of
    a small `sngan-cifar`, which recovered, it was at 1 %. The generator's gradient is told but not asked for: with the
    non-saturating loss it does not vanish but grows, in the provoked run from 8 to 200.
    """
    loss = means["loss/adversarial"]
    real, fake = means["accuracy/real"], means["accuracy/fake"]
    if chance_loss is None or loss > _COLLAPSED_LOSS * chance_loss or min(real, fake) < _ALMOST_ALL:
        return {}
    return {
        "discriminator overpowers": (
            f"its loss was {loss:.2g} ({chance_loss:.2g} for one that cannot tell) and it told {real:.1%} of the real "
            f"and {fake:.1%} of the generated images; the generator's gradient had a norm of {means[GRADIENT]:.3g} "
            f"(at most {largest_gradient:.3g} before)"
        )
    }


def no_gradient(means: Means, largest_gradient: float) -> Signs:
    """The generator's gradient is a millionth of what it has been: it learns nothing any more."""
    gradient = means[GRADIENT]
    if gradient > _NO_GRADIENT * largest_gradient:
        return {}
    return {
        "dead generator": f"its gradient had a norm of {gradient:.3g}, and of up to {largest_gradient:.3g} before",
    }


def exploded(means: Means, typical: Means) -> Signs:
    """A loss or a gradient is 100 times what is typical of the run so far, or a loss beyond any scale.

    In healthy runs none gets to 9 times. Sizes below 1 count as 1: a Wasserstein critic's gradients begin a thousand
    times smaller than they soon are, and its loss passes through 0. A run can explode before it has a past, but no
    objective here has losses of 100,000: those of a Wasserstein critic with slopes of 1 are as large as images are
    far apart, some hundred.
    """
    beyond = [name for name in LOSSES if abs(means[name]) >= _BEYOND]
    if beyond:
        return {"diverged": f"{beyond[0]} was {means[beyond[0]]:.3g}"}
    factors = {name: _size(means, name) / size for name, size in typical.items()}
    name = max(factors, key=lambda key: factors[key], default=None)
    if name is None or factors[name] < _EXPLODED:
        return {}
    return {"diverged": f"{name} was {means[name]:.3g}, {factors[name]:,.0f} times the size that is typical of the run"}


def log_size(means: Means, name: str) -> float:
    """The logarithm of a term's size, at least 0; its mean over the past is that of what is typical."""
    return math.log(_size(means, name))


def alike(diversity: float, widest: float) -> Signs:
    """Samples lie much closer together than real images do, and have lain a third farther apart, or never farther.

    `widest` is the largest diversity (`metrics.diversity`) of earlier evaluations of what was trained, 0 where there
    is none. Below 0.3 samples are alike; healthy runs have 0.4 to 0.9. That an untrained generator's are alike too
    (0.02 to 0.04 of a DCGAN) is no collapse, nor that they begin to differ only slowly: a generator that has not
    fallen is in it only below 0.1, where it does not get better.
    """
    if diversity < min(_ALIKE, _FALLEN * widest):
        before = f"{widest:.2g} times at most before"
    elif max(diversity, widest) < _ALL_ALIKE and diversity <= _RISING * widest:
        before = "never farther before"
    else:
        return {}
    return {"mode collapse": f"samples lay {diversity:.2g} times as far apart as real images, {before}"}


def _size(means: Means, name: str) -> float:
    return max(abs(means[name]), _SMALL)
