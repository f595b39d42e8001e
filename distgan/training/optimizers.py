"""The optimizers of both networks, their learning rates and moments, and clipping of gradients by norm."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import accumulate
from typing import Any

import torch
from torch import Tensor, nn

from distgan.config.optimizer import AdamConfig, OptimizerConfig, OptimizersConfig, RMSPropConfig
from distgan.config.schedule import Schedule, value_at
from distgan.training.state_file import TensorSpec

# Gradients begin at multiples of so many numbers: fused optimizers load four at once.
_ALIGNED = 16


@dataclass
class Optimizers:
    """One optimizer for each network.

    Attributes:
        gradients: of each network all gradients as one vector, once their memory is fixed.
    """

    generator: torch.optim.Optimizer
    discriminator: torch.optim.Optimizer
    config: OptimizersConfig
    gradients: dict[str, Tensor] = field(default_factory=dict)

    def zero_grad(self, *networks: str) -> None:
        """Clears the gradients of the networks named, of both by default."""
        for name in networks or ("generator", "discriminator"):
            if name in self.gradients:
                self.gradients[name].zero_()
            else:
                getattr(self, name).zero_grad()

    @property
    def can_be_captured(self) -> bool:
        """Whether a CUDA graph can have the optimizers' steps: those of Adam, whose decays are constant."""
        configs = (self.config.generator, self.config.discriminator)
        return all(isinstance(config, AdamConfig) and not isinstance(config.beta2, Schedule) for config in configs)

    def fix_memory(self) -> None:
        """Gives gradients and learning rates memory that stays, for CUDA graphs to work on."""
        for name, optimizer in (("generator", self.generator), ("discriminator", self.discriminator)):
            parameters = [each for group in optimizer.param_groups for each in group["params"] if each.requires_grad]
            self.gradients[name] = _one_vector_of_gradients(parameters)
            for group in optimizer.param_groups if self.can_be_captured else ():
                group["lr"] = torch.tensor(float(group["lr"]), device=parameters[0].device)
                group["capturable"] = group["lr"].is_cuda

    def release_memory(self) -> None:
        """Takes the vectors of gradients back."""
        self.gradients.clear()
        self.zero_grad()

    def follow_schedules(self, kimg: float) -> None:
        """Sets the learning rates and the decays of the mean squares for a step that begins after `kimg`."""
        for name, rate in self.learning_rates(kimg).items():
            optimizer, config = getattr(self, name), getattr(self.config, name)
            for group in optimizer.param_groups:
                settings = _settings(config, kimg)
                del settings["lr"]
                group |= settings
                if isinstance(group["lr"], Tensor):
                    group["lr"].fill_(rate)
                else:
                    group["lr"] = rate

    def learning_rates(self, kimg: float) -> dict[str, float]:
        """The learning rate of each network after `kimg` thousand real images."""
        factor = value_at(self.config.lr_factor, kimg)
        sides = {"generator": self.config.generator, "discriminator": self.config.discriminator}
        return {name: value_at(side.lr, kimg) * factor for name, side in sides.items()}

    def state(self, network: str, updates: int) -> dict[str, Any]:
        """The state of a network's optimizer after so many updates, with learning rates as numbers."""
        found: dict[str, Any] = getattr(self, network).state_dict()
        groups = [group | {"lr": float(group["lr"])} for group in found["param_groups"]]
        return {"state": found["state"] if updates else {}, "param_groups": groups}

    def load_moments(self, generator: Mapping[str, Any], discriminator: Mapping[str, Any]) -> None:
        """Loads the moments from saved states of both optimizers; rates and betas stay as configured."""
        _load_moments(self.generator, generator["state"])
        _load_moments(self.discriminator, discriminator["state"])

    def update_generator(self) -> None:
        """One optimizer step of the generator; its gradients are complete."""
        _update(self.generator, self.config.generator)

    def update_discriminator(self) -> None:
        """One optimizer step of the discriminator; its gradients are complete."""
        _update(self.discriminator, self.config.discriminator)


def build_optimizers(config: OptimizersConfig, generator: nn.Module, discriminator: nn.Module) -> Optimizers:
    """The optimizers that the configuration names, over all parameters of each network."""
    return Optimizers(_build(config.generator, generator), _build(config.discriminator, discriminator), config)


def moment_specs(config: AdamConfig | RMSPropConfig, network: nn.Module) -> dict[int, dict[str, TensorSpec]]:
    """Shapes and dtypes of an optimizer's moments after its first step, by the number of the parameter."""
    kept: dict[torch.dtype, dict[str, Tensor]] = {}
    specs = {}
    for number, parameter in enumerate(network.parameters()):
        if parameter.requires_grad:
            if parameter.dtype not in kept:
                kept[parameter.dtype] = _moments_of_two_numbers(config, parameter.dtype)
            specs[number] = {
                name: TensorSpec.of(value if value.ndim == 0 else parameter)
                for name, value in kept[parameter.dtype].items()
            }
    return specs


def _moments_of_two_numbers(config: AdamConfig | RMSPropConfig, dtype: torch.dtype) -> dict[str, Tensor]:
    parameter = nn.Parameter(torch.zeros(2, dtype=dtype))
    parameter.grad = torch.zeros_like(parameter)
    optimizer = _build(config, nn.ParameterList([parameter]))
    optimizer.step()
    return dict(optimizer.state[parameter])


def _one_vector_of_gradients(parameters: Sequence[nn.Parameter]) -> Tensor:
    """Zeros, of which each parameter's gradient is a part with the parameter's strides."""
    starts = [0, *accumulate(-(-parameter.numel() // _ALIGNED) * _ALIGNED for parameter in parameters)]
    vector = torch.zeros(starts[-1], device=parameters[0].device, dtype=parameters[0].dtype)
    for parameter, start in zip(parameters, starts, strict=False):
        parameter.grad = vector.as_strided(parameter.shape, parameter.stride(), start)
    return vector


def _load_moments(optimizer: torch.optim.Optimizer, state: Mapping[int, Mapping[str, Tensor]]) -> None:
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    # In the parameter's memory format: fused optimizers walk through both side by side.
    laid_out = {
        number: {name: _laid_out(name, value, parameters[number]) for name, value in moments.items()}
        for number, moments in state.items()
    }
    optimizer.load_state_dict({"state": laid_out, "param_groups": optimizer.state_dict()["param_groups"]})


def _laid_out(name: str, value: Tensor, parameter: Tensor) -> Tensor:
    """A copy in the parameter's memory format. Raises ValueError for a value of another shape."""
    if value.shape != (() if name == "step" else parameter.shape):
        raise ValueError(f"{name} has shape {tuple(value.shape)}, and its parameter {tuple(parameter.shape)}")
    if name == "step":
        return value.clone()
    return torch.empty_like(parameter, device="cpu", dtype=value.dtype).copy_(value)


def _build(config: AdamConfig | RMSPropConfig, network: nn.Module) -> torch.optim.Optimizer:
    if isinstance(config, AdamConfig):
        return torch.optim.Adam(network.parameters(), **_adam(config, 0), fused=True)
    return torch.optim.RMSprop(network.parameters(), **_rmsprop(config, 0))


def _settings(config: AdamConfig | RMSPropConfig, kimg: float) -> dict[str, Any]:
    """The arguments of torch's optimizer after `kimg`."""
    return _adam(config, kimg) if isinstance(config, AdamConfig) else _rmsprop(config, kimg)


def _adam(config: AdamConfig, kimg: float) -> dict[str, Any]:
    betas = config.beta1, value_at(config.beta2, kimg)
    return {"lr": value_at(config.lr, kimg), "betas": betas, "eps": config.eps}


def _rmsprop(config: RMSPropConfig, kimg: float) -> dict[str, Any]:
    return {"lr": value_at(config.lr, kimg), "alpha": value_at(config.alpha, kimg), "eps": config.eps}


def _update(optimizer: torch.optim.Optimizer, config: OptimizerConfig) -> None:
    """One step, after the gradient of the whole network is clipped to `max_grad_norm` where that is set."""
    if config.max_grad_norm is not None:
        parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
        nn.utils.clip_grad_norm_(parameters, config.max_grad_norm)
    optimizer.step()
