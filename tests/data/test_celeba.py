"""CelebA in miniature, in every layout that its downloads have."""

from __future__ import annotations

import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from distgan.data.index import Index
from distgan.data.pack import PackOptions, pack
from distgan.data.sources.celeba import CelebaSource, read_attributes
from distgan.errors import UserError
from distgan.storage.storage import Storage
from miniatures import (
    ATTRIBUTES,
    FACES,
    attribute_table,
    attribute_text,
    celeba_folder,
    face_names,
    has,
    number_of_face,
    write_faces,
    zip_faces,
)

pytestmark = pytest.mark.timeout(60)


def of_the_site(root: Path) -> None:
    zip_faces(root / "Img" / "img_align_celeba.zip")
    (root / "Anno").mkdir()
    (root / "Anno" / "list_attr_celeba.txt").write_text(attribute_text())


def of_the_site_unpacked(root: Path) -> None:
    write_faces(root / "Img" / "img_align_celeba")
    (root / "Anno").mkdir()
    (root / "Anno" / "list_attr_celeba.txt").write_text(attribute_text())


def of_kaggle(root: Path) -> None:
    zip_faces(
        root / "archive.zip",
        "img_align_celeba/img_align_celeba/",
        list_attr_celeba_dot_csv=attribute_table(),
        list_eval_partition_dot_csv="image_id,partition\n",
    )


def of_kaggle_unpacked(root: Path) -> None:
    write_faces(root / "img_align_celeba" / "img_align_celeba")
    (root / "list_attr_celeba.csv").write_text(attribute_table())


def with_a_stored_zip(root: Path) -> None:
    zip_faces(root / "img_align_celeba.zip", method=zipfile.ZIP_STORED)
    (root / "list_attr_celeba.txt").write_text(attribute_text().replace("\n", "\r\n"))


LAYOUTS: dict[str, tuple[Callable[[Path], None], str]] = {
    "folder": (celeba_folder, "."),
    "folder of images": (celeba_folder, "img_align_celeba"),
    "zip": (with_a_stored_zip, "."),
    "zip itself": (with_a_stored_zip, "img_align_celeba.zip"),
    "site": (of_the_site, "."),
    "site, zip itself": (of_the_site, "Img/img_align_celeba.zip"),
    "site, unpacked": (of_the_site_unpacked, "."),
    "site, folder of images": (of_the_site_unpacked, "Img/img_align_celeba"),
    "Kaggle": (of_kaggle, "archive.zip"),
    "Kaggle, unpacked": (of_kaggle_unpacked, "."),
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_layout_has_the_same_faces_and_labels(tmp_path: Path, layout: str) -> None:
    make, path = LAYOUTS[layout]
    make(tmp_path / "celeba")
    source = CelebaSource(str(tmp_path / "celeba" / path), ["Blond_Hair"])
    assert source.classes == ["not Blond_Hair", "Blond_Hair"]
    assert len(source) == FACES
    for number in range(FACES):
        pixels, label = source[number]
        assert pixels.shape == (218, 178, 3)
        assert number_of_face(pixels) == number + 1
        assert label == has("Blond_Hair", number + 1)


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_without_label_no_list_is_needed(tmp_path: Path, method: int) -> None:
    zip_faces(tmp_path / "faces.zip", method=method)
    source = CelebaSource(str(tmp_path / "faces.zip"))
    assert source.classes == []
    assert [(number_of_face(pixels), label) for pixels, label in (source[n] for n in range(FACES))] == [
        (number, -1) for number in range(1, FACES + 1)
    ]


def test_several_attributes_make_the_product_of_classes(tmp_path: Path) -> None:
    celeba_folder(tmp_path)
    source = CelebaSource(str(tmp_path), ["Blond_Hair", "Smiling"])
    assert source.classes == [
        "not Blond_Hair, not Smiling", "not Blond_Hair, Smiling", "Blond_Hair, not Smiling", "Blond_Hair, Smiling",
    ]  # fmt: skip
    assert [source[number][1] for number in range(FACES)] == [2, 0, 3, 1, 2, 0, 3, 1]
    turned = CelebaSource(str(tmp_path), ["Smiling", "Blond_Hair"])
    assert turned.classes[2] == "Smiling, not Blond_Hair"
    assert [turned[number][1] for number in range(FACES)] == [1, 0, 3, 2, 1, 0, 3, 2]


def test_every_attribute_can_be_the_label(tmp_path: Path) -> None:
    for text in (attribute_text(), attribute_table()):
        for attribute in ATTRIBUTES:
            classes = read_attributes(text.splitlines(), "list", [attribute])
            assert classes == {name: int(has(attribute, number)) for number, name in enumerate(face_names(), 1)}


def test_shards_do_not_depend_on_the_layout_or_the_processes(tmp_path: Path) -> None:
    """Enough faces for two processes, to which the source travels without its images."""
    count = 80
    celeba_folder(tmp_path / "folder", count)
    zip_faces(tmp_path / "zip" / "img_align_celeba.zip", count=count, list_attr_celeba_dot_csv=attribute_table(count))
    made = []
    for name, processes in (("folder", 1), ("zip", 2)):
        source = CelebaSource(str(tmp_path / name), ["Smiling"])
        assert len(pickle.dumps(source)) < 100 * count
        out = Storage.open(str(tmp_path / f"{name}-shards"))
        made.append(pack(source, out, PackOptions(32, 3, encoding="jpg", processes=processes)))
        assert Index.load(out).header.classes == ["not Smiling", "Smiling"]
    assert made[0].hash == made[1].hash
    assert int(made[0].labels.sum()) == sum(has("Smiling", number) for number in range(1, count + 1))


def test_a_zip_may_hold_more_than_the_faces(tmp_path: Path) -> None:
    zip_faces(
        tmp_path / "a.zip",
        **{
            "__MACOSX/img_align_celeba/._000001_dot_jpg": "x",
            "img_align_celeba/notes_dot_txt": "x",
            "000009_dot_jpg": "",
        },
    )
    assert len(CelebaSource(str(tmp_path / "a.zip"))) == FACES


# The list.

ROWS = attribute_text().splitlines()


def changed_row(number: int, row: str) -> str:
    return "\n".join([*ROWS[:number], row, *ROWS[number + 1 :]])


LISTS: dict[str, str] = {
    "empty": "",
    "a web page": "<!DOCTYPE html><html>\n<body>Quota exceeded</body>",
    "no names": "8\n",
    "rows missing": "\n".join(ROWS[:-1]),
    "a cut row": changed_row(4, ROWS[4][:-3]),
    "a row twice": changed_row(4, ROWS[3]),
    "a word": changed_row(2, ROWS[2].replace("1", "yes")[5:]),
    "a two": changed_row(3, ROWS[3].replace("  1", "  2")),
    "a cut table": attribute_table()[:-6],
}


@pytest.mark.parametrize("name", LISTS)
def test_a_wrong_list_is_named(tmp_path: Path, name: str, same_words: Callable[..., None]) -> None:
    celeba_folder(tmp_path)
    (tmp_path / "list_attr_celeba.txt").write_text(LISTS[name])
    with pytest.raises(UserError) as caught:
        CelebaSource(str(tmp_path), ATTRIBUTES[:12])
    assert str(caught.value).startswith(f"{tmp_path}/list_attr_celeba.txt: ")
    same_words(str(caught.value), tmp=tmp_path)


# The zip file.


def damaged(path: Path, place: int) -> None:
    data = bytearray(path.read_bytes())
    data[place] ^= 0x55
    path.write_bytes(data)


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_a_damaged_face_in_a_zip_is_named(tmp_path: Path, method: int) -> None:
    path = tmp_path / "a.zip"
    zip_faces(path, method=method)
    with zipfile.ZipFile(path) as archive:
        place = archive.getinfo("img_align_celeba/000003.jpg").header_offset
    whole = path.read_bytes()
    source = CelebaSource(str(path))
    for offset in (2, 120, 250):  # its header, and its content
        path.write_bytes(whole)
        damaged(path, place + offset)
        with pytest.raises(UserError, match=r"a\.zip: 000003\.jpg: (cannot be read|not a readable image)"):
            source[2]
        assert number_of_face(source[3][0]) == 4
    path.write_bytes(whole[: place + 40])
    with pytest.raises(UserError, match=r"000003\.jpg: cannot be read from the zip file"):
        source[2]


def test_zips_that_cannot_be_read_by_place(tmp_path: Path) -> None:
    zip_faces(tmp_path / "lzma.zip", method=zipfile.ZIP_LZMA)
    with pytest.raises(UserError, match="its compression is not supported; unpack"):
        CelebaSource(str(tmp_path / "lzma.zip"))
    zip_faces(tmp_path / "twice.zip", **{"more/img_align_celeba/000004_dot_jpg": "x"})
    with pytest.raises(UserError, match=r"twice\.zip: 000004\.jpg is in it twice"):
        CelebaSource(str(tmp_path / "twice.zip"))
    zip_faces(tmp_path / "secret.zip")
    data = (tmp_path / "secret.zip").read_bytes()
    place = data.rindex(b"PK\x01\x02")
    (tmp_path / "secret.zip").write_bytes(data[: place + 8] + b"\x01" + data[place + 9 :])
    with pytest.raises(UserError, match=r"000008\.jpg: encrypted; unpack"):
        CelebaSource(str(tmp_path / "secret.zip"))
