"""Packing, foreign shards, and their check; and the sources that are packed."""

from __future__ import annotations

import gzip
import io
import itertools
import json
import tarfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import webdataset as wds
from numpy.typing import NDArray
from PIL import ExifTags, Image

from distgan.data.images import Encoding, decode_image, encode_image, resize_image
from distgan.data.index import INDEX_NAME, Index
from distgan.data.pack import PackOptions, pack
from distgan.data.scan import index_shards
from distgan.data.sources.base import Source
from distgan.data.sources.folder import FolderSource
from distgan.data.sources.idx import IdxSource
from distgan.data.sources.image_files import read_image
from distgan.data.sources.npz import NpzSource
from distgan.data.sources.rendered_bricks import BrickSource
from distgan.data.storage import Storage
from distgan.data.verify import verify
from distgan.errors import UserError
from miniatures import BRICKS, lego_folder
from toy_data import NumberedSource, pack_numbered

pytestmark = pytest.mark.timeout(60)


def pack_here(source: Source, folder: Path, **options: Any) -> Index:
    given = {"image_size": 16, "channels": 1, "processes": 1, **options}
    return pack(source, Storage.open(str(folder)), PackOptions(**given))


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def pixels_of(folder: Path, index: Index) -> list[NDArray[np.uint8]]:
    """Every image by the index's own offsets."""
    images = []
    for block in index.blocks:
        shard = (folder / index.header.shards[block.shard].name).read_bytes()
        for sample in range(block.first, block.stop):
            start = int(index.offsets[sample])
            data = shard[start : start + int(index.lengths[sample])]
            images.append(decode_image(data, index.header.image_size, index.header.channels))
    return images


def number_of(pixels: NDArray[np.uint8]) -> int:
    return int(pixels[0, 0, 0]) * 256 + int(pixels[0, 0, 1])


# What pack writes.


def test_the_same_source_and_seed_give_the_same_bytes(tmp_path: Path) -> None:
    for name, seed, processes in (("a", 0, 1), ("b", 0, 2), ("c", 1, 1)):
        pack_here(NumberedSource(150), tmp_path / name, seed=seed, shard_bytes=50_000, processes=processes)
    first, same, other = (contents(tmp_path / name) for name in "abc")
    assert len([name for name in first if name.endswith(".tar")]) > 1
    assert first == same
    assert first.keys() == other.keys()
    assert all(first[name] != other[name] for name in first)


def test_every_image_and_label_is_kept_and_mixed(tmp_path: Path) -> None:
    source = NumberedSource(150, num_classes=3)
    told: list[int] = []
    options = PackOptions(16, 1, shard_bytes=50_000, processes=1)
    index = pack(source, Storage.open(str(tmp_path)), options, told.append)
    images = pixels_of(tmp_path, index)
    numbers = [number_of(image) for image in images]
    assert sorted(numbers) == list(range(150))
    assert sum(later > earlier for earlier, later in itertools.pairwise(numbers)) < 100, "shuffled"
    for number, image, label in zip(numbers, images, index.labels, strict=True):
        pixels, expected = source[number]
        assert np.array_equal(image, pixels.transpose(2, 0, 1))
        assert label == expected
    assert index.header.classes == ["kind 0", "kind 1", "kind 2"]
    assert told == list(range(1, 151))
    assert Index.load(Storage.open(str(tmp_path))).hash == index.hash


def test_shards_close_at_their_size(tmp_path: Path) -> None:
    index = pack_here(NumberedSource(150), tmp_path, shard_bytes=30_000)
    sizes = [shard.bytes for shard in index.header.shards]
    assert len(sizes) > 3
    assert all(30_000 <= size < 30_000 + 20_000 for size in sizes[:-1])
    assert sum(shard.samples for shard in index.header.shards) == 150
    assert sizes == [(tmp_path / shard.name).stat().st_size for shard in index.header.shards]


@pytest.mark.parametrize("encoding", ["png", "webp", "jpg"])
@pytest.mark.parametrize("channels", [1, 3])
def test_encodings(tmp_path: Path, encoding: Encoding, channels: int) -> None:
    index = pack_here(BrickSource(0, 12, 32, channels), tmp_path, image_size=32, channels=channels, encoding=encoding)
    assert (index.header.channels, index.header.image_size) == (channels, 32)
    assert verify(Storage.open(str(tmp_path))) == []
    order = np.random.default_rng([0, 12]).permutation(12)
    for sample, image in zip(order, pixels_of(tmp_path, index), strict=True):
        expected, label = BrickSource(0, 12, 32, channels)[sample]
        difference = np.abs(image.astype(int) - expected.transpose(2, 0, 1).astype(int))
        assert difference.mean() < (3 if encoding == "jpg" else 1e-9)
        assert label == sample % 50


def test_webdataset_and_tarfile_read_the_shards(tmp_path: Path) -> None:
    index = pack_here(NumberedSource(70), tmp_path, shard_bytes=20_000, encoding="png")
    shards = [str(tmp_path / shard.name) for shard in index.header.shards]
    dataset = wds.WebDataset(shards, shardshuffle=False, empty_check=False).decode("l8").to_tuple("png", "cls")
    read = list(dataset)
    assert [number_of(image[None]) % 3 for image, _ in read] == [label for _, label in read] == index.labels.tolist()
    assert sorted(number_of(image[None]) for image, _ in read) == list(range(70))
    with tarfile.open(shards[0]) as archive:
        names = archive.getnames()
        assert names[:2] == ["00000000.cls", "00000000.png"]
        member = archive.getmember("00000001.png")
        assert member.offset_data == index.offsets[1]
        assert (member.mtime, member.uname, member.gname) == (0, "", "")


def test_a_source_without_labels_has_no_cls(tmp_path: Path) -> None:
    index = pack_here(NumberedSource(5, num_classes=0), tmp_path)
    assert index.labels.tolist() == [-1] * 5
    assert index.header.classes == []
    with tarfile.open(tmp_path / "shard-00000.tar") as archive:
        assert archive.getnames() == [f"0000000{number}.png" for number in range(5)]


def test_a_data_set_is_not_overwritten(tmp_path: Path) -> None:
    pack_here(NumberedSource(5), tmp_path)
    before = contents(tmp_path)
    with pytest.raises(UserError, match="holds a data set already; choose another place"):
        pack_here(NumberedSource(6), tmp_path)
    assert contents(tmp_path) == before


class BrokenSource(NumberedSource):
    def __getitem__(self, number: int) -> tuple[NDArray[np.uint8], int]:
        if number == 40:
            raise UserError("photo-40.png: not a readable image")
        return super().__getitem__(number)


@pytest.mark.parametrize("processes", [1, 2])
def test_a_broken_source_leaves_no_index(tmp_path: Path, processes: int) -> None:
    with pytest.raises(UserError, match=r"photo-40\.png: not a readable image"):
        pack_here(BrokenSource(150), tmp_path, shard_bytes=10_000, processes=processes)
    assert not (tmp_path / INDEX_NAME).exists()


def test_images_are_resized_without_keeping_their_aspect_ratio() -> None:
    wide = np.zeros((10, 40), np.uint8)
    wide[:, 20:] = 200
    small = resize_image(wide, 16, 1)
    assert small.shape == (16, 16, 1)
    assert (small[:, :6] == 0).all()
    assert (small[:, 10:] == 200).all()
    grey = resize_image(np.full((16, 16, 3), (255, 0, 0), np.uint8), 16, 1)
    assert grey.flat[0] == 76  # ITU-R 601 luma of red
    colour = resize_image(np.full((4, 4, 1), 9, np.uint8), 16, 3)
    assert colour.shape == (16, 16, 3)
    assert (colour == 9).all()


# Images.


def encoded(image: Image.Image, kind: str = "PNG") -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind)
    return buffer.getvalue()


def test_damaged_images_are_no_images() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (16, 16, 3), np.uint8)
    for encoding in ("png", "jpg", "webp"):
        data = encode_image(pixels, encoding)  # type: ignore[arg-type]
        for broken in (b"", data[:2], data[:20], data[: len(data) // 2], b"\0" + data, b"hello" * 100):
            with pytest.raises(ValueError, match=r"."):
                decode_image(broken, 16, 3)
        with pytest.raises(ValueError, match="it has 16x16 pixels, not 32x32"):
            decode_image(data, 32, 3)


def test_other_formats_are_refused() -> None:
    for kind in ("BMP", "GIF", "TIFF", "PPM"):
        with pytest.raises(ValueError, match="not a whole PNG, JPEG or WebP image"):
            decode_image(encoded(Image.new("RGB", (16, 16)), kind), 16, 3)


def test_an_image_of_absurd_size_is_refused() -> None:
    header = (2**20).to_bytes(4, "big") * 2 + b"\x08\x00\x00\x00\x00"
    bomb = b"\x89PNG\r\n\x1a\n"
    for kind, content in ((b"IHDR", header), (b"IDAT", zlib.compress(b"\0" * 100)), (b"IEND", b"")):
        bomb += len(content).to_bytes(4, "big") + kind + content + zlib.crc32(kind + content).to_bytes(4, "big")
    with pytest.raises(ValueError, match=r"not a whole .*exceeds limit"):
        decode_image(bomb, 16, 1)


def test_16_bit_grey_keeps_its_range() -> None:
    ramp = np.linspace(0, 65535, 256).astype(np.uint16).reshape(16, 16)
    decoded = decode_image(encoded(Image.fromarray(ramp)), 16, 1)
    assert np.array_equal(decoded[0], ramp >> 8)


# Sources.


def write_image(path: Path, value: int = 0, mode: str = "L") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new(mode, (20, 10), value if mode == "L" else None).save(path)


def test_a_folder_of_class_folders(tmp_path: Path) -> None:
    for place, name in enumerate(["cats/b.png", "cats/deep/a.JPG", "apes/z.webp", "dogs/one.bmp"]):
        write_image(tmp_path / name, 50 * place)
    (tmp_path / "cats" / "notes.txt").write_text("no image")
    source = FolderSource(str(tmp_path))
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
    assert (source[3][0] == 70).all()


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


def idx(array: NDArray[np.uint8], kind: int = 8) -> bytes:
    return bytes([0, 0, kind, array.ndim]) + b"".join(size.to_bytes(4, "big") for size in array.shape) + array.tobytes()


IMAGES = np.arange(6 * 4 * 4, dtype=np.uint8).reshape(6, 4, 4)
LABELS = np.array([3, 1, 0, 1, 2, 4], np.uint8)


@pytest.mark.parametrize("pack_file", [bytes, gzip.compress], ids=["plain", "gzip"])
def test_idx_files(tmp_path: Path, pack_file: Callable[[bytes], bytes]) -> None:
    suffix = ".gz" if pack_file is gzip.compress else ""
    images = tmp_path / f"train-images-idx3-ubyte{suffix}"
    images.write_bytes(pack_file(idx(IMAGES)))
    unlabelled = IdxSource(str(images))
    assert (unlabelled.classes, unlabelled[0][1]) == ([], -1)
    (tmp_path / f"train-labels-idx1-ubyte{suffix}").write_bytes(pack_file(idx(LABELS)))
    source = IdxSource(str(images))
    assert len(source) == 6
    assert [source[number][1] for number in range(6)] == LABELS.tolist()
    assert np.array_equal(source[5][0], IMAGES[5])
    assert source.classes == ["0", "1", "2", "3", "4"]


def test_a_folder_of_idx_files_is_joined_and_a_file_is_taken_once(tmp_path: Path) -> None:
    for name in ("t10k", "train"):
        (tmp_path / f"{name}-images-idx3-ubyte").write_bytes(idx(IMAGES))
    (tmp_path / "train-images-idx3-ubyte.gz").write_bytes(gzip.compress(idx(IMAGES)))
    (tmp_path / "train-labels-idx1-ubyte").write_bytes(idx(LABELS))
    source = IdxSource(str(tmp_path))
    assert [source[number][1] for number in range(len(source))] == [-1] * 6 + LABELS.tolist()


IDX: dict[str, tuple[dict[str, bytes], str]] = {
    "nothing": ({}, "no .*-images-idx3-ubyte files in it"),
    "empty": ({"a-images-idx3-ubyte": b""}, "not an IDX file of unsigned bytes"),
    "text": ({"a-images-idx3-ubyte": b"hello world, no images"}, "not an IDX file of unsigned bytes"),
    "floats": ({"a-images-idx3-ubyte": idx(IMAGES, kind=13)}, "not an IDX file of unsigned bytes"),
    "cut": ({"a-images-idx3-ubyte": idx(IMAGES)[:-1]}, "has 95 bytes of data where its header announces 96"),
    "cut header": ({"a-images-idx3-ubyte": idx(IMAGES)[:9]}, "not an IDX file of unsigned bytes"),
    "cut gzip": ({"a-images-idx3-ubyte.gz": gzip.compress(idx(IMAGES))[:-12]}, "cannot be read"),
    "wrong gzip": ({"a-images-idx3-ubyte.gz": b"\x1f\x8b" + b"\0" * 30}, "cannot be read"),
    "labels as images": ({"a-images-idx3-ubyte": idx(LABELS)}, "has 1 dimensions, not the 3"),
    "no images": ({"a-images-idx3-ubyte": idx(IMAGES[:0])}, "holds no images"),
    "no pixels": ({"a-images-idx3-ubyte": idx(np.zeros((5, 0, 4), np.uint8))}, "holds no images"),
    "labels too few": (
        {"a-images-idx3-ubyte": idx(IMAGES), "a-labels-idx1-ubyte": idx(LABELS[:5])},
        r"has shape \(5,\) beside 6 images",
    ),
    "two sizes": (
        {"a-images-idx3-ubyte": idx(IMAGES), "b-images-idx3-ubyte": idx(IMAGES.reshape(6, 2, 8))},
        "images of different sizes",
    ),
}


@pytest.mark.parametrize("name", IDX)
def test_a_wrong_idx_file_is_named(tmp_path: Path, name: str) -> None:
    files, message = IDX[name]
    for file, content in files.items():
        (tmp_path / file).write_bytes(content)
    with pytest.raises(UserError, match=message) as caught:
        IdxSource(str(tmp_path))
    assert str(tmp_path) in str(caught.value)


@pytest.mark.parametrize(("image_key", "label_key"), [("images", "labels"), ("x_train", "y_train"), ("arr_0", "arr_1")])
def test_npz_archives(tmp_path: Path, image_key: str, label_key: str) -> None:
    path = tmp_path / "data.npz"
    np.savez_compressed(path, **{image_key: IMAGES[..., None], label_key: LABELS[:, None]})
    source = NpzSource(str(path))
    assert [source[number][1] for number in range(len(source))] == LABELS.tolist()
    assert np.array_equal(source[3][0], IMAGES[3, :, :, None])
    assert source.classes == ["0", "1", "2", "3", "4"]
    np.savez(path, **{image_key: IMAGES})
    assert (NpzSource(str(path)).classes, NpzSource(str(path))[0][1]) == ([], -1)


NPZ: dict[str, tuple[dict[str, Any], str]] = {
    "other names": ({"pictures": IMAGES}, "has pictures, but none of images, x"),
    "floats": ({"images": IMAGES / 255}, "images are float64"),
    "planes first": ({"images": np.zeros((2, 3, 8, 8), np.uint8)}, r"images are uint8 \(2, 3, 8, 8\)"),
    "no images": ({"images": IMAGES[:0]}, "holds no images"),
    "no images, no labels": ({"images": IMAGES[:0], "labels": LABELS[:0]}, "holds no images"),
    "labels too few": ({"images": IMAGES, "labels": LABELS[:5]}, "labels must be 6 integers"),
    "one-hot labels": ({"images": IMAGES, "labels": np.eye(6, dtype=int)}, "labels must be 6 integers"),
    "real labels": ({"images": IMAGES, "labels": LABELS / 2}, "labels must be 6 integers"),
    "negative labels": ({"images": IMAGES, "labels": LABELS.astype(int) - 1}, "labels start at 0; there is a -1"),
    "identities": ({"images": IMAGES, "labels": LABELS.astype(int) + 10**9}, "label 1000000004 is above 65535"),
    "objects": ({"images": np.array([{}], object)}, r"not a readable \.npz archive"),
}


@pytest.mark.parametrize("name", NPZ)
def test_a_wrong_npz_archive_is_named(tmp_path: Path, name: str) -> None:
    arrays, message = NPZ[name]
    np.savez(tmp_path / "data.npz", **arrays)
    with pytest.raises(UserError, match=message):
        NpzSource(str(tmp_path / "data.npz"))


def test_files_that_are_no_npz_archive(tmp_path: Path) -> None:
    whole = io.BytesIO()
    np.savez_compressed(whole, images=IMAGES)
    array = io.BytesIO()
    np.save(array, IMAGES)
    middle = len(whole.getvalue()) // 3
    spoilt = whole.getvalue()[:middle] + b"\xff" * 30 + whole.getvalue()[middle + 30 :]
    for content in (b"", b"text", whole.getvalue()[:-30], array.getvalue(), spoilt, b"\x80\x04pickle"):
        (tmp_path / "data.npz").write_bytes(content)
        with pytest.raises(UserError, match=r"data\.npz: not a readable \.npz archive"):
            NpzSource(str(tmp_path / "data.npz"))
    with pytest.raises(UserError, match="not a readable"):
        NpzSource(str(tmp_path / "gone.npz"))


# Foreign shards.


def write_foreign(path: Path, samples: list[dict[str, Any]]) -> None:
    with wds.TarWriter(str(path)) as writer:
        for number, sample in enumerate(samples):
            writer.write({"__key__": f"train/{number:05d}", **sample})


def grey(value: int, kind: str = "JPEG", size: tuple[int, int] = (16, 16)) -> bytes:
    return encoded(Image.new("L", size, value), kind)


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


# verify.


def test_verify_finds_every_fault(tmp_path: Path) -> None:
    storage = Storage.open(str(tmp_path))
    index = pack_numbered(tmp_path, 200, shard_kb=32)
    told: list[int] = []
    assert verify(storage, told.append) == []
    assert told[-1] == 200
    names = [shard.name for shard in index.header.shards]
    assert len(names) >= 5

    def spoil(name: str, place: int) -> None:
        data = bytearray((tmp_path / name).read_bytes())
        data[place] ^= 0x40
        (tmp_path / name).write_bytes(data)

    spoil(names[0], int(index.offsets[3]) + 100)  # in an image
    spoil(names[1], 10)  # in a tar header
    (tmp_path / names[2]).write_bytes((tmp_path / names[2]).read_bytes()[:5000])
    (tmp_path / names[3]).write_bytes(b"")
    (tmp_path / names[4]).unlink()
    faults = verify(storage)
    by_shard = {name: [fault for fault in faults if name in fault] for name in names}
    assert len(by_shard[names[0]]) == 2
    assert "SHA-256 differs" in by_shard[names[0]][0]
    assert "block 0 (samples 0 to" in by_shard[names[0]][1]
    assert len(by_shard[names[1]]) == 1
    assert "its 5000 bytes are not the" in by_shard[names[2]][0]
    assert "its 0 bytes are not the" in by_shard[names[3]][0]
    assert "not found" in by_shard[names[4]][0]
    assert not any(by_shard[name] for name in names[5:])


def test_verify_finds_images_and_labels_that_cannot_be_used(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (16, 16, 3), np.uint8)
    whole = encode_image(noise, "png")
    write_foreign(tmp_path / "a.tar", [{"png": whole, "cls": 3}, {"png": whole[: len(whole) // 2], "cls": 1}])
    storage = Storage.open(str(tmp_path))
    index_shards(storage)  # a half image has a whole header
    header = json.loads((tmp_path / INDEX_NAME).read_text())
    header["classes"] = ["a", "b"]
    (tmp_path / INDEX_NAME).write_text(json.dumps(header))
    faults = verify(storage)
    assert len(faults) == 2
    assert "a.tar: sample 0: label 3 of 2 classes" in faults
    assert any("a.tar: sample 1 at byte" in fault and "not a whole PNG" in fault for fault in faults)
