"""Shards in folders below a folder, by patterns, under any name, empty, or compressed."""

from __future__ import annotations

import gzip
import tarfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from command_line import Cli, one_line
from distgan.config.schema import DataConfig
from distgan.data.dataset import Dataset
from distgan.data.shard_checks import open_index
from distgan.data.shard_index import index_shards
from distgan.data.shard_source import ShardSource
from distgan.data.sources.webdataset import WebdatasetSource
from distgan.data.verify import verify
from distgan.errors import UserError
from distgan.storage.storage import Storage
from packing import gray, write_foreign
from web_files import web_server

pytestmark = pytest.mark.timeout(60)

NAMES = ["00/a b.tar", "00/c=1&d'.tar", "00/d%41.tar", "01/deep/e+f#.tar", "01/größe-é.tar", "f;~,(1)@.tar"]


def write_shards(folder: Path) -> None:
    for number, name in enumerate(NAMES):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        write_foreign(folder / name, [{"png": gray(10 * number + each, "PNG"), "cls": each} for each in range(2)])
    (folder / ".hidden").mkdir()
    (folder / ".hidden" / "a.tar").write_bytes(b"not read")


@pytest.fixture(params=["disk", "s3", "web"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """The URL of a folder with shards."""
    folder = tmp_path / "my shards+"
    write_shards(folder)
    if request.param == "web":
        with web_server(tmp_path, lists=True) as (url, _):
            yield f"{url}/my%20shards+"
    elif request.param == "s3":
        remote = Storage.open(f"{request.getfixturevalue('bucket')}/my shards+")
        for name in [*NAMES, ".hidden/a.tar"]:
            remote.upload(folder / name, name)
        yield remote.url
    else:
        yield str(folder)


def test_shards_of_any_name_below_a_folder(place: str, tmp_path: Path) -> None:
    index = tmp_path / "index"
    made = index_shards(ShardSource.parse(place), to=Storage.open(str(index)))
    assert [shard.name for shard in made.header.shards] == sorted(NAMES)
    assert open_index(Storage.open(str(index))).hash == made.hash
    dataset = Dataset.open(DataConfig(url=str(index)), (1, 16, 16))
    found = {int(image[0, 0, 0]) for _, image in dataset.images(np.arange(len(made)))}
    assert found == {10 * number + each for number in range(len(NAMES)) for each in range(2)}
    assert verify(Storage.open(str(index))) == []
    (one,) = index_shards(ShardSource.parse(f"{place}/00/a b.tar"), to=Storage.open(str(index))).header.shards
    assert one.name == "a b.tar"


@pytest.mark.parametrize(
    ("url", "names"),
    [
        ("{00..01}/a-{8..10}.tar", [f"{folder}/a-{number}.tar" for folder in ("00", "01") for number in (8, 9, 10)]),
        ("x/{train,extra}-{0..1}.tar", ["train-0.tar", "train-1.tar", "extra-0.tar", "extra-1.tar"]),
        ("http://h/a%20b/c%25-{0..1}.tar", ["c%-0.tar", "c%-1.tar"]),
        ("http://h/{a%20b,c}/0.tar", ["a b/0.tar", "c/0.tar"]),
    ],
)
def test_patterns_in_braces(url: str, names: list[str]) -> None:
    assert ShardSource.parse(url).list() == names


@pytest.mark.parametrize(
    "name", ["a\n.tar", "../a.tar", "a//b.tar", "a[1].tar", "/a.tar", f"{'x' * 1000}.tar", "\x9b.tar"], ids=ascii
)
def test_a_name_that_an_index_cannot_have(name: str, tmp_path: Path) -> None:
    write_foreign(tmp_path / "a.tar", [{"png": gray(1, "PNG")}])
    made = index_shards(Storage.open(str(tmp_path)))
    content = made.header.model_dump()
    content["shards"][0]["name"] = name
    with pytest.raises(ValueError, match="a shard's name has"):
        type(made.header).model_validate(content)


def test_folders_that_are_no_single_data_set(tmp_path: Path) -> None:
    for name in ("splits/train/a.tar", "splits/val/a.tar", "sets/one/a.tar", "sets/two/a.tar"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        write_foreign(tmp_path / name, [{"png": gray(1, "PNG")}])
    index_shards(Storage.open(str(tmp_path / "sets" / "one")))
    with pytest.raises(UserError, match=rf"different splits; give one of them: {tmp_path}/splits/train, {tmp_path}/sp"):
        index_shards(Storage.open(str(tmp_path / "splits")))
    with pytest.raises(UserError, match=rf"a folder with a data set in it \({tmp_path}/sets/one\); give that one"):
        index_shards(Storage.open(str(tmp_path / "sets")))
    assert len(index_shards(ShardSource.parse(f"{tmp_path}/splits/{{train,val}}/a.tar"))) == 2


def test_empty_shards(tmp_path: Path, cli: Cli) -> None:
    with tarfile.open(tmp_path / "b.tar", "w"):
        pass
    (tmp_path / "c.tar").write_bytes(bytes(1024))
    assert one_line(cli("data", "index", str(tmp_path))).endswith("each of its .tar files is an empty archive (b.tar)")
    write_foreign(tmp_path / "a.tar", [{"png": gray(1, "PNG")}])
    made = cli("data", "index", str(tmp_path))
    assert made.code == 0, made
    assert "warning: 2 empty shards left out: b.tar, c.tar\n" in made.out
    assert verify(Storage.open(str(tmp_path))) == []
    (tmp_path / "d.tar").write_bytes(b"")
    assert one_line(cli("data", "index", str(tmp_path))).startswith("d.tar: it has 0 bytes, which no tar file has; ")


def compressed(folder: Path) -> None:
    samples = [{"jpg": gray(20 * each), "cls": "dog" if each % 2 else "cat", "txt": "x"} for each in range(3)]
    write_foreign(folder / "a.tar", [*samples, {"jpg": b"no image"}])
    (folder / "a.tar.gz").write_bytes(gzip.compress((folder / "a.tar").read_bytes()))
    (folder / "a.tar").unlink()
    with tarfile.open(folder / "b.tar", "w"):
        pass


def test_compressed_shards_are_packed(tmp_path: Path, cli: Cli) -> None:
    compressed(tmp_path)
    (tmp_path / "b.tar").rename(tmp_path / "b")
    line = one_line(cli("data", "index", str(tmp_path)))
    assert f"use `distgan data pack {tmp_path} --format webdataset --out FOLDER`" in line
    (tmp_path / "b").rename(tmp_path / "b.tar")
    pack = ["data", "pack", str(tmp_path), "--format", "webdataset", "--size", "16", "--out", str(tmp_path / "new")]
    assert "a.tar: train/00003.jpg: not a readable image" in one_line(cli(*pack)).replace(".tar.gz", ".tar")
    made = cli(*pack, "--bad", "skip")
    assert made.code == 0, made
    assert "1 bad sample left out" in made.out
    assert "2 classes, 3 labeled" in made.out
    assert "1 empty shards" in made.out
    source = WebdatasetSource(str(tmp_path / "a.tar.gz"))
    assert [source.label(number) for number in range(4)] == [0, 1, 0, -1]
    assert source.name(1) == f"{tmp_path}/a.tar.gz: sample 1"


DAMAGED = {
    "cut": (lambda data: data[:-20], "cannot be unpacked"),
    "a bomb": (lambda data: gzip.compress(bytes(2**26 + 2**22)), "bytes would unpack to"),
    "zstd": (lambda data: b"\x28\xb5\x2f\xfd" + bytes(9), "it is compressed by zstd; gzip, bzip2 and xz can be read"),
    "no tar": (lambda data: gzip.compress(b"x" * 1000), "not a whole, uncompressed tar file"),
}


@pytest.mark.parametrize("name", DAMAGED)
def test_a_damaged_compressed_shard_is_named(tmp_path: Path, name: str) -> None:
    change, message = DAMAGED[name]
    compressed(tmp_path)
    path = tmp_path / "a.tar.gz"
    path.write_bytes(change(path.read_bytes()))
    with pytest.raises(UserError, match=rf"a\.tar\.gz: .*{message}"):
        WebdatasetSource(str(path))
