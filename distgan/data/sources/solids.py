"""Builders of the convex solids that bricks are made of: boxes, cut boxes, cylinders and cut cones."""

from __future__ import annotations

import math
from itertools import combinations

import numpy as np

from distgan.data.sources.raycast import Floats, Plane, Quadric, Solid, Vector

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
    """Corners of a convex polyhedron: the points where three planes meet and no other excludes."""
    found: list[Vector] = []
    for three in combinations(planes, 3):
        normals = np.array([plane.normal for plane in three])
        if abs(np.linalg.det(normals)) > 1e-6:
            point = np.linalg.solve(normals, [plane.offset for plane in three])
            if all(np.dot(plane.normal, point) <= plane.offset + 1e-6 for plane in planes):
                found.append((float(point[0]), float(point[1]), float(point[2])))
    return np.array(found, np.float32)


def cut(first: tuple[float, float], second: tuple[float, float], axes: tuple[int, int]) -> Plane:
    """The plane through two points of the plane of `axes`, keeping what lies left of the way between them."""
    run = (second[0] - first[0], second[1] - first[1])
    length = math.hypot(*run)
    normal = [0.0, 0.0, 0.0]
    normal[axes[0]], normal[axes[1]] = run[1] / length, -run[0] / length
    offset = normal[axes[0]] * first[0] + normal[axes[1]] * first[1]
    return Plane((normal[0], normal[1], normal[2]), offset)
