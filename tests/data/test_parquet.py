"""Parquet files as a source: columns, labels, several files, and the same over S3, the web and the hub."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from pyarrow import parquet

from command_line import Cli, one_line
from dataset_hub import DatasetHub, dataset_hub
from distgan.data.index import Index
from distgan.data.sources.base import open_source
from distgan.data.sources.parquet import ParquetSource
from distgan.errors import UserError
from distgan.storage.storage import Storage, UnavailableError
from packing import contents, pack_here
from parquet_files import hub_file, hub_structs, image_file, parquet_bytes
from web_files import web_server

pytestmark = pytest.mark.timeout(60)

IMAGES = [image_file(number) for number in range(4)]


def number_of(source: ParquetSource, place: int) -> int:
    return int(source[place][0][0, 0, 0])


def labels_of(source: ParquetSource) -> list[int]:
    return [source.label(number) for number in range(len(source))]


def read_all(path: str) -> None:
    source = ParquetSource(path)
    for number in range(len(source)):
        source[number]


def write(path: Path, columns: dict[str, Any], features: dict[str, Any] | None = None) -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(parquet_bytes(columns, features))
    return str(path)


def test_files_of_the_hub_in_their_order(tmp_path: Path) -> None:
    for name, first, count in (
        ("test-00000-of-00001", 20, 3),
        ("train-00001-of-00002", 7, 5),
        ("train-00000-of-00002", 0, 7),
    ):
        (tmp_path / f"{name}.parquet").write_bytes(hub_file(first, count))
    source = ParquetSource(str(tmp_path))
    assert [number_of(source, place) for place in range(len(source))] == list(range(12))
    assert source.classes == ["cat", "dog"]
    assert labels_of(source) == [0, 1] * 6
    assert source.left_out == {"of other splits": 1}
    assert source.name(8) == f"{tmp_path}/train-00001-of-00002.parquet: row 1"
    assert source.file(3) == IMAGES[3]
    assert len(ParquetSource(str(tmp_path), split="all")) == 15
    assert [number_of(ParquetSource(str(tmp_path), split="test"), place) for place in range(3)] == [20, 21, 22]
    assert len(ParquetSource(f"{tmp_path}/*-00000-*.parquet")) == 7
    (tmp_path / "more.parquet").write_bytes(hub_file(12, 1))
    assert len(ParquetSource(str(tmp_path))) == 12, "not test as well"
    assert len(ParquetSource(f"{tmp_path}/[mt]*00002.parquet")) == 12
    assert len(ParquetSource(f"{tmp_path}/[m]*.parquet")) == 1
    assert len(ParquetSource(f"{tmp_path}/train-00001*")) == 5


@pytest.mark.parametrize("kind", ["binary", "large_binary", "struct"])
@pytest.mark.parametrize(
    ("labels", "classes", "expected"),
    [
        (pa.array([1, 0, None, -1], pa.int32()), ["0", "1"], [1, 0, -1, -1]),
        (pa.array(["b", "", None, "a"]), ["a", "b"], [1, -1, -1, 0]),
        (pa.array(["10", "9", "9", "10"]).dictionary_encode(), ["9", "10"], [1, 0, 0, 1]),
        (None, [], [-1] * 4),
    ],
    ids=["numbers", "text", "dictionary", "none"],
)
def test_kinds_of_columns(tmp_path: Path, kind: str, labels: Any, classes: list[str], expected: list[int]) -> None:
    images = hub_structs(IMAGES) if kind == "struct" else pa.array(IMAGES, getattr(pa, kind)())
    source = ParquetSource(
        write(tmp_path / "a.parquet", {"photo": images} | ({} if labels is None else {"label": labels}))
    )
    assert [number_of(source, place) for place in range(4)] == [0, 1, 2, 3]
    assert source.classes == classes
    assert labels_of(source) == expected


def test_columns_are_chosen_by_kind_then_by_name_then_by_option(tmp_path: Path) -> None:
    columns = {
        "mask": pa.array([b"no image"] * 4),
        "image": pa.array(IMAGES),
        "fine": [0, 1, 2, 3],
        "coarse": [0, 0, 1, 1],
        "caption": ["x"] * 4,
    }
    path = write(tmp_path / "plain.parquet", columns)
    assert ParquetSource(path).classes == []
    assert number_of(ParquetSource(path), 2) == 2
    assert labels_of(ParquetSource(path, label_column="coarse")) == [0, 0, 1, 1]
    with pytest.raises(UserError, match=r"mask.*row 0|row 0: not a readable image"):
        ParquetSource(path, image_column="mask")[0]
    features = {name: {"_type": "ClassLabel", "names": list("abcd")} for name in ("fine", "coarse")}
    path = write(tmp_path / "hub.parquet", columns, features | {"image": {"_type": "Image"}})
    with pytest.raises(UserError, match=r"hub.parquet: .*--label-column fine or coarse$"):
        ParquetSource(path)
    assert ParquetSource(path, label_column="fine").classes == list("abcd")


WRONG: dict[str, tuple[dict[str, Any], dict[str, Any], str]] = {
    "no images": ({"url": ["a"], "label": [1]}, {}, r"no column of image files \(bytes\), but url \(string\), label"),
    "two images": ({"a": pa.array(IMAGES), "b": pa.array(IMAGES)}, {}, r"several columns .*--image-column a or b$"),
    "bytes too deep": (
        {"image": pa.array([{"bytes": {"bytes": IMAGES[0]}}])},
        {},
        r"no column of image files \(bytes\), but image \(struct<",
    ),
    "unknown column": (
        {"image": pa.array(IMAGES)},
        {"image_column": "imag"},
        r"--image-column imag: .*did you mean 'image'",
    ),
    "text as images": ({"image": ["a"]}, {"image_column": "image"}, r"--image-column image: is string, not bytes"),
    "numbers with points": (
        {"image": pa.array(IMAGES), "y": [0.5] * 4},
        {"label_column": "y"},
        r"is double, not text or",
    ),
    "negative label": (
        {"image": pa.array(IMAGES), "label": [0, 1, 2, -2]},
        {},
        r"the label -2 is not a class from 0 to 2",
    ),
    "huge label": ({"image": pa.array(IMAGES), "label": [0, 1, 2, 10**9]}, {}, r"the label 1000000000 is not a class"),
    "captions": (
        {"image": pa.array(IMAGES), "label": ["a", "b" * 256, "c", "d"]},
        {},
        r"the label 'b{20}'… has 256 characters; at most 255",
    ),
    "no rows": ({"image": pa.array([], pa.binary())}, {}, r"no rows in it"),
}


@pytest.mark.parametrize("case", WRONG.values(), ids=WRONG)
def test_wrong_tables_are_one_line(tmp_path: Path, case: tuple[dict[str, Any], dict[str, Any], str]) -> None:
    columns, options, message = case
    with pytest.raises(UserError, match=message) as caught:
        ParquetSource(write(tmp_path / "a.parquet", columns), **options)
    assert "\n" not in str(caught.value)


def test_two_columns_of_one_name_are_an_error(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    parquet.write_table(pa.table([pa.array(IMAGES)] * 2, ["image", "image"]), path)
    with pytest.raises(UserError, match=r"--image-column image: .*a.parquet has several columns of this name"):
        ParquetSource(str(path), image_column="image")


def test_an_error_of_the_format_is_not_hidden_by_other_files(tmp_path: Path) -> None:
    write(tmp_path / "a.parquet", {"image": pa.array(IMAGES), "img": pa.array(IMAGES)})
    (tmp_path / "b.tar").write_bytes(b"")
    with pytest.raises(UserError, match=r"choose --image-column image or img"):
        open_source("parquet", str(tmp_path), {})


def test_labels_without_a_name_are_an_error(tmp_path: Path) -> None:
    features = {"label": {"_type": "ClassLabel", "names": ["a", "b"]}}
    path = write(tmp_path / "a.parquet", {"image": pa.array(IMAGES), "label": [0, 1, 2, 1]}, features)
    with pytest.raises(UserError, match=r"the label 2 is not a class from 0 to 1"):
        ParquetSource(path)


def test_files_with_other_labels_are_an_error(tmp_path: Path) -> None:
    for name, classes in (("a", ("cat", "dog")), ("b", ("dog", "cat"))):
        (tmp_path / f"{name}.parquet").write_bytes(hub_file(0, 4, classes))
    with pytest.raises(UserError, match=r"b.parquet: has other labels than .*a.parquet"):
        ParquetSource(str(tmp_path))


def test_damaged_files_are_one_line(tmp_path: Path) -> None:
    whole = hub_file(0, 12)
    for name, data in {
        "empty": b"",
        "text": b"not parquet" * 10,
        "cut": whole[: len(whole) // 2],
        "footer": whole[:-60] + bytes(52) + whole[-8:],
        "pages": whole[:100] + bytes(400) + whole[500:],
        "metadata": whole[:-700] + bytes(100) + whole[-600:],
    }.items():
        (tmp_path / f"{name}.parquet").write_bytes(data)
        with pytest.raises(UserError, match=rf"{name}\.parquet: (not a whole Parquet file|row)") as caught:
            read_all(str(tmp_path / f"{name}.parquet"))
        assert "\n" not in str(caught.value)


def test_images_that_unpack_to_far_more_than_the_file_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "bomb.parquet"
    path.write_bytes(parquet_bytes({"image": pa.array([bytes(2**24)] * 6)}, compression="zstd"))
    assert path.stat().st_size < 2**15
    with pytest.raises(UserError, match=r"bomb.parquet: its [\d,]+ bytes would unpack to"):
        ParquetSource(str(path))


def test_rows_without_an_image_are_bad_ones(tmp_path: Path) -> None:
    path = write(tmp_path / "a.parquet", {"image": hub_structs([IMAGES[0], None, b"x", IMAGES[1]])})
    source = ParquetSource(path)
    with pytest.raises(UserError, match=r"a.parquet: row 1: its image has no bytes; --format csv reads"):
        source[1]
    index = pack_here(source, tmp_path / "out", bad="skip")
    assert (len(index), index.header.left_out) == (2, {"bad": 2})


def test_the_temporary_file_is_deleted_with_the_source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "temporary").mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "temporary"))
    source = ParquetSource(write(tmp_path / "a.parquet", {"image": pa.array(IMAGES)}))
    assert len(list((tmp_path / "temporary").rglob("images"))) == 1
    del source
    assert not list((tmp_path / "temporary").iterdir())


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A data set as its repository in the hub has it."""
    made = tmp_path / "birds"
    for name, data in {
        "README.md": b"# Birds",
        "data/train-00000-of-00002.parquet": hub_file(0, 5),
        "data/train-00001-of-00002.parquet": hub_file(5, 4),
        "data/test-00000-of-00001.parquet": hub_file(50, 2),
    }.items():
        (made / name).parent.mkdir(parents=True, exist_ok=True)
        (made / name).write_bytes(data)
    return made


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, folder: Path) -> Iterator[DatasetHub]:
    with dataset_hub(monkeypatch) as running:
        files = [path for path in sorted(folder.rglob("*")) if path.is_file()]
        running.files["me/birds"] = {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}
        yield running


@pytest.fixture
def web(folder: Path) -> Iterator[str]:
    with web_server(folder.parent, lists=True) as (url, _):
        yield url


def test_the_same_bytes_from_everywhere(tmp_path: Path, folder: Path, hub: DatasetHub, web: str, bucket: str) -> None:
    for path in folder.rglob("*.parquet"):
        Storage.open(bucket).upload(path, f"birds/{path.relative_to(folder).as_posix()}")
    places = {
        "local": str(folder),
        "file": f"file://{folder}/data",
        "hub": "hf://datasets/me/birds",
        "pattern": "hf://datasets/me/birds/data/train-*.parquet",
        "web": f"{web}/birds/data/",
        "s3": f"{bucket}/birds/data",
    }
    packed = {}
    for name, url in places.items():
        source = ParquetSource(url)
        packed[name] = contents(Path(pack_here(source, tmp_path / name) and tmp_path / name))
        packed[name].pop("index.json")  # which counts the files of other splits
    assert all(files == packed["local"] for files in packed.values())
    assert len(ParquetSource(f"{web}/birds/data/train-00001-of-00002.parquet")) == 4


HUB = {
    "nothing of that name": ("hf://datasets/me/dogs", r"hf://datasets/me/dogs: no such repository, or a private one"),
    "a gated one": ("hf://datasets/me/gated", r"the repository is gated; accept its terms .*HF_TOKEN$"),
    "no such revision": ("hf://datasets/me/birds@old", r"no such revision; check what follows the @$"),
    "no such folder": ("hf://datasets/me/birds/images", r"the folder does not exist; check the name"),
    "no such file": ("hf://datasets/me/birds/data/a.parquet", r"data/a.parquet: not found; check the name"),
    "no name": ("hf://datasets/me", r"not an address in the hub|needs|hf://datasets/me"),
}


@pytest.mark.parametrize("case", HUB.values(), ids=HUB)
def test_what_the_hub_does_not_give_is_one_line(cli: Cli, hub: DatasetHub, case: tuple[str, str]) -> None:
    hub.files["me/gated"], hub.gated = {"a.parquet": b""}, {"me/gated"}
    url, expected = case
    message = one_line(cli("data", "pack", url, "--format", "parquet", "--out", "new"))
    assert re.search(expected, message), message
    assert not Path("new").exists()
    trained = one_line(cli("train", "quickstart", f"data.url={url}", "--no-ray"))
    assert url in trained


@pytest.mark.parametrize(("status", "temporary"), [(500, True), (429, True), (401, False), (403, False)])
def test_a_hub_that_refuses(hub: DatasetHub, status: int, temporary: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("time.sleep", lambda _: None)  # pauses of the hub's library
    hub.status = status
    with pytest.raises(UserError) as caught:
        Index.load(Storage.open("hf://datasets/me/birds"))
    assert f"HTTP {status}" in str(caught.value) or "private" in str(caught.value)
    assert isinstance(caught.value, UnavailableError) == temporary


def test_a_hub_that_is_not_there(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    with dataset_hub(monkeypatch):
        pass  # its port is free now
    message = one_line(cli("data", "pack", "hf://datasets/me/birds", "--format", "parquet", "--out", "new"))
    assert message == "hf://datasets/me/birds: the server cannot be reached; check the URL and the network"
    with pytest.raises(UnavailableError, match="cannot be reached"):
        Storage.open("hf://datasets/me/birds").read_bytes("index.json")


def test_without_the_hubs_library(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    monkeypatch.delitem(sys.modules["fsspec.registry"]._registry, "hf", raising=False)
    message = one_line(cli("data", "pack", "hf://datasets/me/birds", "--format", "parquet", "--out", "new"))
    assert message.endswith("hf:// needs a package that is not installed; pip install 'distgan[hub]'")


def test_folders_that_a_user_has_to_choose_from(tmp_path: Path) -> None:
    for name in ("fine", "coarse"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "train.parquet").write_bytes(hub_file(0, 2))
    with pytest.raises(UserError, match=rf"in several folders; give one of them: {tmp_path}/coarse, {tmp_path}/fine"):
        ParquetSource(str(tmp_path))
