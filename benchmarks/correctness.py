"""Whether two ways to take the same steps compute the same: losses and weights, to stated tolerances."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from benchmarks.batches import DistganLoop

# Steps whose losses show a wrong gradient: rounding has not grown yet.
EARLY = 3

# The largest relative differences from float32 eager that count as the same, by precision: of the losses of the first
# `EARLY` steps, of those of all steps, of the weights after them. Rounding grows fast in these networks: on a CPU, 50
# steps in another memory format give losses up to 0.02 and weights up to 0.02 apart, the first three 3e-6.
TOLERANCES = {
    "float32": {"early": 1e-3, "losses": 0.05, "weights": 0.05},
    "tf32": {"early": 2e-2, "losses": 0.1, "weights": 0.1},
    "bfloat16": {"early": 5e-2, "losses": 0.3, "weights": 0.3},
}
TOLERANCES["float64"] = TOLERANCES["float32"]


@dataclass(frozen=True)
class Trajectory:
    """The losses of each step, and the weights of both networks before and after."""

    losses: list[dict[str, Tensor]]
    initial: list[Tensor]
    weights: list[Tensor]

    @property
    def moved(self) -> float:
        """The relative difference of the weights before from those after, of the network where it is larger."""
        return max(relative_difference(a, b) for a, b in zip(self.initial, self.weights, strict=True))

    def differences(self, wanted: Trajectory) -> dict[str, float]:
        """Largest relative differences, by the names of `TOLERANCES`."""
        return {
            "early": loss_difference(self.losses[:EARLY], wanted.losses[:EARLY]),
            "losses": loss_difference(self.losses, wanted.losses),
            "weights": max(relative_difference(a, b) for a, b in zip(self.weights, wanted.weights, strict=True)),
        }


def relative_difference(found: Tensor, wanted: Tensor) -> float:
    """|found − wanted| / |wanted|, both as vectors; 0 where they are the same, infinite for what is not finite."""
    difference = float(torch.linalg.vector_norm(found.double() - wanted.double()))
    return _relative(difference, float(torch.linalg.vector_norm(wanted.double())))


def loss_difference(found: Sequence[Mapping[str, Tensor]], wanted: Sequence[Mapping[str, Tensor]]) -> float:
    """The largest difference of a loss in any step, in units of the largest value of that loss."""
    differences = []
    for name in wanted[0]:
        of, reference = (torch.tensor([float(step[name]) for step in steps]) for steps in (found, wanted))
        differences.append(_relative(float((of - reference).abs().max()), float(reference.abs().max())))
    return max(differences)


def _relative(difference: float, scale: float) -> float:
    if difference == 0:
        return 0.0
    return difference / scale if math.isfinite(difference) and scale > 0 else math.inf


def trajectory(loop: DistganLoop, steps: int) -> Trajectory:
    """Takes so many steps."""
    initial, losses = _weights(loop), []
    for _ in range(steps):
        terms = loop.step().values
        # Copied, as the replay of a graph writes them again.
        losses.append({name: value.detach().clone() for name, value in terms.items() if name.startswith("loss/")})
    return Trajectory(losses, initial, _weights(loop))


def _weights(loop: DistganLoop) -> list[Tensor]:
    networks = (loop.networks.generator, loop.networks.discriminator)
    return [torch.cat([p.detach().flatten().cpu() for p in network.parameters()]) for network in networks]
