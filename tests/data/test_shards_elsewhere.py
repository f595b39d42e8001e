"""An index that lies elsewhere than its shards: of a web server, a bucket, or a folder that may only be read."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from command_line import Cli, one_line
from distgan.config.schema import DataConfig
from distgan.data.blocks import BlockReader
from distgan.data.dataset import Dataset
from distgan.data.index import INDEX_NAME, TABLE_NAME, Index
from distgan.data.shard_checks import open_index
from distgan.data.shard_index import index_shards
from distgan.data.shard_source import ShardSource
from distgan.data.verify import verify
from distgan.errors import UserError
from distgan.storage.storage import NotFoundError, Storage
from packing import gray, write_foreign
from runs import assert_same_bits, newest, run, tiny_config
from toy_data import pack_numbered
from web_files import web_server

pytestmark = pytest.mark.timeout(60)

NAMES = ["shard-000.tar", "shard-001.tar", "shard-002.tar"]


@pytest.fixture
def shards(tmp_path: Path) -> Path:
    folder = tmp_path / "shards"
    folder.mkdir()
    for number, name in enumerate(NAMES):
        samples = [{"png": gray(20 * number + each, "PNG"), "cls": str(each % 2)} for each in range(6)]
        write_foreign(folder / name, samples)
    return folder


def index_at(url: str, folder: Path) -> tuple[Index, Storage]:
    place = Storage.open(str(folder))
    return index_shards(ShardSource.parse(url), to=place), place


def first_pixels(url: Path) -> list[int]:
    dataset = Dataset.open(DataConfig(url=str(url)), (1, 16, 16))
    return [int(image[0, 0, 0]) for _, image in dataset.images(np.arange(len(dataset.index)))]


PIXELS = [20 * number + each for number in range(3) for each in range(6)]


def test_shards_of_a_web_server_are_read_from_there(shards: Path, tmp_path: Path) -> None:
    beside = index_shards(Storage.open(str(shards)))
    with web_server(shards) as (url, asked):
        made, place = index_at(f"{url}/shard-{{000..002}}.tar", tmp_path / "index")
        assert sorted(path.name for path in (tmp_path / "index").iterdir()) == [INDEX_NAME, TABLE_NAME]
        assert [shard.name for shard in made.header.shards] == NAMES
        assert all(shard.etag for shard in made.header.shards)
        assert made.hash == beside.hash, "the same data, wherever index and shards are"
        asked.clear()
        loaded = open_index(place)
        assert loaded.header == made.header
        assert sorted(asked) == [f"HEAD /{name}" for name in NAMES], "only asked for size and ETag"
        assert first_pixels(tmp_path / "index") == PIXELS
        assert verify(place) == []
        moved = tmp_path / "elsewhere"
        shutil.move(tmp_path / "index", moved)
        assert first_pixels(moved) == PIXELS, "the index can be moved"


@pytest.mark.usefixtures("one_thread")
def test_a_run_is_the_same_wherever_its_shards_are(tmp_path: Path) -> None:
    packed = pack_numbered(tmp_path / "data", 120)
    with web_server(tmp_path / "data") as (url, _):
        last = packed.header.shards[-1].name[-9:-4]
        made, _ = index_at(f"{url}/shard-{{00000..{last}}}.tar", tmp_path / "index")
        assert made.labels.tolist() == packed.labels.tolist()
        run(tiny_config("quickstart", str(tmp_path / "index"), 2), str(tmp_path), "elsewhere")
    shutil.rmtree(tmp_path / "index")
    run(tiny_config("quickstart", str(tmp_path / "data"), 2), str(tmp_path), "beside")
    one, other = newest(str(tmp_path), "elsewhere"), newest(str(tmp_path), "beside")
    assert_same_bits(one, other)


def test_shards_of_a_bucket_are_checked_by_their_etags(shards: Path, tmp_path: Path, bucket: str) -> None:
    remote = Storage.open(f"{bucket}/public")
    for name in NAMES:
        remote.upload(shards / name, name)
    made, place = index_at(remote.url, tmp_path / "index")
    assert made.header.source == remote.url
    assert first_pixels(tmp_path / "index") == PIXELS
    assert open_index(place).hash == made.hash
    write_foreign(shards / NAMES[1], [{"png": gray(99, "PNG"), "cls": "1"} for _ in range(6)])
    assert (shards / NAMES[1]).stat().st_size == made.header.shards[1].bytes
    remote.upload(shards / NAMES[1], NAMES[1])
    with pytest.raises(
        UserError, match=rf"^{remote.url}/shard-001\.tar: its ETag is .* index them again, .*: `distgan"
    ):
        open_index(place)
    assert any("shard-001.tar: its 30720 bytes are not" in fault for fault in verify(place))


CHANGES: dict[str, tuple[Callable[[Path], object], str]] = {
    "longer": (lambda shard: shard.write_bytes(shard.read_bytes() + bytes(10_240)), "it has .* bytes, and had 30,720"),
    "gone": (lambda shard: shard.unlink(), "not found"),
}


@pytest.mark.parametrize("name", CHANGES)
def test_a_changed_shard_is_named(shards: Path, tmp_path: Path, name: str) -> None:
    change, message = CHANGES[name]
    _, place = index_at(str(shards), tmp_path / "index")
    change(shards / NAMES[2])
    again = rf"index them again, .*: `distgan data index {shards} --index {place.url}`$"
    with pytest.raises(UserError, match=rf"^{shards}/shard-002\.tar: .*{message}.*; if .*{again}"):
        open_index(place)
    assert any("shard-002.tar" in fault for fault in verify(place))


def test_verify_tells_of_a_new_etag_with_the_same_bytes(shards: Path, tmp_path: Path) -> None:
    with web_server(shards) as (url, _):
        made, place = index_at(f"{url}/{NAMES[0]}", tmp_path / "index")
        content = json.loads((tmp_path / "index" / INDEX_NAME).read_text())
        content["shards"][0]["etag"] = '"another"'
        (tmp_path / "index" / INDEX_NAME).write_text(json.dumps(content))
        (fault,) = verify(place)
        assert re.match(r"shard-000\.tar: its ETag is .*, but its bytes are the same; index .*: `distgan data", fault)
        assert Index.load(place).hash == made.hash, "no part of the data"


def test_moved_shards_are_named_with_the_way_out(shards: Path, tmp_path: Path) -> None:
    made, place = index_at(str(shards), tmp_path / "index")
    shutil.move(shards, tmp_path / "moved")
    with pytest.raises(
        NotFoundError, match=r"/shards/shard-000\.tar: not found.*index them again, .*: `distgan data index"
    ):
        open_index(place)
    again, _ = index_at(str(tmp_path / "moved"), tmp_path / "index")
    assert again.hash == made.hash, "runs go on"
    assert first_pixels(tmp_path / "index") == PIXELS


def test_a_damaged_block_is_named_with_the_place_of_its_shard(shards: Path, tmp_path: Path) -> None:
    _, place = index_at(str(shards), tmp_path / "index")
    data = (shards / NAMES[0]).read_bytes()
    (shards / NAMES[0]).write_bytes(data.replace(b"IHDR", b"JHDR"))
    index = open_index(place)
    with pytest.raises(UserError, match=rf"^{shards}/shard-000\.tar: bytes .*`distgan data verify {place.url}`"):
        BlockReader(place, index).read(index.blocks[:1])


@pytest.mark.parametrize(
    ("url", "names"),
    [
        ("data/a.tar", ["a.tar"]),
        ("data/a-{08..11}.tar", ["a-08.tar", "a-09.tar", "a-10.tar", "a-11.tar"]),
        ("s3://bucket/x-{0..1}-of-2.tar", ["x-0-of-2.tar", "x-1-of-2.tar"]),
    ],
)
def test_a_pattern_names_shards(url: str, names: list[str]) -> None:
    assert ShardSource.parse(url).list() == names


@pytest.mark.parametrize(
    "url", ["a-{3..1}.tar", "a-{0..99999999}.tar", "a-{x..y}.tar", "{0..999}-{0..9999}.tar", "{a,{b,c}}.tar", "{0..1}"]
)
def test_an_impossible_pattern_is_refused(url: str) -> None:
    with pytest.raises(UserError, match=r"brace|give the smaller first|more than 1,000,000 shards"):
        ShardSource.parse(url)


def test_an_index_never_replaces_that_of_other_shards(shards: Path, tmp_path: Path) -> None:
    own = tmp_path / "own"
    own.mkdir()
    write_foreign(own / "a.tar", [{"png": gray(1, "PNG")}])
    index_shards(Storage.open(str(own)))
    before = (own / INDEX_NAME).read_bytes()
    with pytest.raises(UserError, match=rf"^--index {own}: holds a data set with its own shards; give another folder$"):
        index_at(str(shards), own)
    assert (own / INDEX_NAME).read_bytes() == before


def test_half_an_index_is_replaced(shards: Path, tmp_path: Path) -> None:
    made, place = index_at(str(shards), tmp_path / "index")
    for name in (TABLE_NAME, INDEX_NAME):
        place.write_bytes(name, b"half")
        with pytest.raises(UserError, match="make"):
            Index.load(place)
        index_at(str(shards), tmp_path / "index")
        assert Index.load(place).hash == made.hash


@pytest.mark.parametrize("source", ["pipe://x", "s3://key:secret@bucket", "a::b", ""])
def test_a_source_that_is_no_folder_is_damage(shards: Path, tmp_path: Path, source: str) -> None:
    _, place = index_at(str(shards), tmp_path / "index")
    content = json.loads((tmp_path / "index" / INDEX_NAME).read_text())
    (tmp_path / "index" / INDEX_NAME).write_text(json.dumps(content | {"source": source}))
    with pytest.raises(UserError, match=r"index\.json: damaged: source: "):
        Index.load(place)


def test_the_commands_take_the_folder_of_the_index(shards: Path, tmp_path: Path, cli: Cli) -> None:
    with web_server(shards) as (url, _):
        refused = cli("data", "index", f"{url}/shard-{{000..002}}.tar")
        assert f"{url}: a web server takes no files; keep the index elsewhere, with --index FOLDER" in one_line(refused)
        unlisted = cli("data", "index", url, "--index", "index")
        assert "name them: URL/shard-{000..009}.tar" in one_line(unlisted)
        pattern = f"{url}/shard-{{000..002}}.tar"
        made = cli("data", "index", pattern, "--index", "index", "--classes", "cat,dog")
        assert made.code == 0, made
        assert f"shards at {pattern}\n" in made.out
        shown = cli("data", "info", "index")
        assert "\n      1  dog            9\n" in shown.out
        assert cli("data", "verify", "index").code == 0
        moments = ["--no-ray", "--extractor", "own_extractors:Moments"]
        stats = cli("data", "stats", "index", *moments)
        assert stats.code == 0, stats
        assert f"stored at {Storage.open('index').url}/" in stats.out, "beside the index"
        (shards / NAMES[0]).write_bytes(b"")
        for command in (["data", "info", "index"], ["data", "stats", "index", *moments]):
            assert f"{url}/shard-000.tar: it has 0 bytes, and had 30,720" in one_line(cli(*command))
