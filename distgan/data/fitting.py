"""Brings images of any shape to one size, by the way that is asked for."""

from __future__ import annotations

from typing import Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from distgan.data.images import WHITE, Colour, composed, resize_image

# What becomes of an image that is not square: stretched, its sides or top and bottom cut off, or bars put there.
Fit = Literal["stretch", "crop", "pad"]


def fit_image(
    pixels: NDArray[np.uint8],
    image_size: int,
    channels: int,
    fit: Fit = "stretch",
    crop: int | None = None,
    background: Colour = WHITE,
) -> NDArray[np.uint8]:
    """uint8 (H, W) or (H, W, 1 to 4), as a source has it, to (image_size, image_size, channels).

    Transparency is composed on the background first, so that it is not mixed with what it hides. Then the centred
    square of `crop` pixels a side is cut out, if one is asked for; then `fit` makes a square of what is none; and
    that is resized bilinearly.

    Raises ValueError where the image is smaller than `crop`.
    """
    flat = pixels[:, :, 0] if pixels.ndim == 3 and pixels.shape[2] == 1 else pixels
    image = composed(Image.fromarray(flat), background)
    if crop is not None:
        if min(image.size) < crop:
            raise ValueError(f"it has {image.width}x{image.height} pixels, fewer than --crop {crop}")
        image = _centre(image, crop)
    if fit == "crop":
        image = _centre(image, min(image.size))
    elif fit == "pad":
        image = _padded(image, channels, background)
    return resize_image(np.asarray(image), image_size, channels)


def _centre(image: Image.Image, side: int) -> Image.Image:
    """The square of `side` pixels in the middle; where it cannot be in the very middle, half a pixel up or left."""
    left, top = (image.width - side) // 2, (image.height - side) // 2
    return image.crop((left, top, left + side, top + side))


def _padded(image: Image.Image, channels: int, background: Colour) -> Image.Image:
    """The image in the middle of a square of the background."""
    if image.width == image.height:
        return image
    side = max(image.size)
    ground = Image.new("RGB", (side, side), background)
    ground.paste(image, ((side - image.width) // 2, (side - image.height) // 2))
    return ground.convert("L") if channels == 1 else ground
