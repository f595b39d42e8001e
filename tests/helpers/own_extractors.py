"""Extractors in a module outside the package, which configurations name; some of them wrong."""

from __future__ import annotations

import torch
from torch import Tensor


class Moments:
    """Mean and deviation of each quarter of an image."""

    dimension = 8

    def __init__(self, device: torch.device) -> None:
        self.device = device

    def __call__(self, images: Tensor) -> Tensor:
        rows = images.to(self.device).double().flatten(1).unflatten(1, (4, -1))
        return torch.cat([rows.mean(2), rows.std(2)], 1)


class Nameless(Moments):
    name = "fid_of_mine"


class Dimensionless:
    def __init__(self, device: torch.device) -> None:
        pass

    def __call__(self, images: Tensor) -> Tensor:
        return images.float().flatten(1)


class Untrue(Moments):
    dimension = 7


class Failing(Moments):
    def __call__(self, images: Tensor) -> Tensor:
        raise RuntimeError("no such layer")


class Unmade(Moments):
    def __init__(self) -> None:
        super().__init__(torch.device("cpu"))
