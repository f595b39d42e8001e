"""Folders of images as a source."""

from __future__ import annotations

import os
import tempfile
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
    assert source.left_out == {".txt": 2, ".mp4": 1, "hidden or system": 1}
    assert source.classes == ["apes", "cats", "dogs"]
    assert len(source) == 4
    assert [source[number][1] for number in range(4)] == [0, 1, 1, 2]
    assert [int(source[number][0].flat[0]) for number in range(4)] == pytest.approx([100, 0, 50, 150], abs=3)


def test_links_are_followed_and_what_systems_write_is_left_out(tmp_path: Path) -> None:
    photos = tmp_path / "photos"
    for name in ("photos/cat/a.png", "elsewhere/b.png", "photos/.ipynb_checkpoints/a.png", "photos/@eaDir/a.jpg"):
        write_image(tmp_path / name)
    (photos / "dog").symlink_to("../elsewhere")
    (photos / "cat" / "link.png").symlink_to("../../elsewhere/b.png")
    for link, target in {"gone.png": "nowhere.png", "loop.png": "loop.png", "up": "..", "far": tmp_path}.items():
        (photos / "cat" / link).symlink_to(target)
    write_image(photos / "cat" / ".ipynb_checkpoints" / "a-checkpoint.png")
    for name in ("cat/._a.png", "__MACOSX", "Thumbs.db"):
        (photos / name).write_bytes(b"\0\5\x16\7")
    os.mkfifo(photos / "cat" / "pipe.png")
    source = FolderSource(str(photos))
    assert source.classes == ["cat", "dog"]
    assert [source.name(number) for number in range(3)] == [
        str(photos / name) for name in ("cat/a.png", "cat/link.png", "dog/b.png")
    ]
    assert len(source) == 3
    assert source.left_out == {"hidden or system": 6, "dangling": 2, "cyclic": 2, "special": 1}


def test_a_folder_that_cannot_be_read_is_an_error() -> None:
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        write_image(Path(folder) / "cat" / "a.png")
        write_image(Path(folder) / "dog" / "b.png")
        (Path(folder) / "dog").chmod(0)
        user = os.geteuid()
        try:
            if user == 0:
                os.seteuid(65534)
            with pytest.raises(UserError, match=r"/dog: permission denied"):
                FolderSource(folder)
        finally:
            os.seteuid(user)


def test_classes_named_by_numbers_are_in_their_order(tmp_path: Path) -> None:
    for number in (10, 9, 11, 0):
        write_image(tmp_path / "digits" / str(number) / "a.png")
        write_image(tmp_path / "words" / f"n{number}" / "a.png")
    source = FolderSource(str(tmp_path / "digits"))
    assert source.classes == ["0", "9", "10", "11"]
    assert {Path(source.name(number)).parent.name: source[number][1] for number in range(4)} == {
        "0": 0, "9": 1, "10": 2, "11": 3,
    }  # fmt: skip
    assert FolderSource(str(tmp_path / "words")).classes == ["n0", "n10", "n11", "n9"]


STYLEGAN: dict[str, tuple[str, list[str], list[int]]] = {
    "labels": ('{"labels": [["00000/a.png", 2], ["00001/b.png", 0.0], ["gone.png", 1]]}', ["0", "1", "2"], [2, 0]),
    "none": ('{"labels": null}', [], [-1, -1]),
    "another file": ('["00000/a.png"]', ["00000", "00001"], [0, 1]),
}


@pytest.mark.parametrize("name", STYLEGAN)
def test_stylegans_table_says_the_labels(tmp_path: Path, name: str) -> None:
    table, classes, labels = STYLEGAN[name]
    write_image(tmp_path / "00000" / "a.png")
    write_image(tmp_path / "00001" / "b.png")
    (tmp_path / "dataset.json").write_text(table)
    source = FolderSource(str(tmp_path))
    assert source.classes == classes
    assert [source[number][1] for number in range(2)] == labels
    assert source.left_out == {"labels": {"without an image": 1}, "none": {}, "another file": {".json": 1}}[name]
    assert FolderSource(str(tmp_path), "^[ab]").classes == ["a", "b"]


WRONG_TABLES = {
    "no JSON": "{",
    "a word": '{"labels": "many"}',
    "vectors": '{"labels": [["00000/a.png", [0, 1]]]}',
    "a fraction": '{"labels": [["00000/a.png", 0.5]]}',
    "infinite": '{"labels": [["00000/a.png", Infinity]]}',
    "two labels": '{"labels": [["00000/a.png", 0], ["00000/a.png", 1]]}',
    "another's": '{"labels": [["b.png", 0]]}',
}


@pytest.mark.parametrize("name", WRONG_TABLES)
def test_a_wrong_table_is_named(tmp_path: Path, name: str, same_words: Callable[..., None]) -> None:
    write_image(tmp_path / "00000" / "a.png")
    (tmp_path / "dataset.json").write_text(WRONG_TABLES[name])
    with pytest.raises(UserError, match=r"^\S+/dataset\.json: ") as caught:
        FolderSource(str(tmp_path))
    same_words(str(caught.value), tmp=tmp_path)


def test_a_flat_folder_has_no_classes(tmp_path: Path) -> None:
    for name in "ba":
        write_image(tmp_path / f"{name}.png", ord(name))
    source = FolderSource(str(tmp_path))
    assert source.classes == []
    assert [(int(source[number][0][0, 0]), source[number][1]) for number in range(2)] == [(97, -1), (98, -1)]


@pytest.mark.parametrize("name", ["a.png", "a.tif"])
@pytest.mark.parametrize("orientation", [*range(1, 9), 77])
def test_photographs_are_packed_upright(tmp_path: Path, orientation: int, name: str) -> None:
    pixels = np.arange(6, dtype=np.uint8).reshape(2, 3) * 40
    turned = {1: pixels, 2: pixels[:, ::-1], 3: pixels[::-1, ::-1], 4: pixels[::-1], 5: pixels.T,
              6: np.rot90(pixels, -1), 7: pixels[::-1, ::-1].T, 8: np.rot90(pixels)}  # fmt: skip
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    Image.fromarray(pixels).save(tmp_path / name, exif=exif)
    assert np.array_equal(read_image(tmp_path / name, name), turned.get(orientation, pixels))


def test_a_folder_keeps_color_and_16_bits(tmp_path: Path) -> None:
    Image.new("RGB", (4, 4), (255, 0, 9)).save(tmp_path / "a.png")
    Image.new("P", (4, 4)).save(tmp_path / "b.png")
    Image.fromarray(np.full((4, 4), 0x8012, np.uint16)).save(tmp_path / "c.png")
    Image.new("LA", (4, 4), (70, 0)).save(tmp_path / "d.png")
    source = FolderSource(str(tmp_path))
    assert source[0][0][0, 0].tolist() == [255, 0, 9]
    assert source[1][0].shape == (4, 4, 3)
    assert (source[2][0] == 0x80).all()
    assert source[3][0][0, 0].tolist() == [70, 0], "gray and its transparency"


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


FOLDERS: dict[str, Callable[[Path], object]] = {
    "missing": lambda path: None,
    "a file": lambda path: path.write_text("x"),
    "empty": lambda path: path.mkdir(),
    "no images": lambda path: (path.mkdir(), (path / "a.txt").write_text("")),
    "mixed": lambda path: (write_image(path / "a" / "1.png"), write_image(path / "2.png")),
    "text as image": lambda path: (path.mkdir(), (path / "a.png").write_text("x")),
    "32 bits": lambda path: (path.mkdir(), Image.new("F", (4, 4)).save(path / "a.tif")),
}


@pytest.mark.parametrize("name", FOLDERS)
def test_a_wrong_folder_is_named(tmp_path: Path, name: str, same_words: Callable[..., None]) -> None:
    FOLDERS[name](tmp_path / "photos")
    with pytest.raises(UserError) as caught:
        FolderSource(str(tmp_path / "photos"))[0]
    assert str(caught.value).startswith(f"{tmp_path}/photos")
    same_words(str(caught.value), tmp=tmp_path)


def test_a_name_too_long_for_a_path() -> None:
    for source in (FolderSource, IdxSource, NpzSource):
        with pytest.raises(UserError, match=r"name is too long|name too long"):
            source("x" * 5000)
