"""The power iteration of spectral normalisation (Miyato et al. 2018), independent of how groups are spread."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.utils.parametrizations import _SpectralNorm
from torch.nn.utils.parametrize import ParametrizationList


class PowerIteration:
    """The vectors of all spectrally normalised weights of some networks, held but for calls of `advance`.

    torch iterates in every training forward, so that the vectors would count the groups that a worker runs, the
    critic's forwards of an update, and those of the frozen critic. Here the forwards leave them as they are.

    Attributes:
        vectors: all of them, buffers of the networks.
    """

    def __init__(self, *networks: nn.Module) -> None:
        weights = [m for network in networks for m in network.modules() if isinstance(m, ParametrizationList)]
        self._norms = [(weight, norm) for weight in weights for norm in weight if isinstance(norm, _SpectralNorm)]
        self.vectors: list[Tensor] = [buffer for _, norm in self._norms for buffer in norm.buffers()]
        for _, norm in self._norms:
            norm.eval()

    @torch.no_grad()
    def advance(self) -> None:
        """One iteration from the last vectors with the weights as they are now."""
        for weight, norm in self._norms:
            norm.train()
            weight()
            norm.eval()
