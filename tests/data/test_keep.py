"""`--encoding keep`: files that need no change are stored as they are, and a run reads the same pixels."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path

import numpy as np
import pytest
from PIL import ExifTags, Image

from command_line import Cli
from distgan.data.images import decode_image
from distgan.data.index import Index
from distgan.data.sources.folder import FolderSource
from distgan.data.verify import verify
from distgan.storage.storage import Storage
from packing import contents, encoded, pack_here, pixels_of
from toy_data import NumberedSource

pytestmark = pytest.mark.timeout(60)

PIXELS = np.random.default_rng(0).integers(0, 256, (16, 16, 3), np.uint8)
COLOR = Image.fromarray(PIXELS)
CLEAR = Image.fromarray(np.dstack([PIXELS, np.full((16, 16), 100, np.uint8)]))


def turned() -> bytes:
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6
    return encoded(COLOR, "JPEG", exif=exif)


# The name of each file, its bytes, and the format it is stored in; None where it is stored as it is.
FILES: dict[str, tuple[bytes, str | None]] = {
    "color.jpg": (encoded(COLOR, "JPEG", quality=60), None),
    "progressive.jpg": (encoded(COLOR, "JPEG", progressive=True), None),
    "color.png": (encoded(COLOR), None),
    "palette.png": (encoded(COLOR.quantize(20)), None),
    "gray.png": (encoded(COLOR.convert("L")), None),
    "gray.jpg": (encoded(COLOR.convert("L"), "JPEG"), None),
    "color.webp": (encoded(COLOR, "WEBP", quality=50), None),
    "misnamed.png": (encoded(COLOR, "JPEG", quality=61), None),
    "opaque.png": (encoded(COLOR.convert("RGBA")), "png"),
    "turned.jpg": (turned(), "jpg"),
    "larger.jpg": (encoded(COLOR.resize((20, 20)), "JPEG"), "jpg"),
    "larger.png": (encoded(COLOR.resize((20, 20))), "png"),
    "larger.webp": (encoded(COLOR.resize((20, 20)), "WEBP"), "webp"),
    "tall.png": (encoded(COLOR.resize((16, 20))), "png"),
    "with_more.jpg": (encoded(COLOR, "JPEG", comment=b"a comment"), None),
    "picture.bmp": (encoded(COLOR, "BMP"), "png"),
    "picture.gif": (encoded(COLOR, "GIF"), "png"),
    "picture.tif": (encoded(COLOR, "TIFF"), "png"),
}


def write(folder: Path) -> Path:
    folder.mkdir()
    for name, (data, _) in FILES.items():
        (folder / name).write_bytes(data)
    return folder


def stored_images(folder: Path) -> list[tuple[str, bytes]]:
    """Extension and bytes of each image, in order."""
    found = []
    for path in sorted(folder.glob("*.tar")):
        with tarfile.open(path) as archive:
            for member in archive:
                file = archive.extractfile(member)
                assert file is not None
                found.append((member.name.partition(".")[2], file.read()))
    return found


def test_each_file_is_kept_or_encoded_anew(tmp_path: Path) -> None:
    photos = write(tmp_path / "photos")
    kept: list[int] = []
    index = pack_here(FolderSource(str(photos)), tmp_path / "kept", channels=3, encoding="keep", on_kept=kept.append)
    assert sum(kept) == sum(stored_as is None for _, stored_as in FILES.values())
    assert verify(Storage.open(str(tmp_path / "kept"))) == []
    stored = stored_images(tmp_path / "kept")
    order = np.random.default_rng([0, len(FILES)]).permutation(len(FILES))
    names = [sorted(FILES)[number] for number in order]
    for name, (extension, data) in zip(names, stored, strict=True):
        came, stored_as = FILES[name]
        assert (data == came) == (stored_as is None), name
        assert extension == stored_as or stored_as is None, name
        assert Image.open(io.BytesIO(data)).format == {"jpg": "JPEG", "png": "PNG", "webp": "WEBP"}[extension], name

    # What is kept has the very pixels that would be stored as PNG.
    plain = pack_here(FolderSource(str(photos)), tmp_path / "plain", channels=3)
    for name, one, other in zip(
        names, pixels_of(tmp_path / "kept", index), pixels_of(tmp_path / "plain", plain), strict=True
    ):
        if FILES[name][1] != "jpg":
            assert np.array_equal(one, other), name


def test_the_same_files_give_the_same_bytes(tmp_path: Path) -> None:
    photos = write(tmp_path / "photos")
    for name, processes in (("a", 1), ("b", 2)):
        pack_here(FolderSource(str(photos)), tmp_path / name, channels=3, encoding="keep", processes=processes)
    assert contents(tmp_path / "a") == contents(tmp_path / "b")


def test_what_would_be_converted_is_not_kept(tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    for name, image in {"color.png": COLOR, "gray.png": COLOR.convert("L"), "clear.png": CLEAR}.items():
        (tmp_path / "photos" / name).write_bytes(encoded(image))
    source = FolderSource(str(tmp_path / "photos"))
    for channels, expected in ((1, {"gray"}), (3, {"gray", "color"})):
        folder = tmp_path / f"out{channels}"
        pack_here(source, folder, channels=channels, encoding="keep")
        kept = {data for _, data in stored_images(folder)}
        assert {
            name for name in ("color", "gray", "clear") if source.file(names_of(source).index(name)) in kept
        } == expected


def names_of(source: FolderSource) -> list[str]:
    return [Path(source.name(number)).stem for number in range(len(source))]


def test_a_damaged_jpeg_is_encoded_anew_and_counted_once(tmp_path: Path) -> None:
    data = encoded(COLOR.resize((64, 64)), "JPEG")
    scan = data.index(b"\xff\xda")
    damaged = data[: scan + 200] + b"\xff\xd0" + data[scan + 201 :]
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "a.jpg").write_bytes(damaged)
    recovered: list[int] = []
    kept: list[int] = []
    pack_here(
        FolderSource(str(tmp_path / "photos")), tmp_path / "out", image_size=64, channels=3, encoding="keep",
        on_recovered=recovered.append, on_kept=kept.append,
    )  # fmt: skip
    assert (sum(recovered), sum(kept)) == (1, 0)
    ((extension, stored),) = stored_images(tmp_path / "out")
    assert extension == "jpg"
    assert decode_image(stored, 64, 3).shape == (3, 64, 64)


def test_a_source_of_pixels_gives_png(tmp_path: Path) -> None:
    for name, encoding in (("kept", "keep"), ("png", "png")):
        pack_here(NumberedSource(5), tmp_path / name, encoding=encoding)
    assert contents(tmp_path / "kept") == contents(tmp_path / "png")


def test_the_command_says_what_was_kept(cli: Cli, tmp_path: Path) -> None:
    write(tmp_path / "photos")
    done = cli("data", "pack", "photos", "--format", "folder", "--size", "16", "--encoding", "keep", "--out", "new")
    assert done.code == 0, done
    assert "\n9 of 18 images stored as they came\n9 encoded anew: JPEG at quality 95; PNG and WebP" in done.out
    assert Index.load(Storage.open("new")).header.samples == 18
