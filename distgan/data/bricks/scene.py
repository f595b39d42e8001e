"""The scene of the brick pictures: a perspective camera, one lamp and the sky, soft shadows."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from distgan.data.bricks.shapes import STUD_HEIGHT, STUD_RADIUS, Brick
from distgan.data.bricks.solids import Floats, inner, thickness


@dataclass(frozen=True)
class Pose:
    """The camera's pose. Angles in radians.

    `distance` is the camera's distance from the brick's middle, in radii of the brick. `fill` is the share of the
    picture's side that the longer side of the brick's rectangle takes; `offset` in [-1, 1] shifts the brick from the
    middle.
    """

    azimuth: float
    elevation: float
    roll: float
    distance: float
    fill: float
    offset: tuple[float, float]


@dataclass(frozen=True)
class View:
    """A camera at `position` with a square picture: the rows of `axes` are right, down and forward.

    `center` and `half` are the picture's middle and half its width on the plane one unit in front.
    """

    position: Floats
    axes: Floats
    center: Floats
    half: float

    def rays(self, count: int) -> Floats:
        """Directions (3, count, count) through the cells of a grid, each 1 long along the camera's axis."""
        steps = ((np.arange(count, dtype=np.float32) + np.float32(0.5)) * 2 / count - 1) * self.half
        across, down = (steps + self.center[0])[None, :], (steps + self.center[1])[:, None]
        right, below, forward = self.axes
        return np.stack([right[i] * across + below[i] * down + forward[i] for i in range(3)])

    def window(self, hull: Floats, count: int) -> tuple[slice, slice]:
        """Rows and columns of that grid outside which no ray hits `hull` (V, 3)."""
        cells = (_project(hull, self.position, self.axes) - self.center) / self.half * (count / 2) + count / 2
        low = np.maximum(np.floor(cells.min(axis=0) - 1).astype(int), 0)
        high = np.minimum(np.ceil(cells.max(axis=0) + 1).astype(int), count)
        return slice(low[1], high[1]), slice(low[0], high[0])


def direction(azimuth: float, elevation: float) -> Floats:
    """Unit vector (3,) of an azimuth about the vertical and an elevation above the ground, in radians."""
    flat = math.cos(elevation)
    return np.array([flat * math.cos(azimuth), flat * math.sin(azimuth), math.sin(elevation)], np.float32)


def frame(hull: Floats, pose: Pose, size: int) -> View:
    """The camera that sees all of `hull` (V, 3), whose longer side fills the share `pose.fill` of the picture.

    It fills less if the border would be under 4 % or 1.3 pixels.
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
    center = (low + high) / 2 + np.array(pose.offset, np.float32) * np.minimum(slack, 0.1 * half)
    return View(position, axes, center.astype(np.float32), half)


def _project(points: Floats, position: Floats, axes: Floats) -> Floats:
    """Positions (V, 2) of `points` (V, 3) on the plane one unit in front of the camera."""
    relative = points - position
    right, down, forward = ((relative * axis).sum(axis=1) for axis in axes)
    return np.stack([right / forward, down / forward], axis=1)


_PENUMBRA = ((0.0, 0.12), (0.14, -0.04), (-0.14, -0.04))


@dataclass(frozen=True)
class Lamp:
    """The direction of the light, as seen from the brick: angles in radians."""

    azimuth: float
    elevation: float


def brick_light(brick: Brick, lamp: Lamp, points: Floats, normals: Floats, rays: Floats) -> tuple[Floats, Floats]:
    """Light that `points` (3, N) of the brick with `normals` (3, N) reflect along `rays` (3, N).

    Returns the diffuse light (N,), to be multiplied by the plastic's color, and the gloss (N,), to be added: Lambert's
    law for the lamp and the sky, and Blinn's half-vector highlight.
    """
    light = direction(lamp.azimuth, lamp.elevation)
    lit = _sunlight(brick, light, points, normals)
    facing = np.maximum(inner(normals, light), 0)
    sky = 0.30 + 0.12 * normals[2]
    foot = 0.7 + 0.3 * _smooth(points[2] / np.float32(0.7))
    diffuse = sky * foot + 0.74 * facing * lit

    halfway = _unit(-rays) + light[:, None]
    aligned: Floats = np.maximum(inner(normals, _unit(halfway)), 0)
    gloss: Floats = np.float32(0.30) * np.power(aligned, np.float32(40)) * lit
    return diffuse, gloss


def ground_light(brick: Brick, lamp: Lamp, view: View, size: int) -> Floats:
    """Light (size, size) on the ground behind each pixel: 1 is unshaded, as all of the border is."""
    rays = view.rays(size).reshape(3, -1)
    reach = view.position[2] / np.maximum(-rays[2], np.float32(0.02))
    points = view.position[:, None] + rays * reach
    points[2] = 0
    dark = np.zeros(size * size, np.float32)
    for turn, lift in _PENUMBRA:
        light = direction(lamp.azimuth + turn, lamp.elevation + lift)[:, None]
        covered = np.zeros_like(dark)
        for body in brick.bodies:
            covered += thickness(body, points, light)
        dark += _smooth(covered / np.float32(0.45)) / np.float32(len(_PENUMBRA))
    places = np.arange(size, dtype=np.float32)
    to_edge: Floats = np.minimum(places, places[::-1])
    fade = _smooth(to_edge / np.float32(0.12 * size))
    return 1 - 0.55 * dark.reshape(size, size) * fade[:, None] * fade[None, :]


def _sunlight(brick: Brick, light: Floats, points: Floats, normals: Floats) -> Floats:
    """Share (N,) of the main light that reaches each point of the brick."""
    lit = np.ones(points.shape[1], np.float32)
    if brick.casts_on_itself:
        for body in brick.bodies:
            lit *= 1 - _smooth(thickness(body, points + normals * np.float32(0.01), light[:, None]) / 0.15)
    if not brick.studs:
        return lit
    top = np.float32(brick.studs[0][2])
    flat = np.flatnonzero(np.abs(points[2] - top) < 0.02)
    lit[flat] *= _stud_shadows(brick, points[:2, flat], light)
    return lit


def _stud_shadows(brick: Brick, places: Floats, light: Floats) -> Floats:
    """Light (N,) left at `places` (2, N) of the face with the studs: a stud darkens its swept disc."""
    sweep = -light[:2] * np.float32(STUD_HEIGHT / light[2])
    length_squared = np.float32((sweep * sweep).sum())
    left = np.ones(places.shape[1], np.float32)
    for x, y, _ in brick.studs:
        dx, dy = places[0] - np.float32(x), places[1] - np.float32(y)
        along = np.clip((dx * sweep[0] + dy * sweep[1]) / length_squared, 0, 1)
        distance = np.hypot(dx - along * sweep[0], dy - along * sweep[1])
        np.minimum(left, _smooth((distance - np.float32(STUD_RADIUS - 0.03)) / np.float32(0.1)), out=left)
    return left


def _unit(vectors: Floats) -> Floats:
    length: Floats = np.sqrt(inner(vectors, vectors))
    return vectors / length


def _smooth(x: Floats) -> Floats:
    """The smooth step from 0 at `x <= 0` to 1 at `x >= 1`."""
    x = np.clip(x, 0, 1)
    return x * x * (3 - 2 * x)
