"""A pack that ends before it is done, however: the same call continues it, to the bytes of an undisturbed one."""

from __future__ import annotations

import io
import os
import signal
import subprocess
import sys
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from benchmarks.chaos.proxy import Proxy
from distgan.data.encode import EncodedImage, PackOptions, encode
from distgan.data.index import Index
from distgan.data.pack import pack
from distgan.data.shard_index import index_shards
from distgan.data.shard_writer import RECORD_NAME, write_shards
from distgan.data.sources.base import Source
from distgan.data.sources.idx import IdxSource
from distgan.data.sources.image_files import FileSource
from distgan.data.verify import verify
from distgan.errors import UserError
from distgan.storage.storage import Storage, UnavailableError
from toy_data import NumberedSource

pytestmark = pytest.mark.timeout(60)

SAMPLES = 150
BAD = {40, 41, 99}
OPTIONS = PackOptions(16, 1, shard_bytes=20_000, processes=1, bad="skip")


@dataclass(frozen=True)
class Photos(NumberedSource):
    """A source with some bad images, which notes what is read of it."""

    count: int = SAMPLES
    bad: frozenset[int] = frozenset(BAD)
    word: str = "photo"
    darker: bool = False
    wide: bool = False
    read: list[int] = field(default_factory=list)

    def __getitem__(self, number: int) -> tuple[NDArray[np.uint8], int]:
        self.read.append(number)
        if number in self.bad:
            raise UserError(f"photo-{number}.png: not a readable image")
        pixels, label = super().__getitem__(number)
        pixels = np.repeat(pixels, 2, axis=1) if self.wide else pixels
        return pixels // 2 if self.darker else pixels, label

    def name(self, number: int) -> str:
        return f"/{uuid.uuid4().hex}/{self.word}-{number}.png"  # the folder may have another name each time


def files(storage: Storage) -> dict[str, bytes]:
    return {name: storage.read_bytes(name) for name in storage.list()}


def interrupted(storage: Storage, at: int, source: Source = Photos()) -> None:
    """A pack that Ctrl-C ends after so many samples."""

    def stop(done: int) -> None:
        if done == at:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        pack(source, storage, OPTIONS, stop)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """The files of an undisturbed pack."""
    storage = Storage.open(str(tmp_path_factory.mktemp("whole")))
    pack(Photos(), storage, OPTIONS)
    found = files(storage)
    assert len(found) > 8
    return found


@pytest.mark.parametrize(("kind", "processes"), [("disk", 1), ("disk", 2), ("memory", 1), ("s3", 1)])
def test_an_interrupted_pack_is_continued(
    kind: str,
    processes: int,
    whole: dict[str, bytes],
    tmp_path: Path,
    request: pytest.FixtureRequest,
    caplog: pytest.LogCaptureFixture,
) -> None:
    url = {"disk": f"{tmp_path}/new", "memory": f"memory://{uuid.uuid4().hex}"}.get(kind)
    place = Storage.open(url or f"{request.getfixturevalue('bucket')}/photos")
    interrupted(place, 60)
    assert RECORD_NAME in place.list()
    interrupted(place, 100)
    there = [name for name in place.list() if name.endswith(".tar")]
    assert len(there) > 2
    source, progress = Photos(), list[int]()
    index = pack(source, place, replace(OPTIONS, processes=processes), progress.append)
    assert files(place) == whole
    assert verify(place) == []
    assert index.header.left_out == {"bad": len(BAD)}
    assert progress == sorted(progress)
    assert progress[-1] == SAMPLES
    if processes == 1:  # of each finished shard one image is read, to see that the source is the same
        assert len(source.read) == len(there) + SAMPLES - progress[len(there) - 1]
    assert f"{place.url}: continuing an unfinished pack: {len(there)} shards with " in caplog.text


def test_what_is_counted_includes_the_finished_shards(tmp_path: Path) -> None:
    stretched: list[int] = []
    place = Storage.open(str(tmp_path))
    interrupted(place, 100, Photos(wide=True))
    pack(Photos(wide=True), place, OPTIONS, on_stretched=stretched.append)
    assert sum(stretched) == SAMPLES - len(BAD)


@pytest.mark.parametrize(("shard", "stay"), [(1, False), (2, True)])
def test_a_signal_as_a_shard_is_recorded(
    shard: int, stay: bool, tmp_path: Path, whole: dict[str, bytes], caplog: pytest.LogCaptureFixture
) -> None:
    """The record is written when the exception comes."""
    place, write, records = Storage.open(str(tmp_path / "new")), Storage.write_bytes, list[str]()

    def interrupted_write(storage: Storage, name: str, data: bytes) -> None:
        write(storage, name, data)
        records.extend([name] if name == RECORD_NAME else [])
        if len(records) == shard:
            raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Storage, "write_bytes", interrupted_write)
        with pytest.raises(KeyboardInterrupt):
            pack(Photos(), place, OPTIONS)
    assert (tmp_path / "new").exists() == stay
    pack(Photos(), place, OPTIONS)
    assert "missing or damaged" not in caplog.text
    assert files(place) == whole


KILLED = """
import os, signal, sys
from distgan.data import pack_record
from distgan.data.index import Index
from distgan.data.pack import pack
from distgan.storage.storage import Storage
from test_unfinished_pack import OPTIONS, Photos

def kill(*_):
    os.kill(os.getpid(), signal.SIGKILL)

def kill_at_third(add):
    def killed(record, shard, storage):
        kill() if len(record.shards) == 2 else add(record, shard, storage)
    return killed

def kill_after(save):
    def killed(index, storage):
        save(index, storage)
        kill()
    return killed

moment = sys.argv[2]
if moment == "before a shard is recorded":
    pack_record.PackRecord.add = kill_at_third(pack_record.PackRecord.add)
if moment == "before the record is deleted":
    Index.save = kill_after(Index.save)
at = {"in a shard": 100, "before the first shard": 5}.get(moment)
pack(Photos(), Storage.open(sys.argv[1]), OPTIONS, lambda done: kill() if done == at else None)
"""


def killed(place: Storage, moment: str) -> None:
    path = os.pathsep.join(str(Path(__file__).parents[up] / to) for up, to in ((0, ""), (1, "helpers"), (2, "")))
    command = [sys.executable, "-c", KILLED, place.url, moment]
    environment = os.environ | {"PYTHONPATH": path}
    assert subprocess.run(command, env=environment, check=False, timeout=50).returncode == -signal.SIGKILL


@pytest.mark.parametrize(
    "moment",
    ["in a shard", "before a shard is recorded", pytest.param("before the first shard", marks=pytest.mark.slow)],
)
def test_a_killed_pack_is_continued(moment: str, tmp_path: Path, whole: dict[str, bytes]) -> None:
    place = Storage.open(str(tmp_path / "new"))
    killed(place, moment)
    if moment != "before the first shard":
        with pytest.raises(UserError, match="or give its command again, which continues what a killed one left"):
            index_shards(place)
    source = Photos()
    pack(source, place, OPTIONS)
    assert files(place) == whole
    assert (len(source.read) < SAMPLES) == (moment != "before the first shard")


def test_a_pack_that_was_killed_when_all_was_done_is_a_data_set(tmp_path: Path, whole: dict[str, bytes]) -> None:
    place = Storage.open(str(tmp_path / "new"))
    killed(place, "before the record is deleted")
    with pytest.raises(UserError, match="holds a data set already"):
        pack(Photos(), place, OPTIONS)
    assert files(place) == whole


def test_a_pack_whose_storage_goes_away_is_continued(proxy: Proxy, bucket: str, whole: dict[str, bytes]) -> None:
    place = Storage.open(f"{bucket}/photos")
    with pytest.raises(UnavailableError):
        pack(Photos(), place, OPTIONS, lambda done: proxy.switch("503") if done == 100 else None)
    proxy.switch("on")
    source = Photos()
    pack(source, place, OPTIONS)
    assert files(place) == whole
    assert len(source.read) < 100


def test_a_bad_image_does_not_cost_the_finished_shards(tmp_path: Path, whole: dict[str, bytes]) -> None:
    place = Storage.open(str(tmp_path / "new" / "deep"))
    with pytest.raises(UserError, match=r"photo-(40|41|99)\.png: not a readable image; --bad skip leaves such images"):
        pack(Photos(), place, replace(OPTIONS, bad="error"))
    source = Photos()
    pack(source, place, OPTIONS)
    assert files(place) == whole
    assert len(source.read) < SAMPLES


@pytest.mark.parametrize("damage", ["gone", "cut", "changed"])
def test_a_damaged_shard_is_made_again(damage: str, tmp_path: Path, whole: dict[str, bytes]) -> None:
    place = Storage.open(str(tmp_path / "new"))
    interrupted(place, 100)
    shard, data = tmp_path / "new" / "shard-00001.tar", whole["shard-00001.tar"]
    changed = data[:600] + bytes([data[600] ^ 1]) + data[601:]
    shard.unlink() if damage == "gone" else shard.write_bytes(data[:5000] if damage == "cut" else changed)
    pack(Photos(), place, OPTIONS)
    assert files(place) == whole


Refused = tuple[Source, dict[str, Any], str]


@pytest.mark.parametrize(
    ("source", "options", "message"),
    [
        (Photos(), {"image_size": 32}, "with --size 16, not 32; continue it with its own options, choose another "),
        (Photos(), {"seed": 1}, "with --seed 0, not 1"),
        (Photos(), {"crop": 8}, "with --crop none, not 8"),
        (Photos(), {"background": (0, 0, 0)}, "with --background #ffffff, not #000000"),
        (Photos(), {"shard_bytes": 2**20}, "with --shard-mb 0.0190734863281, not 1"),
        (Photos(), {"bad": "error"}, "that has left bad images out; continue it with --bad skip"),
        (Photos(word="picture"), {}, "of another source, or of other files"),
        (Photos(count=149), {}, "of another source, or of other files"),
        (NumberedSource(SAMPLES), {}, "of another source, or of other files"),
        (Photos(darker=True), {}, r"in which /.*/photo-\d+.png was another image or had another label, or was encoded"),
    ],
)
def test_another_pack_is_refused_and_nothing_is_lost(
    source: Source, options: dict[str, Any], message: str, tmp_path: Path, whole: dict[str, bytes]
) -> None:
    place = Storage.open(str(tmp_path))
    interrupted(place, 130)
    before = files(place)
    with pytest.raises(UserError, match=f"holds an unfinished pack {message}"):
        pack(source, place, replace(OPTIONS, **options))
    assert files(place) == before
    pack(Photos(), place, OPTIONS)
    assert files(place) == whole


@dataclass
class Files(FileSource):
    """Image files, of which one may have another label."""

    changed: int = -1
    classes: Sequence[str] = ("even", "odd")

    def __len__(self) -> int:
        return SAMPLES

    def name(self, number: int) -> str:
        return f"{number}.png"

    def file(self, number: int) -> bytes:
        buffer = io.BytesIO()
        Image.new("L", (16, 16), number).save(buffer, "png")
        return buffer.getvalue()

    def label(self, number: int) -> int:
        return (number + (number == self.changed)) % 2


def test_other_labels_are_another_source(tmp_path: Path) -> None:
    place = Storage.open(str(tmp_path))
    interrupted(place, 130, Files())
    for changed in range(0, SAMPLES, 50):
        with pytest.raises(UserError, match="of another source, or of other files or labels"):
            pack(Files(changed), place, OPTIONS)
    pack(Files(), place, OPTIONS)


def test_the_spelling_of_a_path_is_no_other_source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    header = b"\0\0\x08\x03" + b"".join(size.to_bytes(4, "big") for size in (SAMPLES, 8, 8))
    (tmp_path / "digits-images-idx3-ubyte").write_bytes(header + bytes(SAMPLES * 64))
    monkeypatch.chdir(tmp_path)
    place = Storage.open(str(tmp_path / "packed"))
    interrupted(place, 130, IdxSource("."))
    pack(IdxSource(f"{tmp_path}/"), place, OPTIONS)
    assert len(Index.load(place).labels) == SAMPLES


@pytest.mark.parametrize("name", [lambda _, number: number, lambda _, number: {}[number]])
def test_a_name_that_is_none_is_one_line(
    name: Callable[[Photos, int], Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Photos, "name", name)
    with pytest.raises(UserError, match=r":Photos: the name or label of an image: it raised (Key|Attribute)Error"):
        pack(Photos(), Storage.open(str(tmp_path)), OPTIONS)


def test_an_unfinished_pack_in_a_sub_folder_is_not_taken_for_whole(tmp_path: Path) -> None:
    interrupted(Storage.open(str(tmp_path / "train")), 100)
    with pytest.raises(UserError, match="train: a pack into it is unfinished"):
        index_shards(Storage.open(str(tmp_path)))


def write_samples(place: Storage) -> None:
    image = encode(NumberedSource(1), OPTIONS, 0)
    assert isinstance(image, EncodedImage)
    write_shards(place, iter([image]), OPTIONS, [])


@pytest.mark.parametrize(
    ("use", "message"),
    [
        (index_shards, "a pack into it is unfinished, so shards are missing; give its command again, which continues"),
        (write_samples, "holds an unfinished pack; choose another place or delete it"),
    ],
)
def test_an_unfinished_pack_is_no_data_set(use: Callable[[Storage], Any], message: str, tmp_path: Path) -> None:
    place = Storage.open(str(tmp_path))
    interrupted(place, 100)
    before = files(place)
    with pytest.raises(UserError, match=message):
        use(place)
    assert files(place) == before


@pytest.mark.parametrize(
    "record", [b"mine", b"{}", b'{"format": "distgan-pack-1", "options": {}, "source": "' + b"0" * 64 + b'", "x": 1}']
)
def test_a_file_that_is_no_record_stays(record: bytes, tmp_path: Path) -> None:
    (tmp_path / RECORD_NAME).write_bytes(record)
    with pytest.raises(UserError, match=f"{RECORD_NAME}: damaged, or not the record of an unfinished pack; choose"):
        pack(Photos(), Storage.open(str(tmp_path)), OPTIONS)
    assert (tmp_path / RECORD_NAME).read_bytes() == record


def test_other_shards_beside_an_unfinished_pack_stay(tmp_path: Path) -> None:
    place = Storage.open(str(tmp_path))
    interrupted(place, 100)
    (tmp_path / "a.tar").write_text("mine")
    with pytest.raises(UserError, match=r"holds shards that are not of this data set: a\.tar; choose another place"):
        pack(Photos(), place, OPTIONS)
    assert (tmp_path / "a.tar").read_text() == "mine"
