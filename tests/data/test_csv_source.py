"""A CSV file of paths and labels as a source."""

from __future__ import annotations

from pathlib import Path

import pytest

from distgan.data.sources.csv_table import CsvSource
from distgan.errors import UserError
from distgan.storage import retry
from distgan.storage.storage import Storage, UnavailableError
from packing import contents, pack_here
from parquet_files import image_file

pytestmark = pytest.mark.timeout(60)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Four images below `photos`."""
    (tmp_path / "photos" / "deep").mkdir(parents=True)
    for number, name in enumerate(("a.png", "b.png", "deep/c.png", "d, e.png")):
        (tmp_path / "photos" / name).write_bytes(image_file(number))
    return tmp_path


def table(folder: Path, text: str) -> str:
    (folder / "table.csv").write_text(text)
    return str(folder / "table.csv")


def numbers_of(source: CsvSource) -> list[int]:
    return [int(source[place][0][0, 0, 0]) for place in range(len(source))]


@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
@pytest.mark.parametrize("column", ["path", "File", "filename", "file_name", "image"])
def test_paths_and_labels_in_the_order_of_rows(folder: Path, delimiter: str, column: str) -> None:
    rows = [
        (column, "note", "label"),
        ("photos/deep/c.png", "x", "dog"),
        (f"{folder}/photos/a.png", "", "cat"),
        ('"photos/d, e.png"', "y", ""),
        ("./photos/../photos/b.png", "y", " cat "),
    ]
    source = CsvSource(table(folder, "\ufeff" + "\r\n".join(delimiter.join(row) for row in rows)))
    assert numbers_of(source) == [2, 0, 3, 1]
    assert source.classes == ["cat", "dog"]
    assert [source.label(number) for number in range(4)] == [1, 0, -1, 0]
    assert source.name(3) == f"{folder}/photos/b.png"


def test_columns_by_option_and_numbers_in_order(folder: Path) -> None:
    path = table(folder, "path,image,kind,class\nx,photos/a.png,10,u\ny,photos/b.png,9,v\n")
    with pytest.raises(UserError, match=r"table.csv: .*choose --image-column path or image$"):
        CsvSource(path)
    source = CsvSource(path, image_column="image", label_column="kind")
    assert (numbers_of(source), source.classes) == ([0, 1], ["9", "10"])
    assert CsvSource(path, "image").classes == ["u", "v"]
    assert CsvSource(table(folder, "path\nphotos/a.png\n")).classes == []


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "no rows; a CSV file has"),
        ("path,label\n", "no rows; a CSV file has"),
        (
            "name,label\na.png,x\n",
            r"no column path, .* or image; name the one of paths with --image-column: name, label$",
        ),
        ("path,label\na.png\n", "row 1 has 1 values for 2 columns; correct it"),
        ("path,label\na.png,x\n,y\n", "row 2 has no path; write it, or leave the row out"),
        ("path,label,class\na.png,x,y\n", "choose --label-column label or class"),
        (f"path,label\na.png,{'9' * 5000}\n", "the label '9{20}'… has 5,000 characters; at most 255 can be a class"),
        ("path\n" + "x" * 200_000, "not a CSV file: field larger than field limit"),
    ],
)
def test_wrong_tables_are_one_line(folder: Path, text: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        CsvSource(table(folder, text))


def test_a_file_that_is_no_text_or_not_there(tmp_path: Path) -> None:
    (tmp_path / "table.csv").write_bytes(b"path\n\xff\xfe")
    with pytest.raises(UserError, match=r"not a CSV file: .*; save it as UTF-8 text"):
        CsvSource(str(tmp_path / "table.csv"))
    with pytest.raises(UserError, match=r"gone\.csv: not found"):
        CsvSource(str(tmp_path / "gone.csv"))
    with pytest.raises(UserError, match=r"no such column in .*; there are: path"):
        CsvSource(table(tmp_path, "path\na.png"), image_column="zzz")


def test_missing_images_are_bad_ones(folder: Path) -> None:
    source = CsvSource(table(folder, "path\nphotos/a.png\nphotos/gone.png\ntable.csv\n"))
    with pytest.raises(UserError, match=r"photos/gone.png: not a readable image: No such file"):
        source[1]
    index = pack_here(source, folder / "out", bad="skip")
    assert (len(index), index.header.left_out) == (1, {"bad": 2})


def test_the_same_bytes_from_a_bucket(folder: Path, bucket: str, monkeypatch: pytest.MonkeyPatch) -> None:
    names = ["photos/a.png", "photos/b.png", "photos/deep/c.png"]
    written = ["./photos/a.png", "photos/../photos/b.png", "photos/deep/c.png"]
    rows = [f"{name},{place}" for place, name in enumerate(written)]
    local = table(folder, "\n".join(["path,label", *rows]))
    storage = Storage.open(f"{bucket}/set")
    for name in [*names, "table.csv"]:
        storage.upload(folder / name, name)
    mixed = [rows[0], f"{bucket}/set/{names[1]},1", f"file://{folder}/{rows[2]}"]
    (folder / "mixed.csv").write_text("\n".join(["path,label", *mixed]))
    for place, path in enumerate((local, f"{bucket}/set/table.csv", str(folder / "mixed.csv"))):
        pack_here(CsvSource(path), folder / f"out{place}")
    assert contents(folder / "out0") == contents(folder / "out1") == contents(folder / "out2")

    storage.upload(folder / "mixed.csv", "mixed.csv")
    with pytest.raises(UserError, match=r"mixed.csv: names file:///.*a file of this machine"):
        CsvSource(f"{bucket}/set/mixed.csv")[2]
    (folder / "outside.csv").write_text("path\n../photos/a.png\n/etc/passwd\n")
    storage.upload(folder / "outside.csv", "outside.csv")
    for number in range(2):
        with pytest.raises(UserError, match="a name has parts joined by single slashes"):
            CsvSource(f"{bucket}/set/outside.csv")[number]

    source = CsvSource(f"{bucket}/set/table.csv")
    monkeypatch.setattr(retry, "_FIRST_PAUSE_S", 0.01)
    monkeypatch.setattr("distgan.data.sources.addresses._retry", retry.Retry(wait_s=0.02))
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    with pytest.raises(UnavailableError, match="cannot be reached"):  # says nothing about the image: not left out
        pack_here(source, folder / "out3", bad="skip")
