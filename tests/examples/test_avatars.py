"""The example of a data source that draws its images: faces, blond or not, packed by the script."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from distgan.data.images import decode_image
from distgan.data.index import Index
from distgan.data.verify import verify
from distgan.errors import UserError
from distgan.storage.storage import Storage
from processes import finish, start

pytestmark = pytest.mark.timeout(120)

SCRIPT = Path(__file__).parents[2] / "examples" / "avatars.py"


@pytest.fixture
def avatars(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(str(SCRIPT.parent))
    import avatars

    return avatars


def hair_brightness(image: NDArray[np.uint8]) -> float:
    """The mean of the opaque pixels at the top of a head, 0 to 255."""
    top = image[:40, 40:88]
    return float(top[top[..., 3] > 200][:, :3].mean())


def test_a_face_depends_on_its_number_and_the_seed_alone(avatars: Any) -> None:
    one, label = avatars.AvatarSource(10)[3]
    other, again = avatars.AvatarSource(500)[3]
    assert one.shape == (128, 128, 4)
    assert one.dtype == np.uint8
    assert (one == other).all()
    assert label == again
    assert (one != avatars.AvatarSource(10, seed=1)[3][0]).any()
    assert (one != avatars.AvatarSource(10)[4][0]).any()


def test_blond_faces_are_fewer_and_brighter_at_the_top(avatars: Any) -> None:
    source = avatars.AvatarSource(200)
    bright: dict[int, list[float]] = {0: [], 1: []}
    for number in range(len(source)):
        image, label = source[number]
        bright[label].append(hair_brightness(image))
    assert source.classes == ["blond", "other"]
    assert 40 < len(bright[0]) < 80
    assert np.mean(bright[0]) > np.mean(bright[1]) + 30


def test_no_faces_are_refused(avatars: Any) -> None:
    with pytest.raises(UserError, match="--count 0: give at least 1"):
        avatars.AvatarSource(0)


@pytest.mark.slow
def test_the_script_packs_faces_on_white(tmp_path: Path) -> None:
    process = start(str(SCRIPT), "--count", "70", "--size", "16", "--out", "faces", cwd=tmp_path)
    output = finish(process, 100)
    assert process.returncode == 0, output
    storage = Storage.open(str(tmp_path / "faces"))
    assert verify(storage) == []
    index = Index.load(storage)
    assert (index.header.classes, index.header.channels, len(index)) == (["blond", "other"], 3, 70)
    shard = (tmp_path / "faces" / index.header.shards[0].name).read_bytes()
    for offset, length in zip(index.offsets, index.lengths, strict=True):
        corners = decode_image(shard[offset : offset + length], 16, 3)[:, 0, [0, -1]]
        assert corners.min() > 240  # beside every head
