"""Folders and tables of images at URLs: the bytes are those of the same files on the disk."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from command_line import Cli, one_line
from dataset_hub import dataset_hub
from distgan.data.index import Index
from distgan.data.sources.csv_table import CsvSource
from distgan.data.sources.folder import FolderSource
from distgan.data.verify import verify
from distgan.errors import UserError
from distgan.storage.storage import Storage
from packing import contents, pack_here
from parquet_files import image_file
from toy_data import pack_numbered
from web_files import web_server

pytestmark = pytest.mark.timeout(60)

FILES = {
    "apes/a b.png": image_file(0),
    "cats/deep/b.JPG": image_file(1, "JPEG"),
    "cats/a.png": image_file(2),
    "cats/notes.txt": b"none",
    "cats/.cache/c.png": b"hidden",
    "cats/.cache/d.png": b"hidden",
    "dogs/one.webp": image_file(3, "WEBP"),
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "photos"
    for name, data in FILES.items():
        (made / name).parent.mkdir(parents=True, exist_ok=True)
        (made / name).write_bytes(data)
    return made


@pytest.fixture(params=["s3", "web", "hub"])
def url(request: pytest.FixtureRequest, folder: Path, monkeypatch: pytest.MonkeyPatch, table: None) -> Iterator[str]:
    """The folder at a URL."""
    if request.param == "web":
        with web_server(folder.parent, lists=True) as (address, _):
            yield f"{address}/photos"
        return
    files = {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    if request.param == "hub":
        with dataset_hub(monkeypatch) as hub:
            hub.files["me/photos"] = files
            yield "hf://datasets/me/photos"
        return
    storage = Storage.open(f"{request.getfixturevalue('bucket')}/photos")
    for name, data in files.items():
        storage.write_bytes(name, data)
    yield storage.url


@pytest.fixture
def table(folder: Path) -> None:
    """A CSV file beside the images."""
    (folder / "table.csv").write_text("path,label\ncats/a.png,x\ndogs/one.webp,y\n")


def test_a_folder_and_a_table(folder: Path, url: str, tmp_path: Path) -> None:
    source = FolderSource(url)
    assert source.classes == ["apes", "cats", "dogs"]
    assert source.left_out == {".txt": 1, ".csv": 1, "hidden or system": 1}
    assert source.name(1) == f"{url}/cats/a.png"
    pack_here(source, tmp_path / "remote")
    pack_here(FolderSource(str(folder)), tmp_path / "local")
    assert contents(tmp_path / "remote") == contents(tmp_path / "local")
    assert FolderSource(url, label_pattern="^.").classes == ["a", "b", "o"]
    pack_here(CsvSource(f"{url}/table.csv"), tmp_path / "table")
    pack_here(CsvSource(str(folder / "table.csv")), tmp_path / "local-table")
    assert contents(tmp_path / "table") == contents(tmp_path / "local-table")


def test_a_data_set_in_the_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    index = pack_numbered(tmp_path, 60, shard_kb=16)
    with dataset_hub(monkeypatch) as hub:
        hub.files["me/numbers"] = {f"packed/{name}": data for name, data in contents(tmp_path).items()}
        storage = Storage.open("hf://datasets/me/numbers/packed")
        assert Index.load(storage).hash == index.hash
        assert verify(storage) == []
        shards = [shard.name for shard in index.header.shards]
        asked = [(shards[block.shard], block.start, block.end) for block in index.blocks]
        assert all(block.holds(data) for block, data in zip(index.blocks, storage.read_ranges(asked), strict=True))
        assert storage.exists("index.json")
        assert not storage.exists("index.html")


def test_a_table_of_labels_at_a_url(folder: Path, bucket: str) -> None:
    storage = Storage.open(bucket)
    for number in range(2):
        storage.write_bytes(f"set/00000/img{number}.png", FILES["apes/a b.png"])
    storage.write_bytes(
        "set/dataset.json", json.dumps({"labels": [["00000/img0.png", 1], ["00000/img1.png", 0]]}).encode()
    )
    source = FolderSource(f"{bucket}/set")
    assert [source.label(number) for number in range(2)] == [1, 0]
    storage.write_bytes("set/dataset.json", json.dumps({"labels": [["00000/img0.png", 1]]}).encode())
    with pytest.raises(UserError, match=rf"{bucket}/set/dataset.json: has no label for 00000/img1.png"):
        FolderSource(f"{bucket}/set")


def test_what_is_not_there_or_of_another_format(cli: Cli, bucket: str) -> None:
    storage = Storage.open(bucket)
    storage.write_bytes("mixed/a.png", FILES["cats/a.png"])
    storage.write_bytes("mixed/dogs/a.png", FILES["cats/a.png"])
    storage.write_bytes("shards/a.tar", b"")

    def pack(url: str, name: str) -> str:
        return one_line(cli("data", "pack", url, "--format", name, "--out", "new"))

    assert pack(f"{bucket}/gone", "folder") == f"{bucket}/gone: no such folder of images; check the name"
    assert pack(f"{bucket}/mixed", "folder").startswith(f"{bucket}/mixed/a.png: lies beside class folders")
    assert pack(f"{bucket}/shards", "folder").endswith(f"but tar files; use `distgan data index {bucket}/shards`")
    assert pack(f"{bucket}/mixed", "parquet").endswith("but images; use --format folder")
    assert "the bucket does not exist" in pack("s3://not-there/photos", "folder")
