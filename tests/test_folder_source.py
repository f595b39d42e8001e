"""Folders of images as a source."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import ExifTags, Image

from distgan.data.sources.folder import FolderSource
from distgan.data.sources.idx import IdxSource
from distgan.data.sources.image_files import read_image
from distgan.data.sources.npz import NpzSource
from distgan.errors import UserError
from miniatures import BRICKS, lego_folder
from packing import write_image

pytestmark = pytest.mark.timeout(60)


def test_a_folder_of_class_folders(tmp_path: Path) -> None:
    for place, name in enumerate(["cats/b.png", "cats/deep/a.JPG", "apes/z.webp", "dogs/one.bmp"]):
        write_image(tmp_path / name, 50 * place)
    for name in ("cats/notes.txt", "apes/film.MP4", "more.TXT", ".hidden"):
        (tmp_path / name).write_text("no image")
    source = FolderSource(str(tmp_path))
    assert source.left_out == {".txt": 2, ".mp4": 1, "": 1}
    assert source.classes == ["apes", "cats", "dogs"]
    assert len(source) == 4
    assert [source[number][1] for number in range(4)] == [0, 1, 1, 2]
    assert [int(source[number][0].flat[0]) for number in range(4)] == pytest.approx([100, 0, 50, 150], abs=3)


def test_a_flat_folder_has_no_classes(tmp_path: Path) -> None:
    for name in "ba":
        write_image(tmp_path / f"{name}.png", ord(name))
    source = FolderSource(str(tmp_path))
    assert source.classes == []
    assert [(int(source[number][0][0, 0]), source[number][1]) for number in range(2)] == [(97, -1), (98, -1)]


@pytest.mark.parametrize("orientation", [*range(1, 9), 77])
def test_photographs_are_packed_upright(tmp_path: Path, orientation: int) -> None:
    pixels = np.arange(6, dtype=np.uint8).reshape(2, 3) * 40
    turned = {1: pixels, 2: pixels[:, ::-1], 3: pixels[::-1, ::-1], 4: pixels[::-1], 5: pixels.T,
              6: np.rot90(pixels, -1), 7: pixels[::-1, ::-1].T, 8: np.rot90(pixels)}  # fmt: skip
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    Image.fromarray(pixels).save(tmp_path / "a.png", exif=exif)
    assert np.array_equal(read_image(tmp_path / "a.png", "a.png"), turned.get(orientation, pixels))


def test_a_folder_keeps_colour_and_16_bits(tmp_path: Path) -> None:
    Image.new("RGB", (4, 4), (255, 0, 9)).save(tmp_path / "a.png")
    Image.new("P", (4, 4)).save(tmp_path / "b.png")
    Image.fromarray(np.full((4, 4), 0x8012, np.uint16)).save(tmp_path / "c.png")
    Image.new("LA", (4, 4), (70, 0)).save(tmp_path / "d.png")
    source = FolderSource(str(tmp_path))
    assert source[0][0][0, 0].tolist() == [255, 0, 9]
    assert source[1][0].shape == (4, 4, 3)
    assert (source[2][0] == 0x80).all()
    assert source[3][0][0, 0].tolist() == [70, 0], "grey and its transparency"


def test_classes_in_the_names_of_files(tmp_path: Path) -> None:
    lego_folder(tmp_path)
    views = {r"^(.+) [0-9]{3}[LR]$": 4, r"^.+(?= [0-9]{3}[LR])": 4, r"([LR])$": 6, r"[0-9]{3}[LR]": 3}
    for pattern, images in views.items():
        source = FolderSource(str(tmp_path / "dataset"), pattern)
        assert len(source) == 12
        labels = [source[number][1] for number in range(12)]
        assert np.bincount(labels).tolist() == [images] * len(source.classes)
        files = sorted(path.stem for path in (tmp_path / "dataset").iterdir())
        assert all(source.classes[label] in file for file, label in zip(files, labels, strict=True))
    assert FolderSource(str(tmp_path / "dataset"), next(iter(views))).classes == sorted(BRICKS)
    assert FolderSource(str(tmp_path), next(iter(views))).classes == sorted(BRICKS), "folders are no classes then"
    assert FolderSource(str(tmp_path / "dataset")).classes == []


FOLDERS: dict[str, tuple[Callable[[Path], object], str]] = {
    "missing": (lambda path: None, "no such folder of images"),
    "a file": (lambda path: path.write_text("x"), "no such folder of images"),
    "empty": (lambda path: path.mkdir(), "no image files below it"),
    "no images": (lambda path: (path.mkdir(), (path / "a.txt").write_text("")), "no image files below it"),
    "mixed": (
        lambda path: (write_image(path / "a" / "1.png"), write_image(path / "2.png")),
        r"2\.png: lies beside class folders",
    ),
    "text as image": (lambda path: (path.mkdir(), (path / "a.png").write_text("x")), r"a\.png: not a readable image"),
    "32 bits": (
        lambda path: (path.mkdir(), Image.new("F", (4, 4)).save(path / "a.tif")),
        r"a\.tif: not a readable image: its pixels have 32 bits",
    ),
}


@pytest.mark.parametrize("name", FOLDERS)
def test_a_wrong_folder_is_named(tmp_path: Path, name: str) -> None:
    make, message = FOLDERS[name]
    make(tmp_path / "photos")
    with pytest.raises(UserError, match=message):
        FolderSource(str(tmp_path / "photos"))[0]


def test_a_name_too_long_for_a_path() -> None:
    for source in (FolderSource, IdxSource, NpzSource):
        with pytest.raises(UserError, match=r"name is too long|name too long"):
            source("x" * 5000)
