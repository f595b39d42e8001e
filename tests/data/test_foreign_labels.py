"""Labels and images of shards from other software: numbers, words, names of classes, several members of a key."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from command_line import Cli, one_line
from distgan.data.index import Index
from distgan.data.labels import read_class_names
from distgan.data.scan import Chosen
from distgan.data.shard_index import index_shards
from distgan.data.verify import verify
from distgan.errors import UserError
from distgan.storage.storage import Storage
from packing import gray, pixels_of, write_foreign, write_image

pytestmark = pytest.mark.timeout(60)

PNG = gray(1, "PNG")


def labeled(folder: Path, *samples: dict[str, Any], **options: Any) -> Index:
    write_foreign(folder / "a.tar", [{"png": gray(number, "PNG"), **sample} for number, sample in enumerate(samples)])
    return index_shards(Storage.open(str(folder)), **options)


def test_words_become_classes_in_order(tmp_path: Path) -> None:
    write_foreign(tmp_path / "b.tar", [{"png": PNG, "json": {"label": "ant"}}, {"png": PNG}])
    index = labeled(tmp_path, {"cls": "dog"}, {"cls": " cat\n"}, {"cls": "dog"}, {"cls": "7"}, {"txt": "zebra"})
    assert index.header.classes == ["7", "ant", "cat", "dog"]
    assert index.labels.tolist() == [3, 2, 3, 0, -1, 1, -1]
    assert verify(Storage.open(str(tmp_path))) == []
    assert Index.load(Storage.open(str(tmp_path))).hash == index.hash


def test_a_word_among_numbers_is_a_bad_sample(tmp_path: Path) -> None:
    samples = {"cls": "0"}, {"cls": "cat"}, {"cls": "1"}
    with pytest.raises(UserError, match=r"^a\.tar: train/00001\.cls: the label 'cat' is not a whole number .* as the"):
        labeled(tmp_path, *samples)
    assert labeled(tmp_path, *samples, bad="skip").labels.tolist() == [0, 1]


@pytest.mark.parametrize("label", [True, ["cat"], {"name": "cat"}])
def test_a_label_in_json_is_a_text_or_a_number(tmp_path: Path, label: object) -> None:
    with pytest.raises(UserError, match=r"^a\.tar: train/00000\.json: the label .* is not a whole number .* or a word"):
        labeled(tmp_path, {"json": {"label": label}})


def test_names_of_classes_give_the_order(tmp_path: Path) -> None:
    samples = {"cls": "dog"}, {"cls": "cat"}, {"cls": "2"}
    index = labeled(tmp_path, *samples, classes=["dog", "cat", "cow"])
    assert (index.labels.tolist(), index.header.classes) == ([0, 1, 2], ["dog", "cat", "cow"])
    with pytest.raises(UserError, match=r"the label '2' is none of the 2 classes of --classes; --bad skip"):
        labeled(tmp_path, *samples, classes=["dog", "cat"])
    with pytest.raises(UserError, match=r"'cat' is none of the 2 classes of --classes; did you mean 'cats'\?"):
        labeled(tmp_path, *samples, classes=["dog", "cats"])
    with pytest.raises(UserError, match=r"the label 'dog' is the name of several classes"):
        labeled(tmp_path, *samples, classes=["dog", "dog"])
    assert labeled(tmp_path, {"cls": "1"}, classes=["crane", "crane"]).labels.tolist() == [1], "as in ImageNet"


def test_class_names_are_read_from_a_file_or_the_command(tmp_path: Path) -> None:
    file = tmp_path / "names.txt"
    file.write_text("T-shirt, or top\n  Sandal \n\n")
    assert read_class_names("cat,dog , cow") == ["cat", "dog", "cow"]
    assert read_class_names("~nobody-here,b") == ["~nobody-here", "b"]
    assert read_class_names(str(file)) == ["T-shirt, or top", "Sandal"]
    for text in ("cat,,dog", "x" * 101, f"{tmp_path}/none", "names.txt", "a\x1b[2J", "", ",".join(["x"] * 65_537)):
        with pytest.raises(UserError, match=r"^--classes .*(no such file; |name \d is '.*'; a name|at most 65,536)"):
            read_class_names(text)
    file.write_bytes(b"\xff\xfe")
    with pytest.raises(UserError, match="not a text file in UTF-8"):
        read_class_names(str(file))


def test_labels_are_read_from_where_they_are(tmp_path: Path) -> None:
    samples = {"fine.cls": "3", "label.txt": "x", "json": {"Category": "b"}}, {"fine.cls": "1", "json": {}}
    assert labeled(tmp_path, *samples, chosen=Chosen(label="fine.cls")).labels.tolist() == [3, 1]
    assert labeled(tmp_path, *samples, chosen=Chosen(label="label.txt")).header.classes == ["x"]
    index = labeled(tmp_path, *samples, chosen=Chosen(label="Category"))
    assert (index.labels.tolist(), index.header.classes) == ([0, -1], ["b"])


def test_labels_that_nobody_reads_are_told(tmp_path: Path, cli: Cli) -> None:
    unread: list[Counter[str]] = []
    samples = {"label": "3", "json": {"category": 7, "id": 1}}, {"label": "4", "json": {"width": 9}}
    labeled(tmp_path, *samples, on_unread=unread.append)
    assert unread == [{".label": 2, '"category" of .json': 1}]
    told = cli("data", "index", str(tmp_path))
    again = f"distgan data index {tmp_path} --label"
    assert f"no sample has a label that is read, but 2 have .label; to read it: `{again} label`" in told.out
    assert f'but 1 have "category" of .json; to read it: `{again} category`' in told.out
    read = cli("data", "index", str(tmp_path), "--label", "label")
    assert read.code == 0
    assert "warning" not in read.out
    assert "5 classes (3 without an image), 2 labeled" in read.out


def test_one_of_several_images_is_chosen(tmp_path: Path) -> None:
    sample = {"jpg": gray(50), "seg.png": gray(60, "PNG"), "depth.png": gray(70, "PNG")}
    write_foreign(tmp_path / "a.tar", [sample])
    storage = Storage.open(str(tmp_path))
    for name, value in ((None, 50), ("seg", 60), ("seg.png", 60), ("Depth", 70)):
        index = index_shards(storage, chosen=Chosen(image=name))
        assert pixels_of(tmp_path, index)[0][0, 0, 0] == pytest.approx(value, abs=2), name
    with pytest.raises(UserError, match=r"^a\.tar: no images \.mask in it; not taken: 3 without an image$"):
        index_shards(storage, chosen=Chosen(image="mask"))
    write_foreign(tmp_path / "a.tar", [{"image.png": gray(60, "PNG")}])
    assert len(index_shards(storage)) == 1, "the only one"
    write_foreign(tmp_path / "a.tar", [{"in.png": PNG, "out.png": PNG}])
    with pytest.raises(UserError, match=r"second image .* \(\.in\.png, \.out\.png\); choose one with --image in\.png"):
        index_shards(storage)


def test_other_files_than_shards_name_their_command(tmp_path: Path, cli: Cli) -> None:
    write_image(tmp_path / "photos" / "a.jpg")
    write_image(tmp_path / "classes" / "cat" / "a.png")
    names = (
        "tables/part-0.parquet",
        "lists/all.csv",
        "packed/train.tar.gz",
        "c/cifar-10-python.tar.gz",
    )
    for name in names:
        (tmp_path / name).parent.mkdir(parents=True)
        (tmp_path / name).write_bytes(b"x")
    for folder, way in {
        "photos": f"`distgan data pack {tmp_path}/photos --format folder --out FOLDER`",
        "classes": f"`distgan data pack {tmp_path}/classes --format folder --out FOLDER`",
        "tables": f"`distgan data pack {tmp_path}/tables --format parquet --out FOLDER`",
        "lists/all.csv": f"`distgan data pack {tmp_path}/lists/all.csv --format csv --out FOLDER`",
        "packed": f"`distgan data pack {tmp_path}/packed --format webdataset --out FOLDER`",
        "c": f"`distgan data pack {tmp_path}/c --format cifar --out FOLDER`",
    }.items():
        line = one_line(cli("data", "index", str(tmp_path / folder)))
        assert line.startswith(f"{tmp_path}/{folder}: no .tar files there"), line
        assert way in line


def test_the_table_of_classes_is_bounded(tmp_path: Path, cli: Cli) -> None:
    labeled(tmp_path, *({"cls": str(number)} for number in range(0, 300, 3)))
    lines = cli("data", "info", str(tmp_path)).out.splitlines()
    table = lines[lines.index("  class  name      images") :]
    assert table[1:3] == ["      0  0              1", "      1  1              0"]
    assert table[51:] == ["  and 248 classes more, with 0 to 1 images each", *lines[-1:]]
