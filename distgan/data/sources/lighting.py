"""The light of the brick pictures: one lamp and the sky, with soft shadows on the brick and on the ground."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from distgan.data.sources.brick_geometry import STUD_HEIGHT, STUD_RADIUS, Brick
from distgan.data.sources.camera import View, direction
from distgan.data.sources.raycast import Floats, inner, thickness

_PENUMBRA = ((0.0, 0.12), (0.14, -0.04), (-0.14, -0.04))


@dataclass(frozen=True)
class Lamp:
    """Where the light comes from, as seen from the brick: angles in radians."""

    azimuth: float
    elevation: float


def brick_light(brick: Brick, lamp: Lamp, points: Floats, normals: Floats, rays: Floats) -> tuple[Floats, Floats]:
    """Light that `points` (3, N) of the brick with `normals` (3, N) send back along `rays` (3, N).

    Returns the diffuse light (N,), to be multiplied by the plastic's colour, and the gloss (N,), to be added.
    Lambert's law for the lamp and the sky, Blinn's half-vector highlight.
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
