"""The signs of ill health: pure rules of what a stretch of training and an evaluation showed against the run's past.

The bounds are measured, on small runs that were provoked and on healthy ones: the figures stand beside each.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

from distgan.training.events import State

# Means over a window of updates, by the names that the terms have in the metrics.
Means = Mapping[str, float]
# States whose sign is there, each with a sentence of what was seen.
Signs = dict[State, str]

GRADIENT = "gradients/generator"
# What explodes, and below which size it is small whatever its past was.
SIZES = {"loss/generator": 1.0, "loss/discriminator": 1.0, GRADIENT: 1e-3, "gradients/discriminator": 1e-3}

_COLLAPSED_LOSS = 0.05
_ALMOST_ALL = 0.95
_NO_GRADIENT = 1e-6
_EXPLODED = 100.0
_ALIKE = 0.3
_FALLEN = 0.75
_ALL_ALIKE = 0.1


def discriminator_overpowers(means: Means, chance_loss: float | None, largest_gradient: float) -> Signs:
    """The discriminator's loss is next to nothing and it tells almost all images, real and fake.

    Asked of objectives in which a logit's sign means something (`Objective.chance_loss`). A Wasserstein critic is meant
    to be trained to its best, its loss estimates a distance that has no scale, and only differences of its logits
    mean anything: of such a critic there is no overpowering to see, and nothing is said. Nor with flipped labels,
    with which the loss cannot get small, and the logits not large.

    The loss falls to 0.1 % to 1 % of chance where it was provoked, and to 24 % in a whole healthy run of `quickstart`;
    the bound is 5 %. The generator's gradient is told but not asked for: with the non-saturating loss it does not
    vanish but grows, in the provoked run from 8 to 200.
    """
    loss = means.get("loss/adversarial", means["loss/discriminator"])
    real, fake = means["accuracy/real"], means["accuracy/fake"]
    if chance_loss is None or loss > _COLLAPSED_LOSS * chance_loss or min(real, fake) < _ALMOST_ALL:
        return {}
    return {
        "discriminator overpowers": (
            f"its loss was {loss:.2g} ({chance_loss:.2g} for one that cannot tell) and it told {real:.1%} of the real "
            f"and {fake:.1%} of the generated images; the generator's gradient had a norm of {means[GRADIENT]:.2g} "
            f"(at most {largest_gradient:.2g} before)"
        )
    }


def no_gradient(means: Means, largest_gradient: float) -> Signs:
    """The generator's gradient is a millionth of what it has been: it learns nothing any more."""
    gradient = means[GRADIENT]
    if gradient > _NO_GRADIENT * largest_gradient:
        return {}
    return {
        "dead generator": f"its gradient had a norm of {gradient:.2g}, and of up to {largest_gradient:.2g} before",
    }


def exploded(means: Means, typical: Means) -> Signs:
    """A loss or a gradient is 100 times what is typical of the run so far; in healthy ones up to 17 times."""
    factors = {name: _size(means, name) / size for name, size in typical.items()}
    name = max(factors, key=lambda key: factors[key], default=None)
    if name is None or factors[name] < _EXPLODED:
        return {}
    return {"diverged": f"{name} was {means[name]:.3g} in size, {factors[name]:,.0f} times what it was before"}


def log_size(means: Means, name: str) -> float:
    """The logarithm of a term's size, of which the mean over the past is what is typical."""
    return math.log(_size(means, name))


def alike(diversity: float, widest: float) -> Signs:
    """Samples lie much closer together than real images do, and have lain a third farther apart, or never apart at all.

    `widest` is the largest diversity (`metrics.diversity`) of all evaluations of what was trained, this one included.
    Below 0.3 samples are alike; healthy runs have 0.4 to 0.9. That an untrained generator's are alike too (0.02 to
    0.04 of a DCGAN) is no collapse, nor that they begin to differ only slowly: only a generator that has never
    exceeded 0.1 is in it without having fallen.
    """
    if diversity >= _ALIKE or max(_FALLEN * widest, _ALL_ALIKE) <= diversity:
        return {}
    before = f"{widest:.2g} times at most before" if diversity < widest else "never farther"
    return {"mode collapse": f"samples lay {diversity:.2g} times as far apart as real images, {before}"}


def _size(means: Means, name: str) -> float:
    return max(abs(means[name]), SIZES[name])
