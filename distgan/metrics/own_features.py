"""A user's own extractor, `module:Class`, whose answers are checked before they are measured."""

from __future__ import annotations

import re
from typing import Any

import torch
from torch import Tensor

from distgan.config.own_code import why
from distgan.errors import UserError

_NAME = re.compile(r"[a-z][a-z0-9_]{0,31}")


class OwnFeatures:
    """Gives the features of `target(device)`, an instance of which is as `FeatureExtractor` says.

    Without a `name` of its own it has that of its class, in small letters. Raises UserError where the class is no
    extractor, where it fails, and for features of another shape than it has announced.
    """

    def __init__(self, target: type[Any], device: torch.device | str, where: str) -> None:
        self._where = f"evaluation.extractor={where}"
        try:
            self._extractor = target(torch.device(device))
        except Exception as error:
            raise UserError(f"{self._where}: its constructor, given a device, raised {why(error)}") from error
        self.name: str = getattr(self._extractor, "name", target.__name__.lower())
        self.dimension: int = getattr(self._extractor, "dimension", 0)
        if not callable(self._extractor) or not isinstance(self.dimension, int) or self.dimension < 1:
            raise UserError(f"{self._where}: it must be callable, and its `dimension` the length of a feature vector")
        if (
            not isinstance(self.name, str)
            or not _NAME.fullmatch(self.name)
            or self.name.startswith(("fid", "fd_lite0"))
        ):
            raise UserError(
                f"{self._where}: it cannot be called {self.name!r}: its `name` has small letters, digits and '_', and "
                f"does not begin with the name of another measure (fid, fd_lite0)"
            )
        if hasattr(self._extractor, "logits"):
            self.logits = self._extractor.logits

    @torch.inference_mode()
    def __call__(self, images: Tensor) -> Tensor:
        """See `FeatureExtractor`."""
        try:
            features = self._extractor(images)
        except Exception as error:
            raise UserError(f"{self._where}: it raised {why(error)}") from error
        wanted = (len(images), self.dimension)
        if not isinstance(features, Tensor) or tuple(features.shape) != wanted:
            found = tuple(features.shape) if isinstance(features, Tensor) else type(features).__name__
            raise UserError(f"{self._where}: {len(images)} images must give a tensor {wanted}, not {found}")
        return features.float()
