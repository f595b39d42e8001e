"""The example of a data source of one's own: emoji of a made-up package, packed by the script."""

from __future__ import annotations

import json
import runpy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from distgan.data.images import decode_image
from distgan.data.index import Index
from distgan.data.verify import verify
from distgan.errors import UserError
from distgan.storage.storage import Storage
from processes import finish, start

pytestmark = pytest.mark.timeout(60)

SCRIPT = Path(__file__).parents[2] / "examples" / "emoji.py"
SIZE = 16
# Enough for `pack` to share them among processes, each of which imports the script.
APPLES = 70
WHITE, RED = [255, 255, 255], [200, 0, 0]


def save(package: Path, name: str, image: Image.Image, **options: Any) -> dict[str, Any]:
    """Writes an image of the package; returns its entry."""
    image.save(package / "img" / "google" / "64" / name, **options)
    return {"image": name, "has_img_google": True}


def half_transparent(color: tuple[int, ...], mode: str = "RGBA") -> Image.Image:
    """A colored left half beside a right half of transparent black."""
    image = Image.new(mode, (SIZE, SIZE))
    image.paste(color, (0, 0, SIZE // 2, SIZE))
    return image


@pytest.fixture
def package(tmp_path: Path) -> Path:
    """Red apples, one of them in a palette; a hand in gray with a brown skin tone; and one without an image."""
    package = tmp_path / "package"
    (package / "img" / "google" / "64").mkdir(parents=True)
    apple = half_transparent((200, 0, 0, 255))
    emoji = [{"category": "Food", **save(package, f"{number}.png", apple)} for number in range(APPLES - 1)]
    palette = Image.new("P", (SIZE, SIZE), 1)
    palette.putpalette([*RED, 0, 0, 0])
    palette.paste(0, (0, 0, SIZE // 2, SIZE))
    emoji.append({"category": "Food", **save(package, "palette.png", palette, transparency=1)})
    hand = save(package, "hand.png", half_transparent((100, 128), "LA"))
    brown = save(package, "brown.png", half_transparent((100, 50, 0, 255)))
    emoji.append({"category": "Body", **hand, "skin_variations": {"1F3FE": brown}})
    emoji.append({"category": "Body", "image": "missing.png", "has_img_google": False})
    (package / "emoji.json").write_text(json.dumps(emoji), encoding="utf-8")
    return package


@pytest.mark.slow
def test_every_emoji_on_white_with_its_category(package: Path, tmp_path: Path) -> None:
    process = start(str(SCRIPT), str(package), "--out", "emoji", "--size", str(SIZE), cwd=tmp_path)
    output = finish(process, 50)
    assert process.returncode == 0, output
    storage = Storage.open(str(tmp_path / "emoji"))
    assert verify(storage) == []
    index = Index.load(storage)
    assert (index.header.classes, index.header.channels, len(index)) == (["Body", "Food"], 3, APPLES + 2)
    shard = (tmp_path / "emoji" / index.header.shards[0].name).read_bytes()
    seen: dict[int, list[list[int]]] = {0: [], 1: []}
    for offset, length, label in zip(index.offsets, index.lengths, index.labels, strict=True):
        pixels = decode_image(shard[offset : offset + length], SIZE, 3).transpose(1, 2, 0)
        assert (pixels[:, SIZE // 2 :] == WHITE).all()
        assert (pixels[:, : SIZE // 2] == pixels[0, 0]).all()
        seen[int(label)].append(pixels[0, 0].tolist())
    gray = round(255 + (100 - 255) * 128 / 255)
    assert np.abs(np.subtract(sorted(seen[0]), [[100, 50, 0], [gray] * 3])).max() <= 1
    assert seen[1] == [RED] * APPLES


def test_a_package_that_is_not_whole(package: Path) -> None:
    source_of = runpy.run_path(str(SCRIPT))["EmojiSource"]
    source = source_of(str(package))
    (package / "img" / "google" / "64" / "0.png").unlink()
    with pytest.raises(UserError, match=r"0\.png: cannot be read: .*unpack the package again"):
        source[0]
    for harm in ((package / "emoji.json").unlink, lambda: (package / "emoji.json").write_text("{")):
        harm()
        with pytest.raises(UserError, match="give the folder of an unpacked emoji-datasource-google"):
            source_of(str(package))
