"""Shards that other software wrote, and their index."""

from __future__ import annotations

import gzip
import io
import re
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from distgan.data.index import INDEX_NAME
from distgan.data.scan import index_shards
from distgan.data.storage import Storage
from distgan.data.verify import verify
from distgan.errors import UserError
from packing import encoded, grey, pixels_of, write_foreign
from toy_data import pack_numbered

pytestmark = pytest.mark.timeout(60)


def test_foreign_shards_are_indexed(tmp_path: Path) -> None:
    write_foreign(
        tmp_path / "b-001.tar",
        [{"json": {"label": n, "caption": "a brick"}, "jpg": grey(n * 9), "txt": "more"} for n in range(4)],
    )
    write_foreign(
        tmp_path / "a_000.tar",
        [
            {"webp": encoded(Image.new("RGB", (16, 16), (200, 0, 0)), "WEBP"), "cls": 7},
            {"png": grey(3, "PNG"), "cls": "2", "json": {"label": 5}, "mask.png": grey(0, "PNG")},
            {"jpeg": grey(80), "json": {"text": "no label"}},
        ],
    )
    index = index_shards(Storage.open(str(tmp_path)))
    assert [shard.name for shard in index.header.shards] == ["a_000.tar", "b-001.tar"]
    assert index.labels.tolist() == [7, 2, -1, 0, 1, 2, 3]
    assert (index.header.channels, index.header.image_size) == (3, 16)
    assert index.header.classes == [str(number) for number in range(8)]
    images = pixels_of(tmp_path, index)
    assert images[0][:, 3, 3].tolist() == pytest.approx([200, 0, 0], abs=2)
    assert [int(image[1, 0, 0]) for image in images[1:]] == pytest.approx([3, 80, 0, 9, 18, 27], abs=2)
    assert verify(Storage.open(str(tmp_path))) == []


def test_members_in_any_order_are_indexed_by_their_place(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "x.tar", "w") as archive:
        for name, content in [
            ("a.cls", b"1"),
            ("b.png", grey(20, "PNG")),
            ("b.cls", b"2"),
            ("a.png", grey(10, "PNG")),
        ]:
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    index = index_shards(Storage.open(str(tmp_path)))
    assert (np.diff(index.offsets) > 0).all()
    assert index.labels.tolist() == [2, 1]
    assert [int(image[0, 0, 0]) for image in pixels_of(tmp_path, index)] == [20, 10]
    assert verify(Storage.open(str(tmp_path))) == []


def test_our_own_shards_index_to_the_same_blocks(tmp_path: Path) -> None:
    packed = pack_numbered(tmp_path, 60, shard_kb=16)
    (tmp_path / INDEX_NAME).unlink()
    made = index_shards(Storage.open(str(tmp_path)))
    assert made.blocks == packed.blocks
    assert np.array_equal(made.labels, packed.labels)


FOREIGN: dict[str, tuple[Callable[[Path], object], str]] = {
    "no shards": (lambda folder: None, r"no \.tar files there"),
    "empty file": (lambda folder: (folder / "a.tar").write_bytes(b""), r"a\.tar: not a whole, uncompressed tar"),
    "text": (lambda folder: (folder / "a.tar").write_text("x" * 2000), r"a\.tar: not a whole, uncompressed tar"),
    "compressed": (
        lambda folder: (folder / "a.tar").write_bytes(gzip.compress(bytes(10_240))),
        r"a\.tar: not a whole, uncompressed tar",
    ),
    "a folder": (lambda folder: (folder / "a.tar").mkdir(), r"a\.tar"),
    "no images": (lambda folder: write_foreign(folder / "a.tar", [{"txt": "x"}]), r"a\.tar: no images"),
    "text as image": (
        lambda folder: write_foreign(folder / "a.tar", [{"jpg": b"x"}]),
        r"a\.tar: train/00000\.jpg: not a readable image",
    ),
    "a gif as png": (
        lambda folder: write_foreign(folder / "a.tar", [{"png": grey(1, "GIF")}]),
        r"a\.tar: train/00000\.png: not a readable image",
    ),
    "two images": (
        lambda folder: write_foreign(folder / "a.tar", [{"jpg": grey(1), "png": grey(1, "PNG")}]),
        r"train/00000\.png: a second image of the same key",
    ),
    "a word as class": (
        lambda folder: write_foreign(folder / "a.tar", [{"jpg": grey(1), "json": {"label": "cat"}}]),
        "the label 'cat' is not a whole number from 0",
    ),
    "a negative class": (
        lambda folder: write_foreign(folder / "a.tar", [{"jpg": grey(1), "cls": "-1"}]),
        "the label '-1' is not a whole number from 0",
    ),
    "an identity": (
        lambda folder: write_foreign(folder / "a.tar", [{"jpg": grey(1), "cls": "2000000000"}]),
        "the label '2000000000' is not a whole number from 0 to 65535",
    ),
    "broken json": (
        lambda folder: write_foreign(folder / "a.tar", [{"jpg": grey(1), "json": b"{"}]),
        r"train/00000\.json: not valid JSON",
    ),
    "a space in the name": (
        lambda folder: write_foreign(folder / "my shard.tar", [{"jpg": grey(1)}]),
        r"my shard\.tar: a shard's name has letters, digits",
    ),
}


@pytest.mark.parametrize("name", FOREIGN)
def test_a_wrong_shard_is_named(tmp_path: Path, name: str) -> None:
    make, message = FOREIGN[name]
    make(tmp_path)
    with pytest.raises(UserError, match=message):
        index_shards(Storage.open(str(tmp_path)))
    assert not (tmp_path / INDEX_NAME).exists()


BAD_SAMPLES: list[tuple[dict[str, Any], str]] = [
    ({"jpg": b"no image"}, r"^a\.tar: train/00001\.jpg: not a readable image: unknown format$"),
    ({"png": grey(1, "GIF"), "cls": "1"}, r"^a\.tar: train/00002\.png: not a readable image: unknown format$"),
    ({"jpg": grey(1), "cls": "cat"}, r"^a\.tar: train/00003\.cls: the label 'cat' is not"),
    ({"jpg": grey(1), "json": b"{"}, r"^a\.tar: train/00004\.json: not valid JSON"),
    ({"jpg": grey(1), "png": grey(1, "PNG")}, r"^a\.tar: train/00005\.png: a second image"),
]


def test_bad_samples_are_left_out_of_the_index(tmp_path: Path) -> None:
    good = [{"png": grey(value, "PNG"), "cls": value} for value in (10, 20)]
    write_foreign(tmp_path / "a.tar", [good[0], *[sample for sample, _ in BAD_SAMPLES], good[1]])
    write_foreign(tmp_path / "b.tar", [{"png": grey(30, "PNG"), "cls": 30}])
    storage = Storage.open(str(tmp_path))
    with pytest.raises(UserError, match=r"00001\.jpg: not a readable image: .*; --bad skip leaves such samples out$"):
        index_shards(storage)
    assert not storage.exists(INDEX_NAME)
    skipped: list[str] = []
    index = index_shards(storage, "skip", skipped.append)
    assert len(skipped) == len(BAD_SAMPLES)
    for reason, (_, message) in zip(skipped, BAD_SAMPLES, strict=True):
        assert re.search(message, reason)
    assert index.labels.tolist() == [10, 20, 30]
    assert [int(image[0, 0, 0]) for image in pixels_of(tmp_path, index)] == [10, 20, 30]
    assert [shard.samples for shard in index.header.shards] == [2, 1]
    assert verify(storage) == [], "its blocks span what is left out"


def test_a_shard_without_a_good_sample_is_an_error_all_the_same(tmp_path: Path) -> None:
    write_foreign(tmp_path / "a.tar", [{"jpg": b"x"}, {"jpg": b"y"}])
    write_foreign(tmp_path / "b.tar", [{"jpg": grey(1)}])
    with pytest.raises(UserError, match=r"a\.tar: none of its 2 samples can be used; take this shard away"):
        index_shards(Storage.open(str(tmp_path)), "skip")
    (tmp_path / "a.tar").write_bytes(b"no tar")
    with pytest.raises(UserError, match=r"a\.tar: not a whole, uncompressed tar file"):
        index_shards(Storage.open(str(tmp_path)), "skip")


def test_a_cut_shard_is_no_shard(tmp_path: Path) -> None:
    write_foreign(tmp_path / "a.tar", [{"jpg": grey(number)} for number in range(4)])
    whole = (tmp_path / "a.tar").read_bytes()
    (tmp_path / "a.tar").write_bytes(whole[:2000])
    with pytest.raises(UserError, match=r"a\.tar: not a whole, uncompressed tar"):
        index_shards(Storage.open(str(tmp_path)))


def test_nothing_in_a_shard_is_run(tmp_path: Path) -> None:
    harm = tmp_path / "harm"
    pickled = f"cos\nsystem\n(S'touch {harm}'\ntR.".encode()
    write_foreign(tmp_path / "a.tar", [{"jpg": grey(1), "pyd": pickled, "pickle": pickled, "pth": pickled}])
    assert len(index_shards(Storage.open(str(tmp_path)))) == 1
    assert not harm.exists()
