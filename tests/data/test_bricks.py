"""The toy-brick pictures: deterministic, fifty different kinds, always inside the frame."""

from __future__ import annotations

from concurrent.futures import ProcessPoolExecutor
from itertools import combinations
from multiprocessing import get_context

import numpy as np
import pytest

from distgan.data.bricks import render
from distgan.data.bricks.render import BACKGROUND, KINDS, render_brick, render_bricks
from distgan.data.bricks.scene import Lamp, Pose
from distgan.data.bricks.shapes import brick_of_kind, stud_solid
from distgan.data.bricks.solids import Solid, first_hits, thickness

pytestmark = pytest.mark.timeout(60)

POSE = Pose(azimuth=0.6, elevation=0.6, roll=0, distance=4.5, fill=0.85, offset=(0, 0))
LAMP = Lamp(azimuth=2.8, elevation=0.95)


def _border(pictures: np.ndarray) -> np.ndarray:
    inside = np.zeros(pictures.shape[1:3], bool)
    inside[1:-1, 1:-1] = True
    return pictures[:, ~inside]


def test_a_sample_has_the_same_pixels_in_any_batch_order_and_process() -> None:
    whole, labels = render_bricks(7, 20, 12, 32)
    first, _ = render_bricks(7, 20, 5, 32)
    second, _ = render_bricks(7, 25, 7, 32)
    assert np.array_equal(np.concatenate([first, second]), whole)
    for place in (11, 3, 0):
        picture, label = render_brick(7, 20 + place, 32)
        assert np.array_equal(picture, whole[place])
        assert label == labels[place]
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        elsewhere, _ = pool.submit(render_bricks, 7, 20, 12, 32).result(timeout=50)
    assert np.array_equal(elsewhere, whole)


def test_seeds_and_indices_give_different_pictures() -> None:
    one, _ = render_bricks(0, 0, 4, 32)
    other, _ = render_bricks(1, 0, 4, 32)
    later, _ = render_bricks(0, len(KINDS), 4, 32)
    for first, second, third in zip(one, other, later, strict=True):
        assert not np.array_equal(first, second)
        assert not np.array_equal(first, third)


def test_labels_are_balanced_over_fifty_named_kinds() -> None:
    _, labels = render_bricks(0, 30, 100, 16)
    assert labels.dtype == np.int64
    assert len(KINDS) == len(set(KINDS)) == 50
    assert np.bincount(labels, minlength=50).tolist() == [2] * 50


def test_every_two_kinds_look_different_from_the_same_side() -> None:
    albedo = np.array([0.4], np.float32)
    pictures = {kind: render._paint(brick_of_kind(kind), POSE, LAMP, albedo, 48).astype(float) for kind in KINDS}
    for one, other in combinations(KINDS, 2):
        assert np.abs(pictures[one] - pictures[other]).max() > 40, (one, other)


@pytest.mark.parametrize(("size", "count"), [(16, 300), (33, 200), (64, 150), (256, 3)])
def test_the_brick_fills_the_picture_and_never_touches_its_border(size: int, count: int) -> None:
    pictures, _ = render_bricks(11, 0, count, size)
    assert (_border(pictures) == BACKGROUND).all()
    brick = pictures[..., 0] != BACKGROUND
    height = brick.any(axis=2).sum(axis=1)
    width = brick.any(axis=1).sum(axis=1)
    assert (np.maximum(height, width) > 0.7 * size).all()
    assert (pictures.reshape(count, -1).std(axis=1) > 10).all()


def test_gray_and_color_show_the_same_scene() -> None:
    gray, label = render_brick(5, 42, 64)
    color, same_label = render_brick(5, 42, 64, channels=3)
    assert (gray.shape, color.shape) == ((64, 64, 1), (64, 64, 3))
    assert gray.dtype == color.dtype == np.uint8
    assert label == same_label
    gray_drawn, color_drawn = (np.abs(p.astype(int) - BACKGROUND).max(axis=2) > 0 for p in (gray, color))
    assert (gray_drawn == color_drawn).mean() > 0.98


def test_pictures_use_the_range_of_grays_and_colors() -> None:
    gray, _ = render_bricks(2, 0, 50, 32)
    color, _ = render_bricks(2, 0, 50, 32, channels=3)
    darkest = gray.reshape(50, -1).min(axis=1)
    assert darkest.min() < 40
    assert darkest.max() > 90
    saturation = color.max(axis=3).astype(int) - color.min(axis=3)
    assert (saturation.max(axis=(1, 2)) > 60).sum() > 15


def test_no_kind_raises_numerical_warnings() -> None:
    with np.errstate(divide="raise", invalid="raise"):
        render_bricks(3, 0, 100, 16)


def test_a_ray_through_a_hole_meets_nothing_and_one_beside_it_does() -> None:
    body = brick_of_kind("beam-1x4").bodies[0]
    origin = np.array([2, -5, 0.68], np.float32)
    along = np.array([0, 1, 0], np.float32)
    assert np.isinf(first_hits(body, origin[:, None, None], along[:, None, None]))
    assert thickness(body, origin[:, None], along[:, None]) == 0
    beside = origin + np.array([0.5, 0, 0], np.float32)
    assert first_hits(body, beside[:, None, None], along[:, None, None]) == pytest.approx(5)
    assert thickness(body, beside[:, None], along[:, None]) == pytest.approx(1)


def _inside(solid: Solid, point: np.ndarray) -> bool:
    faces = [plane.distance(point) for plane in solid.planes]
    faces += [quadric.distance(point)[0] for quadric in solid.quadrics]
    return bool(max(face.item() for face in faces) <= 0)


def test_every_stud_stands_on_a_body_of_its_brick() -> None:
    for kind in KINDS:
        brick = brick_of_kind(kind)
        for x, y, z in brick.studs:
            for dx, dy in ((0.28, 0), (-0.28, 0), (0, 0.28), (0, -0.28)):
                below, above = (np.array([[x + dx], [y + dy], [z + h]], np.float32) for h in (-0.01, 0.01))
                assert any(_inside(body, below) for body in brick.bodies), (kind, x, y, z)
                assert not any(_inside(body, above) for body in brick.bodies), (kind, x, y, z)
                assert _inside(stud_solid((x, y, z), brick.hollow), above)


def test_the_hull_that_frames_a_brick_contains_all_of_it() -> None:
    rng = np.random.default_rng(0)
    for kind in KINDS:
        for body in brick_of_kind(kind).bodies:
            outwards = rng.normal(size=(3, 64)).astype(np.float32)
            outwards[2] = np.abs(outwards[2]) * 0.5
            outwards /= np.sqrt((outwards**2).sum(axis=0))
            origin = (body.hull.mean(axis=0)[:, None] + 20 * outwards).astype(np.float32)
            depth = first_hits(body, origin, -outwards)
            met = np.isfinite(depth)
            surface = (origin - outwards * np.where(met, depth, 0))[:, met]
            directions = rng.normal(size=(64, 3))
            assert ((directions @ surface).max(axis=1) <= (directions @ body.hull.T).max(axis=1) + 1e-4).all()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((0, 0, 15, 1), "size"),
        ((0, 0, 257, 1), "size"),
        ((0, 0, 32, 2), "channels"),
        ((-1, 0, 32, 1), "seed"),
        ((0, -1, 32, 1), "index"),
    ],
)
def test_bad_arguments_are_refused(arguments: tuple[int, int, int, int], message: str) -> None:
    seed, index, size, channels = arguments
    with pytest.raises(ValueError, match=message):
        render_brick(seed, index, size, channels)
    with pytest.raises(ValueError, match=message):
        render_bricks(seed, index, 0, size, channels)


def test_an_empty_batch_has_the_shapes_of_one_and_a_negative_count_is_refused() -> None:
    pictures, labels = render_bricks(0, 0, 0, 16, 3)
    assert pictures.shape == (0, 16, 16, 3)
    assert labels.shape == (0,)
    with pytest.raises(ValueError, match="count"):
        render_bricks(0, 0, -1, 16)
