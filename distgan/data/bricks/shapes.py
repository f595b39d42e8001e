"""The shapes of the fifty kinds of toy brick. One unit is the distance of two studs (8 mm); z points up."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache, partial

from distgan.data.bricks.solids import Quadric, Solid, Vector, block, cut, frustum

BRICK_HEIGHT = 1.2

PLATE_HEIGHT = 0.4

STUD_RADIUS = 0.3

STUD_HEIGHT = 0.22

_LIP = 0.2

_SUNK = 0.1


@dataclass(frozen=True)
class Brick:
    """A brick's `bodies`, and its studs, given by the centers (x, y, z) of their feet, all at one height.

    `hollow` studs are tubes. Bodies may overlap.
    """

    bodies: tuple[Solid, ...]
    studs: tuple[Vector, ...] = ()
    hollow: bool = False

    @property
    def casts_on_itself(self) -> bool:
        """Whether a body can shade another one or a wall of its own holes."""
        return len(self.bodies) > 1 or any(body.holes for body in self.bodies)


def stud_solid(foot: Vector, hollow: bool) -> Solid:
    """The stud that stands on `foot`, sunk a little into the body so that no bevel shows at its foot."""
    x, y, z = foot
    bore = (frustum(x, y, (z, z + 1), (0.19, 0.19)),) if hollow else ()
    return frustum(x, y, (z - _SUNK, z + STUD_HEIGHT), (STUD_RADIUS, STUD_RADIUS), bore)


def _studs(columns: int, rows: int, z: float) -> tuple[Vector, ...]:
    return tuple((x + 0.5, y + 0.5, z) for x in range(columns) for y in range(rows))


def _rectangular(columns: int, rows: int, height: float) -> Brick:
    return Brick((block((columns, rows, height)),), _studs(columns, rows, height))


def _corner(height: float) -> Brick:
    notch = block((2, 2, 4), corner=(1, 1, -1))
    studs = tuple(stud for stud in _studs(2, 2, height) if stud[:2] != (1.5, 1.5))
    outline = block((2, 2, height), (cut((2, 1), (1, 2), (0, 1)),)).hull
    return Brick((replace(block((2, 2, height), holes=(notch,)), hull=outline),), studs)


def _jumper() -> Brick:
    return Brick((block((2, 1, PLATE_HEIGHT)),), ((1, 0.5, PLATE_HEIGHT),), hollow=True)


def _tile(columns: int, rows: int) -> Brick:
    foot = block((columns - 0.1, rows - 0.1, 0.1), corner=(0.05, 0.05, 0))
    return Brick((foot, block((columns, rows, PLATE_HEIGHT - 0.08), corner=(0, 0, 0.08))))


def _grille() -> Brick:
    slots = tuple(block((1.7, 0.13, 1), corner=(0.15, 0.14 + 0.195 * slot, 0.15)) for slot in range(4))
    return Brick((block((2, 1, PLATE_HEIGHT), holes=slots),))


def _slope(depth: int, columns: int) -> Brick:
    """One row of studs, then a ramp down to a lip."""
    ramp = cut((depth, _LIP), (1, BRICK_HEIGHT), (1, 2))
    return Brick((block((columns, depth, BRICK_HEIGHT), (ramp,)),), _studs(columns, 1, BRICK_HEIGHT))


def _cheese() -> Brick:
    return Brick((block((1, 1, 0.8), (cut((1, 0.15), (0.1, 0.8), (1, 2)),)),))


def _ridge() -> Brick:
    ramps = (cut((2, _LIP), (1, BRICK_HEIGHT), (1, 2)), cut((1, BRICK_HEIGHT), (0, _LIP), (1, 2)))
    return Brick((block((2, 2, BRICK_HEIGHT), ramps),))


def _inverted_slope() -> Brick:
    ramp = cut((1, 0), (2, BRICK_HEIGHT - _LIP), (1, 2))
    return Brick((block((2, 2, BRICK_HEIGHT), (ramp,)),), _studs(2, 2, BRICK_HEIGHT))


def _hip() -> Brick:
    ramps = (cut((2, _LIP), (1, BRICK_HEIGHT), (1, 2)), cut((2, _LIP), (1, BRICK_HEIGHT), (0, 2)))
    return Brick((block((2, 2, BRICK_HEIGHT), ramps),), _studs(1, 1, BRICK_HEIGHT))


def _curved_slope() -> Brick:
    reach = 2 / math.sqrt(1 - (_LIP / BRICK_HEIGHT) ** 2)
    arc = Quadric((0, 0, 0), (0, 1 / reach**2, 1 / BRICK_HEIGHT**2), 1)
    return Brick((block((2, 2, BRICK_HEIGHT), quadrics=(arc,)),))


def _round_1x1(height: float) -> Brick:
    waist = height / 3
    foot = frustum(0, 0, (0, waist), (0.38, 0.38))
    return Brick((foot, frustum(0, 0, (waist, height), (0.5, 0.5))), ((0, 0, height),), hollow=True)


def _round_2x2(height: float) -> Brick:
    axle = frustum(1, 1, (-1, 3), (0.24, 0.24))
    foot = frustum(1, 1, (0, 0.16), (0.88, 0.88), (axle,))
    return Brick((foot, frustum(1, 1, (0.16, height), (1, 1), (axle,))), _studs(2, 2, height))


def _round_tile() -> Brick:
    foot = frustum(0, 0, (0, 0.1), (0.94, 0.94))
    return Brick((foot, frustum(0, 0, (0.08, PLATE_HEIGHT), (1, 1))))


def _round_corner() -> Brick:
    arc = Quadric((0, 0, 0), (1, 1, 0), 4)
    studs = tuple(stud for stud in _studs(2, 2, BRICK_HEIGHT) if stud[:2] != (1.5, 1.5))
    reach = 2 * math.sqrt(2) - 2
    outline = block((2, 2, BRICK_HEIGHT), (cut((2, reach), (reach, 2), (0, 1)),)).hull
    return Brick((replace(block((2, 2, BRICK_HEIGHT), quadrics=(arc,)), hull=outline),), studs)


def _cone_1x1() -> Brick:
    foot = frustum(0, 0, (0, 0.22), (0.5, 0.5))
    return Brick((foot, frustum(0, 0, (0.2, 1.2), (0.5, 0.33))), ((0, 0, 1.2),), hollow=True)


def _cone_2x2() -> Brick:
    foot = frustum(0, 0, (0, 0.32), (1, 1))
    return Brick((foot, frustum(0, 0, (0.3, 2.4), (1, 0.5))), ((0, 0, 2.4),), hollow=True)


def _dome() -> Brick:
    foot = frustum(1, 1, (0, 0.3), (1, 1))
    cap = replace(frustum(1, 1, (0.25, 1.2), (1, 1)), quadrics=(Quadric((1, 1, 0.25), (1, 1, 1), 1),))
    return Brick((foot, cap), ((1, 1, 1.2),))


def _bore(x: float, z: float, radius: float) -> Solid:
    """A lying cylinder through the whole depth of a brick one stud deep."""
    ring = Quadric((x, 0, z), (1, 0, 1), radius**2)
    return block((2 * radius, 3, 2 * radius), quadrics=(ring,), corner=(x - radius, -1, z - radius))


def _arch() -> Brick:
    opening = _bore(2, -0.05, 1)
    return Brick((block((4, 1, BRICK_HEIGHT), holes=(opening,)),), _studs(4, 1, BRICK_HEIGHT))


def _beam() -> Brick:
    """A brick with round holes through its long side."""
    bores = tuple(_bore(x, 0.68, 0.3) for x in (1, 2, 3))
    body = block((4, 1, BRICK_HEIGHT), holes=bores)
    return Brick((body,), _studs(4, 1, BRICK_HEIGHT), hollow=True)


def _panel() -> Brick:
    room = block((4, 2, 2), corner=(-1, 0.2, 0.2))
    return Brick((block((2, 1, BRICK_HEIGHT), holes=(room,)),))


def _wedge_plate() -> Brick:
    edge = cut((2, 1), (1, 4), (0, 1))
    studs = (*_studs(1, 4, PLATE_HEIGHT), (1.5, 0.5, PLATE_HEIGHT))
    return Brick((block((2, 4, PLATE_HEIGHT), (edge,)),), studs)


_BRICK_SIZES = ((1, 1), (1, 2), (1, 3), (1, 4), (1, 6), (2, 2), (2, 3), (2, 4), (2, 6))

_PLATE_SIZES = ((1, 1), (1, 2), (1, 3), (1, 4), (1, 6), (2, 2), (2, 3), (2, 4), (4, 4))

_TILE_SIZES = ((1, 1), (1, 2), (1, 4), (2, 2))

_SLOPE_SIZES = ((2, 1), (2, 2), (2, 4), (3, 1), (3, 2))

_BUILDERS: dict[str, Callable[[], Brick]] = {
    **{f"brick-{x}x{y}": partial(_rectangular, x, y, BRICK_HEIGHT) for x, y in _BRICK_SIZES},
    "brick-tall-1x2": partial(_rectangular, 1, 2, 2 * BRICK_HEIGHT),
    "brick-corner-2x2": partial(_corner, BRICK_HEIGHT),
    **{f"plate-{x}x{y}": partial(_rectangular, x, y, PLATE_HEIGHT) for x, y in _PLATE_SIZES},
    "plate-corner-2x2": partial(_corner, PLATE_HEIGHT),
    "plate-jumper-1x2": _jumper,
    "plate-wedge-2x4": _wedge_plate,
    **{f"tile-{x}x{y}": partial(_tile, x, y) for x, y in _TILE_SIZES},
    "tile-grille-1x2": _grille,
    **{f"slope-{depth}x{x}": partial(_slope, depth, x) for depth, x in _SLOPE_SIZES},
    "slope-cheese-1x1": _cheese,
    "slope-ridge-2x2": _ridge,
    "slope-inverted-2x2": _inverted_slope,
    "slope-corner-2x2": _hip,
    "slope-curved-2x2": _curved_slope,
    "round-1x1": partial(_round_1x1, BRICK_HEIGHT),
    "round-2x2": partial(_round_2x2, BRICK_HEIGHT),
    "round-plate-1x1": partial(_round_1x1, PLATE_HEIGHT),
    "round-plate-2x2": partial(_round_2x2, PLATE_HEIGHT),
    "round-tile-2x2": _round_tile,
    "round-corner-2x2": _round_corner,
    "cone-1x1": _cone_1x1,
    "cone-2x2": _cone_2x2,
    "dome-2x2": _dome,
    "arch-1x4": _arch,
    "beam-1x4": _beam,
    "panel-1x2": _panel,
}

KINDS: tuple[str, ...] = tuple(_BUILDERS)


@cache
def brick_of_kind(kind: str) -> Brick:
    """The shape of the kind of this name, one of `KINDS`."""
    return _BUILDERS[kind]()
