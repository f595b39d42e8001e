"""Computer-rendered pictures of toy bricks: fifty kinds, any viewing angle, gray or in color."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from distgan.data.bricks.scene import Lamp, Pose, View, brick_light, frame, ground_light
from distgan.data.bricks.shapes import KINDS, Brick, brick_of_kind, stud_solid
from distgan.data.bricks.solids import Floats, Solid, beveled_normals, first_hits
from distgan.data.sources.base import Source
from distgan.errors import UserError

__all__ = ["KINDS", "render_brick", "render_bricks"]

MIN_SIZE = 16

MAX_SIZE = 256

BACKGROUND = 255

_GAMMA = 2.2

_BACKGROUND_LIGHT = np.float32((BACKGROUND / 255) ** _GAMMA)

_COLORS = (
    (201, 26, 9),  # red
    (0, 85, 191),  # blue
    (242, 190, 20),  # yellow
    (35, 120, 65),  # green
    (75, 159, 74),  # bright green
    (254, 138, 24),  # orange
    (236, 237, 236),  # white
    (160, 165, 169),  # light gray
    (108, 110, 104),  # dark gray
    (40, 44, 48),  # black
    (88, 42, 18),  # brown
    (228, 205, 158),  # tan
    (90, 147, 219),  # medium blue
    (114, 14, 15),  # dark red
    (187, 233, 11),  # lime
    (200, 112, 160),  # pink
)


def render_brick(seed: int, index: int, size: int, channels: int = 1) -> tuple[NDArray[np.uint8], int]:
    """Renders sample `index` of the brick pictures of `seed`.

    Returns uint8 pixels (size, size, channels), gray for one channel and RGB for three, and the label: `index % 50`,
    an index into `KINDS`. Gray and color show the same scene, except for the brick's color. The border of a picture is
    always plain background.

    Raises ValueError for a size outside 16 to 256, channels other than 1 or 3, or a negative seed or index.
    """
    _check(seed, index, size, channels)
    label = index % len(KINDS)
    rng = np.random.default_rng(np.random.SeedSequence([seed, index]))
    pose = _draw_pose(rng)
    lamp = _draw_lamp(rng, pose)
    albedo = _draw_albedo(rng, channels)
    return _paint(brick_of_kind(KINDS[label]), pose, lamp, albedo, size), label


def render_bricks(
    seed: int, start: int, count: int, size: int, channels: int = 1
) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Samples `start` to `start + count - 1`: pixels (count, size, size, channels) and labels (count,).

    Each picture is that of `render_brick`. Raises the same errors.
    """
    _check(seed, start, size, channels)
    if count < 0:
        raise ValueError(f"count must not be negative, got {count}")
    pictures = np.empty((count, size, size, channels), np.uint8)
    labels = np.empty(count, np.int64)
    for place in range(count):
        pictures[place], labels[place] = render_brick(seed, start + place, size, channels)
    return pictures, labels


def _check(seed: int, index: int, size: int, channels: int) -> None:
    if not MIN_SIZE <= size <= MAX_SIZE:
        raise ValueError(f"size must be from {MIN_SIZE} to {MAX_SIZE} pixels, got {size}")
    if channels not in (1, 3):
        raise ValueError(f"channels must be 1 (gray) or 3 (RGB), got {channels}")
    if seed < 0 or index < 0:
        raise ValueError(f"seed and index must not be negative, got seed {seed} and index {index}")


def _draw_pose(rng: np.random.Generator) -> Pose:
    return Pose(
        azimuth=rng.uniform(0, 2 * math.pi),
        elevation=math.radians(rng.uniform(22, 60)),
        roll=math.radians(rng.uniform(-6, 6)),
        distance=rng.uniform(3.6, 5.5),
        fill=rng.uniform(0.78, 0.9),
        offset=(rng.uniform(-1, 1), rng.uniform(-1, 1)),
    )


def _draw_lamp(rng: np.random.Generator, pose: Pose) -> Lamp:
    """A lamp on the right of the camera and behind the brick, so shadows fall to the left and forward."""
    turn = math.radians(rng.uniform(112, 142))
    return Lamp(pose.azimuth + turn, math.radians(rng.uniform(48, 62)))


def _draw_albedo(rng: np.random.Generator, channels: int) -> Floats:
    """Share of the light that the plastic reflects, per channel."""
    if channels == 1:
        shade = np.array([rng.uniform(0.25, 0.8)])
    else:
        shade = np.array(_COLORS[rng.integers(len(_COLORS))]) / 255
    return (shade**_GAMMA).astype(np.float32)


def _paint(brick: Brick, pose: Pose, lamp: Lamp, albedo: Floats, size: int) -> NDArray[np.uint8]:
    solids = [*brick.bodies, *(stud_solid(foot, brick.hollow) for foot in brick.studs)]
    view = frame(np.concatenate([solid.hull for solid in solids]), pose, size)
    oversampling = 2 if size >= 32 else 4

    rays = view.rays(size * oversampling)
    hit, points, normals = _cast(solids, view, rays)
    diffuse, gloss = brick_light(brick, lamp, points, normals, rays[:, hit])

    uncovered = 1 - _average(hit, np.ones(len(diffuse), np.float32), size)
    ground = _BACKGROUND_LIGHT * uncovered * ground_light(brick, lamp, view, size)
    glint = ground + _average(hit, gloss, size)
    radiance = _average(hit, diffuse, size)[..., None] * albedo + glint[..., None]
    encoded = np.rint(np.minimum(radiance, 1) ** np.float32(1 / _GAMMA) * 255)
    return encoded.astype(np.uint8)


def _cast(solids: list[Solid], view: View, rays: Floats) -> tuple[NDArray[np.bool_], Floats, Floats]:
    """Which rays hit the brick, (H, W), and for those, in order, the points (3, N) and normals (3, N)."""
    count = rays.shape[1]
    origin = view.position[:, None, None]
    depth = np.full((count, count), np.inf, np.float32)
    owner = np.full((count, count), -1, np.int16)
    for number, solid in enumerate(solids):
        rows, columns = view.window(solid.hull, count)
        reached = first_hits(solid, origin, rays[:, rows, columns])
        nearer = reached < depth[rows, columns]
        np.copyto(depth[rows, columns], reached, where=nearer)
        np.copyto(owner[rows, columns], np.int16(number), where=nearer)

    hit = owner >= 0
    owners = owner[hit]
    points = view.position[:, None] + rays[:, hit] * depth[hit]
    normals = np.empty_like(points)
    for number, solid in enumerate(solids):
        mine = np.flatnonzero(owners == number)
        normals[:, mine] = beveled_normals(solid, points[:, mine])
    return hit, points, normals


def _average(hit: NDArray[np.bool_], values: Floats, size: int) -> Floats:
    """Mean, (size, size), over each pixel's rays; `values` (N,) has one value a ray that hits, the others are 0."""
    fine = np.zeros(hit.shape, np.float32)
    fine[hit] = values
    factor = hit.shape[0] // size
    total = np.zeros((size, size), np.float32)
    for place in range(factor * factor):
        total += fine[place // factor :: factor, place % factor :: factor]
    return total / np.float32(factor * factor)


class BrickSource(Source):
    """`samples` renderings of the seed, cycling through the kinds. Raises UserError for values out of range."""

    def __init__(self, seed: int, samples: int, image_size: int, channels: int) -> None:
        if not MIN_SIZE <= image_size <= MAX_SIZE:
            raise UserError(f"--size {image_size}: bricks are rendered at {MIN_SIZE} to {MAX_SIZE} pixels")
        if samples < 1 or seed < 0:
            raise UserError(f"--samples {samples} --seed {seed}: samples are at least 1, a seed is not negative")
        self._seed, self._samples, self._size, self._channels = seed, samples, image_size, channels
        self.classes = list(KINDS)

    def __len__(self) -> int:
        return self._samples

    def __getitem__(self, number: int) -> tuple[NDArray[np.uint8], int]:
        return render_brick(self._seed, number, self._size, self._channels)

    def name(self, number: int) -> str:
        return f"brick {number}"
