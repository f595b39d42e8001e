"""Spectral normalisation (Miyato et al. 2018): weights divided by their largest singular value."""

from __future__ import annotations

from torch import nn
from torch.nn.utils.parametrizations import spectral_norm


def normalise_spectrally(network: nn.Module) -> None:
    """Normalises the weight of every convolution, dense layer and embedding of a network, in place.

    The last step of a constructor: the first vectors of the power iteration come from the weights as they are. Each
    training forward is one iteration, until `training.spectral` takes over.
    """
    for module in list(network.modules()):
        if isinstance(module, nn.Conv2d | nn.ConvTranspose2d | nn.Linear | nn.Embedding):
            spectral_norm(module)
