"""Spectral normalisation (Miyato et al. 2018): weights divided by their largest singular value."""

from __future__ import annotations

from typing import Annotated

from torch import Tensor, nn
from torch.nn.utils.parametrizations import _SpectralNorm, spectral_norm
from torch.nn.utils.parametrize import register_parametrization
from typing_extensions import Doc

SpectralNorm = Annotated[bool, Doc("divide the weights by their largest singular value")]


def normalise_spectrally(network: nn.Module) -> None:
    """Normalises the weight of every convolution, dense layer and embedding of a network, in place.

    The last step of a constructor: the first vectors of the power iteration come from the weights as they are. Each
    training forward is one iteration, until `training.spectral` takes over.
    """
    for module in list(network.modules()):
        if isinstance(module, nn.Conv2d | nn.ConvTranspose2d | nn.Linear | nn.Embedding):
            if module.weight.is_meta:
                outputs = 1 if isinstance(module, nn.ConvTranspose2d) else 0
                register_parametrization(module, "weight", _WithoutNumbers(module.weight, dim=outputs))
            else:
                spectral_norm(module)


class _WithoutNumbers(_SpectralNorm):
    """torch's module on the device "meta", with its buffers and without its iterations: there they take seconds."""

    def __init__(self, weight: Tensor, dim: int) -> None:
        nn.Module.__init__(self)
        outputs = weight.shape[dim]
        self.register_buffer("_u", weight.new_empty(outputs))
        self.register_buffer("_v", weight.new_empty(weight.numel() // outputs))

    def forward(self, weight: Tensor) -> Tensor:
        return weight
