"""`distgan data show`: the same sheet for the same seed, rows with names, what cannot be read, wrong calls."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from command_line import Cli, one_line
from distgan.data.shard_index import index_shards
from distgan.storage.storage import Storage
from packing import gray, write_foreign
from web_files import web_server

pytestmark = pytest.mark.timeout(60)


def made(folder: Path, labels: list[str | None], size: tuple[int, int] = (16, 16), *, bad: bool = False) -> Path:
    """A data set of gray images; a `bad` one's first image is damaged after its header."""
    folder.mkdir()
    images = [gray(100 + number % 100, "PNG", size) for number in range(len(labels))]
    if bad:
        images[0] = images[0][:-30]
    samples = [
        {"png": image} | ({} if label is None else {"cls": label}) for image, label in zip(images, labels, strict=True)
    ]
    write_foreign(folder / "a.tar", samples)
    index_shards(Storage.open(str(folder)))
    return folder


def pixels(path: Path) -> np.ndarray:
    with Image.open(path) as image:
        return np.asarray(image)


def test_a_class_has_a_row_with_its_name(tmp_path: Path, cli: Cli) -> None:
    made(tmp_path / "data", [*["boot"] * 30, *["sandal"] * 4, None])
    shown = cli("data", "show", "data", "--out", "sheet.png")
    assert shown.code == 0, shown
    assert shown.out.splitlines()[-3:] == [
        "      0  boot            30",
        "      1  sandal           4",
        "sheet.png: 15 images of 2 of 2 classes, seed 0",
    ]
    sheet = pixels(tmp_path / "sheet.png")
    height, width = sheet.shape
    assert height == 3 * 66 + 2
    left = width - (10 * 66 + 2)
    assert 40 < left < 100
    for row, count in enumerate((10, 4, 1)):
        assert (sheet[row * 66 : (row + 1) * 66, :left] < 100).any(), "a name"
        cells = sheet[row * 66 + 30, left + 30 :: 66]
        assert (cells < 255).tolist() == [True] * count + [False] * (10 - count)
    cli("data", "show", "data", "--out", "again.png")
    cli("data", "show", "data", "--out", "other.png", "--seed", "1")
    assert (tmp_path / "again.png").read_bytes() == (tmp_path / "sheet.png").read_bytes()
    assert (tmp_path / "other.png").read_bytes() != (tmp_path / "sheet.png").read_bytes()


def test_many_classes_are_bounded_and_bad_images_told(tmp_path: Path, cli: Cli) -> None:
    made(tmp_path / "data", [str(number) for number in range(300)], bad=True)
    shown = cli("data", "show", "data", "--out", "sheet.png")
    assert "and 250 classes more, with 1 images each" in shown.out
    told = "sheet.png: 49 images of 50 of 300 classes, seed 0; 1 cannot be read: `distgan data verify` names them"
    assert shown.out.splitlines()[-1] == told
    assert pixels(tmp_path / "sheet.png").shape[0] == 50 * 66 + 2


def test_images_without_labels_of_any_size_at_any_url(tmp_path: Path, cli: Cli) -> None:
    folder = made(tmp_path / "data", [None] * 25, (300, 200))
    with web_server(folder) as (url, _):
        assert cli("data", "show", url, "--out", "sheet.png").out.splitlines()[-1].startswith("sheet.png: 25 images")
    assert pixels(tmp_path / "sheet.png").shape == (3 * 130 + 2, 10 * 130 + 2)


def test_wrong_calls_are_one_line(tmp_path: Path, cli: Cli) -> None:
    made(tmp_path / "data", ["a", "b"])
    for out, words in {
        "sheet.jpg": "give the name of a .png file",
        "s3://bucket/sheet.png": "give the name of a .png file",
        "none/sheet.png": "there is no folder none",
    }.items():
        assert one_line(cli("data", "show", "data", "--out", out)).startswith(f"--out {out}: {words}")
    assert "no index; name" in one_line(cli("data", "show", "nothing", "--out", "sheet.png"))
