"""The camera of the brick pictures: true perspective, framed so that the brick fills it and stays in it."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from distgan.data.sources.raycast import Floats


@dataclass(frozen=True)
class Pose:
    """How a picture is taken. Angles in radians.

    `distance` is the camera's from the brick's middle, in radii of the brick. `fill` is the share of the
    picture's side that the longer side of the brick's rectangle takes; `offset` in [-1, 1] shifts it
    off the middle.
    """

    azimuth: float
    elevation: float
    roll: float
    distance: float
    fill: float
    offset: tuple[float, float]


@dataclass(frozen=True)
class View:
    """A camera at `position` with a square picture: `axes` are its right, down and forward rows.

    `centre` and `half` give the picture's middle and half its width on the plane one unit in front.
    """

    position: Floats
    axes: Floats
    centre: Floats
    half: float

    def rays(self, count: int) -> Floats:
        """Directions (3, count, count) through the cells of a grid, each 1 long along the camera's axis."""
        steps = ((np.arange(count, dtype=np.float32) + np.float32(0.5)) * 2 / count - 1) * self.half
        across, down = (steps + self.centre[0])[None, :], (steps + self.centre[1])[:, None]
        right, below, forward = self.axes
        return np.stack([right[i] * across + below[i] * down + forward[i] for i in range(3)])

    def window(self, hull: Floats, count: int) -> tuple[slice, slice]:
        """Rows and columns of that grid outside which no ray meets `hull` (V, 3)."""
        cells = (_project(hull, self.position, self.axes) - self.centre) / self.half * (count / 2) + count / 2
        low = np.maximum(np.floor(cells.min(axis=0) - 1).astype(int), 0)
        high = np.minimum(np.ceil(cells.max(axis=0) + 1).astype(int), count)
        return slice(low[1], high[1]), slice(low[0], high[0])


def direction(azimuth: float, elevation: float) -> Floats:
    """Unit vector (3,) of an azimuth about the vertical and an elevation above the ground, in radians."""
    flat = math.cos(elevation)
    return np.array([flat * math.cos(azimuth), flat * math.sin(azimuth), math.sin(elevation)], np.float32)


def frame(hull: Floats, pose: Pose, size: int) -> View:
    """The camera that sees all of `hull` (V, 3), which fills the share `pose.fill` of the picture.

    Along its longer side, that is; less where a border of 4 % and of 1.3 pixels would not be left.
    """
    middle = (hull.min(axis=0) + hull.max(axis=0)) / 2
    radius = float(np.sqrt(((hull - middle) ** 2).sum(axis=1).max()))
    towards = direction(pose.azimuth, pose.elevation)
    position = middle + towards * np.float32(pose.distance * radius)

    level = np.array([-math.sin(pose.azimuth), math.cos(pose.azimuth), 0], np.float32)
    below = np.cross(-towards, level)
    cos, sin = np.float32(math.cos(pose.roll)), np.float32(math.sin(pose.roll))
    axes = np.stack([level * cos + below * sin, below * cos - level * sin, -towards])

    seen = _project(hull, position, axes)
    low, high = seen.min(axis=0), seen.max(axis=0)
    extent = float((high - low).max())
    margin = max(0.04, 1.3 / size)
    half = extent / 2 / min(pose.fill, 1 - 2 * margin)
    slack = half * (1 - 2 * margin) - (high - low) / 2
    centre = (low + high) / 2 + np.array(pose.offset, np.float32) * np.minimum(slack, 0.1 * half)
    return View(position, axes, centre.astype(np.float32), half)


def _project(points: Floats, position: Floats, axes: Floats) -> Floats:
    """Places (V, 2) of `points` (V, 3) on the plane one unit in front of the camera."""
    relative = points - position
    right, down, forward = ((relative * axis).sum(axis=1) for axis in axes)
    return np.stack([right / forward, down / forward], axis=1)
