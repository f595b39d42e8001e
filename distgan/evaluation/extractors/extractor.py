"""Feature extractors: networks that map 8-bit images to vectors, found by name."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from distgan.config.plugins import EXTRACTORS, error_text, is_custom
from distgan.errors import UserError
from distgan.evaluation.extractors.published import published_weights

_NAME = re.compile(r"[a-z][a-z0-9_]{0,31}")


class CustomFeatures:
    """A custom extractor, `target(device)`, with checks. See `FeatureExtractor`.

    Its default name is that of its class, in lower case. Raises UserError where the class is no extractor, where it
    fails, and for features of another shape than `dimension` says.
    """

    def __init__(self, target: type[Any], device: torch.device | str, where: str) -> None:
        self._where = f"evaluation.extractor={where}"
        try:
            self._extractor = target(torch.device(device))
        except Exception as error:
            raise UserError(f"{self._where}: its constructor, given a device, raised {error_text(error)}") from error
        self.name: str = getattr(self._extractor, "name", target.__name__.lower())
        self.dimension: int = getattr(self._extractor, "dimension", 0)
        if not callable(self._extractor) or not isinstance(self.dimension, int) or self.dimension < 1:
            raise UserError(f"{self._where}: it must be callable, and its `dimension` the length of a feature vector")
        if (
            not isinstance(self.name, str)
            or not _NAME.fullmatch(self.name)
            or self.name.startswith(("fid", "fd_lite0", "fd_dinov2"))
        ):
            raise UserError(
                f"{self._where}: it cannot be called {self.name!r}: its `name` has small letters, digits and '_', and "
                f"does not begin with the name of another extractor (fid, fd_lite0, fd_dinov2)"
            )
        if hasattr(self._extractor, "logits"):
            self.logits = self._extractor.logits

    @torch.inference_mode()
    def __call__(self, images: Tensor) -> Tensor:
        """See `FeatureExtractor`."""
        try:
            features = self._extractor(images)
        except Exception as error:
            raise UserError(f"{self._where}: it raised {error_text(error)}") from error
        wanted = (len(images), self.dimension)
        if not isinstance(features, Tensor) or tuple(features.shape) != wanted:
            found = tuple(features.shape) if isinstance(features, Tensor) else type(features).__name__
            raise UserError(f"{self._where}: {len(images)} images must give a tensor {wanted}, not {found}")
        return features.float()


class FeatureExtractor(Protocol):
    """A frozen network, ready on its device.

    name: as in the names of metrics, for example `fd_lite0`. Another preprocessing or layer needs another name.
    dimension: length of a feature vector.

    An extractor with a classifier also has `logits(features) -> (N, classes)`.
    """

    name: str
    dimension: int

    def __call__(self, images: Tensor) -> Tensor:
        """uint8 (N, C, H, W) with C = 1 or 3, on any device -> float32 (N, dimension) on its own device."""


def load_extractor(name: str, device: torch.device | str = "cpu", weights: Path | None = None) -> FeatureExtractor:
    """The extractor of a registered name or `module:Class`, on `device`.

    weights: the file of `published.published_weights`, checked by the caller.

    Raises UserError where there is none, or where `module:Class` is no extractor.
    """
    target = EXTRACTORS.resolve(name)
    if is_custom(name):
        return CustomFeatures(target, device, name)
    extractor: FeatureExtractor = target(device) if weights is None else target(device, weights)
    return extractor


def load_weights(network: nn.Module, weights: Path, extractor: str) -> None:
    """Loads a file of published weights into the network. Raises UserError where its names or shapes are others."""
    try:
        network.load_state_dict(torch.load(weights, map_location="cpu", weights_only=True))
    except Exception as error:
        reason = " ".join(str(error).split())
        published = published_weights(extractor)
        assert published is not None, f"{extractor} has no published weights"
        raise UserError(f"{weights}: not the weights of {extractor}: {reason:.200}; give {published.file}") from error


def checked_images(images: Tensor, extractor: str) -> None:
    """Raises UserError for images that are neither gray nor RGB."""
    assert images.dtype == torch.uint8, f"images must be uint8, not {images.dtype}"
    assert images.ndim == 4, f"images must be (N, C, H, W), not {tuple(images.shape)}"
    if images.shape[1] not in (1, 3):
        raise UserError(f"{extractor} takes images of 1 or 3 channels, not {images.shape[1]}: convert them to RGB")


@contextmanager
def exact_arithmetic(device: torch.device) -> Iterator[None]:
    """Inside, float32 is exact whatever the caller's autocast and TF32 settings, and convolutions are deterministic."""
    before = torch.backends.cuda.matmul.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = False
    try:
        with (
            torch.autocast(device.type, enabled=False),
            torch.backends.cudnn.flags(enabled=True, deterministic=True, allow_tf32=False),
        ):
            yield
    finally:
        torch.backends.cuda.matmul.allow_tf32 = before


def to_uint8(images: Tensor) -> Tensor:
    """[-1, 1] floats of any shape -> uint8, clamped and rounded to the nearest.

    Raises UserError for NaN, which 8 bits would hide.
    """
    values = images.float()
    if values.isnan().any():
        raise UserError(
            "generated images have values that are not numbers: the generator has diverged; "
            "start a new run with a lower learning rate"
        )
    return ((values.clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8)
