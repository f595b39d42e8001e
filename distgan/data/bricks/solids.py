"""Convex solids: builders, ray casting in numpy, surface normals."""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]

Vector = tuple[float, float, float]

_PARALLEL = np.float32(1e-9)

_INFINITY = np.float32(np.inf)

_BEVEL = 0.055


@dataclass(frozen=True)
class Plane:
    """The half-space of the points `p` with `normal · p <= offset`; `normal` has length 1."""

    normal: Vector
    offset: float

    def distance(self, points: Floats) -> Floats:
        """Signed distance of `points` (3, ...) from the plane; negative inside."""
        return _dot(self.normal, points) - np.float32(self.offset)


@dataclass(frozen=True)
class Quadric:
    """The points `p` with `sum(scale * (p - center)**2) <= level`.

    A cylinder has a zero in `scale`, a sphere equal values, a cone a negative value and level 0. Rays must be
    flatter than a cone's flank, else they cross both of its halves and have no single interval inside.
    """

    center: Vector
    scale: Vector
    level: float

    def interval(self, origin: Floats, direction: Floats) -> tuple[Floats, Floats]:
        """Ray parameters at which rays enter and leave; `inf, -inf` for those that miss."""
        start = origin - _column(self.center, origin.ndim)
        scaled = direction * _column(self.scale, direction.ndim)
        a = np.maximum(inner(scaled, direction), _PARALLEL)
        b = inner(scaled, start)
        c = _dot(self.scale, start * start) - np.float32(self.level)
        discriminant = b * b - a * c
        root = np.sqrt(np.maximum(discriminant, 0))
        hit = discriminant > 0
        near = np.where(hit, (-b - root) / a, _INFINITY)
        far = np.where(hit, (root - b) / a, np.float32(-np.inf))
        return near, far

    def distance(self, points: Floats) -> tuple[Floats, Floats]:
        """First-order signed distance of `points` (3, N) from the surface, and its unit normals (3, N)."""
        start = points - _column(self.center, points.ndim)
        gradient = start * _column(self.scale, points.ndim)
        value = inner(gradient, start) - np.float32(self.level)
        length: Floats = np.maximum(np.sqrt(inner(gradient, gradient)), np.float32(1e-6))
        return value / (2 * length), gradient / length


@dataclass(frozen=True)
class Solid:
    """A convex body minus its `holes`, which are convex, have no holes themselves and do not touch each other.

    `hull` (V, 3) are points whose convex hull contains the body.
    """

    planes: tuple[Plane, ...]
    quadrics: tuple[Quadric, ...]
    hull: Floats
    holes: tuple[Solid, ...] = ()


def first_hits(solid: Solid, origin: Floats, direction: Floats) -> Floats:
    """Ray parameter of each ray's first point on `solid`, `inf` if there is none.

    Rays start at `origin` (3, 1, 1), outside the solid's convex body, along `direction` (3, H, W).
    """
    near, far = _interval(solid, origin, direction)
    for hole in solid.holes:
        enter, leave = _interval(hole, origin, direction)
        near = np.where((enter <= near) & (leave > near), leave, near)
    return np.where(near < far, near, _INFINITY)


def thickness(solid: Solid, points: Floats, direction: Floats) -> Floats:
    """Length (N,) of `solid` along rays from `points` (3, N) in the unit `direction` (3, 1)."""
    near, far = _interval(solid, points, direction)
    length: Floats = np.maximum(far - near, 0)
    for hole in solid.holes:
        enter, leave = _interval(hole, points, direction)
        length -= np.maximum(np.minimum(leave, far) - np.maximum(enter, near), 0)
    return length


def beveled_normals(solid: Solid, points: Floats) -> Floats:
    """Unit normals (3, N) at `points` (3, N) of the surface, bent toward the neighboring face near an edge.

    Each face within the bevel's width counts with a weight that falls linearly with distance: this
    gives molded plastic its light edges without more geometry.
    """
    normals = np.zeros_like(points)
    for plane in solid.planes:
        _add_plane(normals, _nearness(plane.distance(points)), plane.normal)
    for quadric in solid.quadrics:
        distance, outward = quadric.distance(points)
        normals += _nearness(distance) * outward
    for hole in solid.holes:
        _subtract_hole(normals, hole, points)
    length: Floats = np.maximum(np.sqrt(inner(normals, normals)), np.float32(1e-6))
    return normals / length


def inner(first: Floats, second: Floats) -> Floats:
    """Inner products of two arrays of vectors whose components are on the first axis."""
    product: Floats = first[0] * second[0] + first[1] * second[1] + first[2] * second[2]
    return product


def _interval(solid: Solid, origin: Floats, direction: Floats) -> tuple[Floats, Floats]:
    shape = np.broadcast_shapes(origin.shape[1:], direction.shape[1:])
    near = np.zeros(shape, np.float32)
    far = np.full(shape, np.inf, np.float32)
    for plane in solid.planes:
        slope = _dot(plane.normal, direction)
        slope = np.where(slope == 0, _PARALLEL, slope)
        crossing = -plane.distance(origin) / slope
        entering = slope < 0
        np.maximum(near, np.where(entering, crossing, 0), out=near)
        np.minimum(far, np.where(entering, _INFINITY, crossing), out=far)
    for quadric in solid.quadrics:
        enter, leave = quadric.interval(origin, direction)
        np.maximum(near, enter, out=near)
        np.minimum(far, leave, out=far)
    return near, far


def _subtract_hole(normals: Floats, hole: Solid, points: Floats) -> None:
    """Bend `normals` at the rim of `hole` towards the face of it that is nearest from outside."""
    distances = [plane.distance(points) for plane in hole.planes]
    outwards = [np.broadcast_to(_column(plane.normal, 2), points.shape) for plane in hole.planes]
    for quadric in hole.quadrics:
        distance, outward = quadric.distance(points)
        distances.append(distance)
        outwards.append(outward)
    stacked = np.stack(distances)
    nearest = np.argmax(stacked, axis=0)
    weight = _nearness(-np.abs(np.max(stacked, axis=0)))
    for face, outward in enumerate(outwards):
        normals -= np.where(nearest == face, weight, np.float32(0)) * outward


def _nearness(distance: Floats) -> Floats:
    nearness: Floats = np.maximum(1 + distance * np.float32(1 / _BEVEL), 0)
    return nearness


def _add_plane(normals: Floats, weight: Floats, normal: Vector) -> None:
    for axis, component in enumerate(normal):
        if component:
            normals[axis] += weight * np.float32(component)


def _dot(constant: Vector, vectors: Floats) -> Floats:
    """`constant · vectors`, without the components of `constant` that are zero."""
    terms = [vectors[axis] * np.float32(value) for axis, value in enumerate(constant) if value]
    total: Floats = terms[0]
    for term in terms[1:]:
        total = total + term
    return total


def _column(vector: Vector, ndim: int) -> Floats:
    return np.array(vector, np.float32).reshape(3, *[1] * (ndim - 1))


_HULL_SIDES = 16


def block(
    size: Vector,
    cuts: tuple[Plane, ...] = (),
    quadrics: tuple[Quadric, ...] = (),
    holes: tuple[Solid, ...] = (),
    corner: Vector = (0, 0, 0),
) -> Solid:
    """An upright box, cut by half-spaces and quadrics."""
    sides = [Plane(unit(axis, 1), corner[axis] + size[axis]) for axis in range(3)]
    sides += [Plane(unit(axis, -1), -corner[axis]) for axis in range(3)]
    planes = (*sides, *cuts)
    return Solid(planes, quadrics, _vertices(planes), holes)


def frustum(
    x: float, y: float, z: tuple[float, float], radius: tuple[float, float], holes: tuple[Solid, ...] = ()
) -> Solid:
    """An upright cylinder or cut cone about (x, y) with its radius at the lower and the upper z."""
    (low, high), (wide, narrow) = z, radius
    taper = (wide - narrow) / (high - low)
    if taper:
        side = Quadric((x, y, low + wide / taper), (1, 1, -taper * taper), 0)
    else:
        side = Quadric((x, y, 0), (1, 1, 0), wide * wide)
    angles = np.arange(_HULL_SIDES) * (2 * math.pi / _HULL_SIDES)
    around = np.stack([np.cos(angles), np.sin(angles)], axis=1) / math.cos(math.pi / _HULL_SIDES)
    rims = [
        np.column_stack([around * r + (x, y), np.full(_HULL_SIDES, level)])
        for r, level in ((wide, low), (narrow, high))
    ]
    planes = (Plane(unit(2, 1), high), Plane(unit(2, -1), -low))
    return Solid(planes, (side,), np.concatenate(rims).astype(np.float32), holes)


def unit(axis: int, sign: float) -> Vector:
    return (sign * (axis == 0), sign * (axis == 1), sign * (axis == 2))


def _vertices(planes: tuple[Plane, ...]) -> Floats:
    """Corners of a convex polyhedron: intersections of three planes that lie inside all others."""
    found: list[Vector] = []
    for three in combinations(planes, 3):
        normals = np.array([plane.normal for plane in three])
        if abs(np.linalg.det(normals)) > 1e-6:
            point = np.linalg.solve(normals, [plane.offset for plane in three])
            if all(np.dot(plane.normal, point) <= plane.offset + 1e-6 for plane in planes):
                found.append((float(point[0]), float(point[1]), float(point[2])))
    return np.array(found, np.float32)


def cut(first: tuple[float, float], second: tuple[float, float], axes: tuple[int, int]) -> Plane:
    """The half-space left of the line through two points of the plane of `axes`."""
    run = (second[0] - first[0], second[1] - first[1])
    length = math.hypot(*run)
    normal = [0.0, 0.0, 0.0]
    normal[axes[0]], normal[axes[1]] = run[1] / length, -run[0] / length
    offset = normal[axes[0]] * first[0] + normal[axes[1]] * first[1]
    return Plane((normal[0], normal[1], normal[2]), offset)
