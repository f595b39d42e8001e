"""Shards that other software wrote, and their index."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import re
import tarfile
from collections.abc import Callable
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import pytest
import webdataset as wds
from PIL import Image

from distgan.data.index import INDEX_NAME, Index
from distgan.data.shard_index import index_shards
from distgan.data.verify import verify
from distgan.errors import UserError
from distgan.storage.storage import Storage
from packing import encoded, gray, pixels_of, write_foreign
from toy_data import pack_numbered

pytestmark = pytest.mark.timeout(60)


def test_foreign_shards_are_indexed(tmp_path: Path) -> None:
    write_foreign(
        tmp_path / "b-001.tar",
        [{"json": {"label": n, "caption": "a brick"}, "jpg": gray(n * 9), "txt": "more"} for n in range(4)],
    )
    write_foreign(
        tmp_path / "a_000.tar",
        [
            {"webp": encoded(Image.new("RGB", (16, 16), (200, 0, 0)), "WEBP"), "cls": 7},
            {"png": gray(3, "PNG"), "cls": "2", "json": {"label": 5}, "mask.png": gray(0, "PNG")},
            {"jpeg": gray(80), "json": {"text": "no label"}},
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
            ("b.png", gray(20, "PNG")),
            ("b.cls", b"2"),
            ("a.png", gray(10, "PNG")),
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


FOREIGN: dict[str, Callable[[Path], object]] = {
    "no shards": lambda folder: None,
    "empty file": lambda folder: (folder / "a.tar").write_bytes(b""),
    "text": lambda folder: (folder / "a.tar").write_text("x" * 2000),
    "compressed": lambda folder: (folder / "a.tar").write_bytes(gzip.compress(bytes(10_240))),
    "a folder": lambda folder: (folder / "a.tar").mkdir(),
    "no images": lambda folder: write_foreign(folder / "a.tar", [{"txt": "x"}]),
    "text as image": lambda folder: write_foreign(folder / "a.tar", [{"jpg": b"x"}]),
    "a tiff as png": lambda folder: write_foreign(folder / "a.tar", [{"png": gray(1, "TIFF")}]),
    "two images": lambda folder: write_foreign(folder / "a.tar", [{"jpg": gray(1), "png": gray(1, "PNG")}]),
    "a negative class": lambda folder: write_foreign(folder / "a.tar", [{"jpg": gray(1), "cls": "-1"}]),
    "an identity": lambda folder: write_foreign(folder / "a.tar", [{"jpg": gray(1), "cls": "2000000000"}]),
    "broken json": lambda folder: write_foreign(folder / "a.tar", [{"jpg": gray(1), "json": b"{"}]),
    "a star in the name": lambda folder: write_foreign(folder / "my*shard.tar", [{"jpg": gray(1)}]),
}


@pytest.mark.parametrize("name", FOREIGN)
def test_a_wrong_shard_is_named(tmp_path: Path, name: str, same_words: Callable[..., None]) -> None:
    FOREIGN[name](tmp_path)
    with pytest.raises(UserError, match=r"^\S*\.tar: |: no \.tar files there$") as caught:
        index_shards(Storage.open(str(tmp_path)))
    same_words(str(caught.value), tmp=tmp_path)
    assert not (tmp_path / INDEX_NAME).exists()


BAD_SAMPLES: list[tuple[dict[str, Any], str]] = [
    ({"jpg": b"no image"}, r"^a\.tar: train/00001\.jpg: not a readable image: unknown format$"),
    ({"png": gray(1, "TIFF"), "cls": "1"}, r"^a\.tar: train/00002\.png: not a readable image: unknown format$"),
    ({"jpg": gray(1), "cls": "cat"}, r"^a\.tar: train/00003\.cls: the label 'cat' is not"),
    ({"jpg": gray(1), "json": b"{"}, r"^a\.tar: train/00004\.json: not valid JSON"),
    ({"jpg": gray(1), "png": gray(1, "PNG")}, r"^a\.tar: train/00005\.png: a second image"),
]


def test_bad_samples_are_left_out_of_the_index(tmp_path: Path) -> None:
    good = [{"png": gray(value, "PNG"), "cls": value} for value in (10, 20)]
    write_foreign(tmp_path / "a.tar", [good[0], *[sample for sample, _ in BAD_SAMPLES], good[1]])
    write_foreign(tmp_path / "b.tar", [{"png": gray(30, "PNG"), "cls": 30}])
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


def test_a_shard_without_a_good_sample_is_always_an_error(tmp_path: Path) -> None:
    write_foreign(tmp_path / "a.tar", [{"jpg": b"x"}, {"jpg": b"y"}])
    write_foreign(tmp_path / "b.tar", [{"jpg": gray(1)}])
    with pytest.raises(UserError, match=r"a\.tar: none of its 2 samples can be used; take this shard away"):
        index_shards(Storage.open(str(tmp_path)), "skip")
    (tmp_path / "a.tar").write_bytes(b"no tar")
    with pytest.raises(UserError, match=r"a\.tar: not a whole, uncompressed tar file"):
        index_shards(Storage.open(str(tmp_path)), "skip")


def test_a_cut_shard_is_no_shard(tmp_path: Path) -> None:
    write_foreign(tmp_path / "a.tar", [{"jpg": gray(number)} for number in range(4)])
    whole = (tmp_path / "a.tar").read_bytes()
    (tmp_path / "a.tar").write_bytes(whole[:2000])
    with pytest.raises(UserError, match=r"a\.tar: not a whole, uncompressed tar"):
        index_shards(Storage.open(str(tmp_path)))


def test_nothing_in_a_shard_is_run(tmp_path: Path) -> None:
    harm = tmp_path / "harm"
    pickled = f"cos\nsystem\n(S'touch {harm}'\ntR.".encode()
    write_foreign(tmp_path / "a.tar", [{"jpg": gray(1), "pyd": pickled, "pickle": pickled, "pth": pickled}])
    assert len(index_shards(Storage.open(str(tmp_path)))) == 1
    assert not harm.exists()


def tar_of(*names: str, contents: dict[str, bytes] | None = None, **options: Any) -> bytes:
    """A tar file of gray images, or of the contents given for a name."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", **options) as archive:
        for name in names:
            content = (contents or {}).get(PurePosixPath(name).name, gray(9, "PNG"))
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return buffer.getvalue()


def tar_header(kind: bytes, size: int) -> bytes:
    member = tarfile.TarInfo("header")
    member.type, member.size = kind, size
    return member.tobuf(tarfile.GNU_FORMAT)


NAMES = [f"{number}.png" for number in range(6)]
WHOLE = tar_of(*NAMES)
HALF = 3 * len(tar_of(NAMES[0])[:1024])  # where the fourth header begins: each image takes a block


def flipped(data: bytes, place: int) -> bytes:
    return data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :]


PARTS: dict[str, tuple[bytes, str]] = {
    "a flipped bit": (flipped(WHOLE, HALF + 3), rf"the header at byte {HALF} of \d+ is damaged, after 3 members"),
    "a zeroed header": (
        WHOLE[:HALF] + bytes(512) + WHOLE[HALF + 512 :],
        rf"it ends at byte {HALF}, after 3 members, and more follows at byte {HALF + 512}: a hole",
    ),
    "a zeroed hole": (WHOLE[:HALF] + bytes(1024) + WHOLE[HALF + 1024 :], f"ends at byte {HALF}, after 3 members, and"),
    "cut at a member": (WHOLE[:HALF], f"cut off at byte {HALF}: after 3 members the end mark is missing"),
    "half an end mark": (WHOLE[:HALF] + bytes(512), f"cut off at byte {HALF + 512}: after 3 members the end mark"),
    "cut in a header": (WHOLE[: HALF + 100], f"the header at byte {HALF} of {HALF + 100} is cut off"),
    "cut in the data": (WHOLE[: HALF + 530], rf"cut off within the member '3\.png', at byte {HALF + 530}"),
    "two archives": (WHOLE + WHOLE, f"after 6 members, and more follows at byte {len(WHOLE)}: a hole, or archives"),
    "text behind": (WHOLE + b"x", f"more follows at byte {len(WHOLE)}"),
    "a huge extension": (
        WHOLE[:HALF] + tar_header(b"x", 2**21) + bytes(2**21) + WHOLE[HALF:],
        "a header extension has 2,097,152 bytes",
    ),
    "endless digits": (
        WHOLE[:HALF] + tar_header(b"x", 2**19) + b"1" * 2**19 + WHOLE[HALF:],
        "a header extension holds hundreds of digits in a row",
    ),
    "an endless name": (WHOLE[:HALF] + tar_header(b"L", 2**33), "a header extension has 8,589,934,592 bytes"),
    "a negative size": (WHOLE[:HALF] + tar_header(b"0", -1024) + WHOLE[HALF:], "'header' has an impossible size"),
    "many extensions": (WHOLE[:HALF] + tar_header(b"x", 0) * 2000 + WHOLE[HALF:], "recursion"),
}


@pytest.mark.parametrize("name", PARTS)
def test_a_shard_that_is_not_whole_is_named(tmp_path: Path, name: str) -> None:
    data, message = PARTS[name]
    (tmp_path / "a.tar").write_bytes(data)
    with pytest.raises(UserError, match=rf"^a\.tar: not a whole, uncompressed tar file: .*{message}"):
        index_shards(Storage.open(str(tmp_path)))


@pytest.mark.parametrize("name", ["a flipped bit", "a zeroed hole", "cut at a member"])
def test_verify_names_a_part_that_was_indexed_as_a_whole(tmp_path: Path, name: str, bucket: str) -> None:
    """With an index that was made without checking the end of the shard."""
    data, message = PARTS[name]
    (tmp_path / "a.tar").write_bytes(tar_of(*NAMES[:3]))
    index_shards(Storage.open(str(tmp_path)))
    content = json.loads((tmp_path / INDEX_NAME).read_text())
    content["shards"][0] |= {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
    (tmp_path / INDEX_NAME).write_text(json.dumps(content))
    (tmp_path / "a.tar").write_bytes(data)
    remote = Storage.open(f"{bucket}/{name.replace(' ', '-')}")
    for path in tmp_path.iterdir():
        remote.upload(path, path.name)
    for storage in (Storage.open(str(tmp_path)), remote):
        (fault,) = verify(storage)
        assert re.search(rf"^a\.tar: not a whole, .*{message}", fault)


@pytest.mark.parametrize("kind", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
@pytest.mark.parametrize("padding", [1024, 10_240, 2**20])
def test_whole_shards_of_every_kind_are_taken(tmp_path: Path, kind: int, padding: int) -> None:
    folder = "" if kind == tarfile.USTAR_FORMAT else "long-" * 40 + "/"
    whole = tar_of(*[f"./{folder}{name}" for name in NAMES], format=kind)
    (tmp_path / "a.tar").write_bytes(whole.rstrip(b"\0").ljust(-(-len(whole.rstrip(b"\0")) // 512) * 512, b"\0"))
    with (tmp_path / "a.tar").open("ab") as file:
        file.write(bytes(padding))
    assert len(index_shards(Storage.open(str(tmp_path)))) == 6
    assert verify(Storage.open(str(tmp_path))) == []


def test_names_are_split_as_webdataset_does(tmp_path: Path) -> None:
    contents = {"0.cls": b"3", "1.v2.cls": b"2", "2.json": b'{"label": 1.0}', "5.cls": b"4", "5.json": b'{"label": 9}'}
    contents |= {
        "3.gif": gray(9, "GIF"),
        "4.bmp": gray(9, "BMP"),
        "5.JFIF": gray(9),
        "6.a.json": b"{}",
        "6.b.json": b"",
    }
    names = [*contents, "0.png", "1.v2.png", "2.input.png", "0.mask.png", "6.5.png"]
    (tmp_path / "a.tar").write_bytes(tar_of(*names, contents=contents))
    index = index_shards(Storage.open(str(tmp_path)))
    assert index.labels.tolist() == [-1, -1, 4, 3, 2, 1, -1]
    assert index.header.left_out == {".json": 2, "beside an image": 1}
    assert verify(Storage.open(str(tmp_path))) == []
    for sample in wds.WebDataset(str(tmp_path / "a.tar"), shardshuffle=False, empty_check=False):
        assert len(sample["__key__"]) == 1


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (
            ["a.input.png", "a.target.png"],
            r"a\.target\.png: a second image of the same key, which ends at the first dot",
        ),
        (["a.png", "a.1.cls", "a.2.cls"], r"a\.2\.cls: a second label of the same key"),
        (["a.png", "a.png"], r"a\.png: a second image of the same key"),
    ],
)
def test_ambiguous_members_are_an_error(tmp_path: Path, names: list[str], message: str) -> None:
    (tmp_path / "a.tar").write_bytes(tar_of(*names))
    with pytest.raises(UserError, match=message):
        index_shards(Storage.open(str(tmp_path)))


def test_members_left_out_are_counted(tmp_path: Path) -> None:
    names = [
        *NAMES,
        "7.cls",
        "8.json",
        "9.tif",
        "7.txt",
        "README",
        ".x.png",
        "__meta__/a.png",
        "__MACOSX/._0.png",
        "._1.png",
    ]
    buffer = io.BytesIO(tar_of(*names, contents={"7.cls": b"1", "8.json": b"{}"}))
    with tarfile.open(fileobj=buffer, mode="a") as archive:
        for kind in (tarfile.LNKTYPE, tarfile.SYMTYPE, tarfile.FIFOTYPE, tarfile.DIRTYPE):
            member = tarfile.TarInfo(f"{kind.decode()}.png")
            member.type, member.linkname = kind, "0.png"
            archive.addfile(member)
    (tmp_path / "a.tar").write_bytes(buffer.getvalue())
    (tmp_path / "b.tar").write_bytes(tar_of("a.png", "b.\x1b[2J"))
    storage = Storage.open(str(tmp_path))
    index = index_shards(storage)
    assert index.header.left_out == {
        "hidden or system": 2, "without a key": 2, "without an image": 2, ".\\x1b[2j": 1, ".tif": 1, ".txt": 1,
        "hard-linked": 1, "metadata": 1, "special": 1, "symlinked": 1,
    }  # fmt: skip
    loaded = Index.load(storage)
    assert loaded.header.left_out == index.header.left_out


def test_counts_are_not_part_of_the_hash(tmp_path: Path) -> None:
    (tmp_path / "a.tar").write_bytes(WHOLE)
    storage = Storage.open(str(tmp_path))
    index = index_shards(storage)
    plain = (tmp_path / INDEX_NAME).read_bytes()
    assert index.hash == hashlib.sha256(plain).hexdigest(), "as ever"
    content = json.loads(plain) | {"left_out": {".txt": 3}}
    (tmp_path / INDEX_NAME).write_text(json.dumps(content))
    assert Index.load(storage).hash == index.hash
    for wrong in ({".txt": 0}, {"\x1b[2J": 1}, {str(number): 1 for number in range(65)}):
        (tmp_path / INDEX_NAME).write_text(json.dumps(content | {"left_out": wrong}))
        with pytest.raises(UserError, match="damaged, or not an index of distgan: left_out"):
            Index.load(storage)


@pytest.mark.parametrize("label", ["1.5", "1e0", "1.", "-0.0", "NaN", "true", "[1]", "65536.0", "1" * 5000])
def test_a_label_that_is_no_whole_number_is_refused(tmp_path: Path, label: str) -> None:
    if label != "1e0":  # 1.0 in JSON
        (tmp_path / "a.tar").write_bytes(
            tar_of("a.png", "a.json", contents={"a.json": b'{"label": %s}' % label.encode()})
        )
        with pytest.raises(UserError, match=r"is not a whole number from 0|not valid JSON"):
            index_shards(Storage.open(str(tmp_path)))
    if label != "true":  # a word
        (tmp_path / "a.tar").write_bytes(tar_of("a.png", "a.cls", contents={"a.cls": label.encode()}))
        with pytest.raises(UserError, match="is not a whole number from 0"):
            index_shards(Storage.open(str(tmp_path)))
