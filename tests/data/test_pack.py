"""Packing a source into shards."""

from __future__ import annotations

import itertools
import os
import select
import signal
import subprocess
import sys
import tarfile
import time
from pathlib import Path

import numpy as np
import pytest
import webdataset as wds
from numpy.typing import NDArray

from distgan.data.bricks.render import BrickSource
from distgan.data.images import Encoding
from distgan.data.index import Index
from distgan.data.pack import PackOptions, pack
from distgan.data.shard_index import index_shards
from distgan.data.verify import verify
from distgan.errors import UserError
from distgan.storage.claim import CLAIM_NAME, Claim
from distgan.storage.storage import Storage
from packing import contents, number_of, pack_here, pixels_of
from toy_data import NumberedSource

pytestmark = pytest.mark.timeout(60)


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
    progress: list[int] = []
    options = PackOptions(16, 1, shard_bytes=50_000, processes=1)
    index = pack(source, Storage.open(str(tmp_path)), options, progress.append)
    images = pixels_of(tmp_path, index)
    numbers = [number_of(image) for image in images]
    assert sorted(numbers) == list(range(150))
    assert sum(later > earlier for earlier, later in itertools.pairwise(numbers)) < 100, "shuffled"
    for number, image, label in zip(numbers, images, index.labels, strict=True):
        pixels, expected = source[number]
        assert np.array_equal(image, pixels.transpose(2, 0, 1))
        assert label == expected
    assert index.header.classes == ["kind 0", "kind 1", "kind 2"]
    assert progress == list(range(1, 151))
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


PARENT = """
import sys
from distgan.data.encode import PackOptions, encoded_samples
from toy_data import NumberedSource
if __name__ == "__main__":
    samples = encoded_samples(NumberedSource(400), PackOptions(16, 1, processes=2), range(400))
    next(samples)
    print("begun", flush=True)
    sys.stdin.read()
"""


def test_no_process_outlives_a_killed_pack(tmp_path: Path) -> None:
    (tmp_path / "parent.py").write_text(PARENT)
    path = os.pathsep.join([str(Path(__file__).parents[1] / "helpers"), str(Path(__file__).parents[2])])
    parent = subprocess.Popen(
        [sys.executable, str(tmp_path / "parent.py")],
        env=os.environ | {"PYTHONPATH": path},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert parent.stdout is not None
    try:
        assert parent.stdout.readline() == b"begun\n"
        children = Path(f"/proc/{parent.pid}/task/{parent.pid}/children").read_text().split()
        ends = [os.pidfd_open(int(child)) for child in children]
    finally:
        parent.kill()
        parent.wait()
    assert len(ends) >= 2
    left, until = [], time.monotonic() + 20
    for end in ends:
        if not select.select([end], [], [], max(0, until - time.monotonic()))[0]:
            left.append(end)
            signal.pidfd_send_signal(end, signal.SIGKILL)
    assert not left, "processes that are still there 20 s later"


WITHOUT_RAY = """
import sys
from distgan.cli.main import app
app(["data", "pack", sys.argv[1], "--format", "npz", "--out", sys.argv[2], "--size", "16"], standalone_mode=False)
assert "ray" not in sys.modules
"""


def test_a_pack_on_this_machine_imports_no_ray(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", images=np.zeros((4, 16, 16, 3), np.uint8))
    command = [sys.executable, "-c", WITHOUT_RAY, str(tmp_path / "a.npz"), str(tmp_path / "new")]
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])}
    environment.pop("RAY_ADDRESS", None)
    subprocess.run(command, check=True, timeout=50, env=environment)
    assert len(Index.load(Storage.open(str(tmp_path / "new")))) == 4


class BrokenSource(NumberedSource):
    """A source with some images that cannot be read."""

    bad = frozenset({40, 41, 99})

    def __getitem__(self, number: int) -> tuple[NDArray[np.uint8], int]:
        if number in self.bad:
            raise UserError(f"photo-{number}.png: not a readable image")
        return super().__getitem__(number)


@pytest.mark.parametrize("processes", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_without_a_finished_shard_nothing_stays(tmp_path: Path, processes: int) -> None:
    deep = tmp_path / "new" / "deep"
    message = r"photo-(40|41|99)\.png: not a readable image; --bad skip leaves such images out$"
    with pytest.raises(UserError, match=message):
        pack_here(BrokenSource(150), deep, processes=processes)
    assert list(tmp_path.iterdir()) == []


def test_what_was_there_before_stays(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(UserError, match="not a readable image"):
        pack_here(BrokenSource(150), tmp_path)
    assert contents(tmp_path) == {"notes.txt": b"mine"}


def test_other_shards_in_the_folder_are_an_error(tmp_path: Path) -> None:
    for name in ("a.tar", "b.tar", "c.tar", "shard-00000.tar"):
        (tmp_path / name).write_text("mine")
    before = contents(tmp_path)
    message = r"holds shards that are not of this data set: a\.tar, b\.tar, c\.tar and 1 more; choose another place"
    with pytest.raises(UserError, match=message):
        pack_here(NumberedSource(20), tmp_path)
    assert contents(tmp_path) == before


def test_a_second_pack_into_one_place_leaves_the_first_alone(tmp_path: Path) -> None:
    place = Storage.open(str(tmp_path / "new"))
    refused: list[str] = []

    def pack_beside(done: int) -> None:
        if done == 100:
            with pytest.raises(UserError) as caught:
                pack_here(NumberedSource(150), tmp_path / "new", shard_bytes=10_000)
            refused.append(str(caught.value))
            with pytest.raises(UserError, match=f"process {os.getpid()} on .* is packing there, or was killed"):
                index_shards(place)

    index = pack(NumberedSource(150), place, PackOptions(16, 1, shard_bytes=10_000, processes=1), pack_beside)
    assert len(refused) == 1
    assert f"process {os.getpid()} on " in refused[0]
    assert " packs there; choose another place" in refused[0]
    assert verify(place) == []
    assert place.list() == sorted(["index.json", "index.table", *(shard.name for shard in index.header.shards)])


def test_an_interrupted_pack_leaves_what_another_has_taken_over(tmp_path: Path) -> None:
    place = Storage.open(str(tmp_path / "new"))

    def stop(done: int) -> None:
        if done == 100:
            claim = Claim.new("packs")
            place.write_bytes(CLAIM_NAME, claim.model_dump_json().encode())
            place.write_bytes("shard-00000.tar", b"theirs")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        pack(NumberedSource(150), place, PackOptions(16, 1, shard_bytes=10_000, processes=1), stop)
    assert place.read_bytes("shard-00000.tar") == b"theirs"
    assert CLAIM_NAME in place.list()


def test_a_failed_pack_leaves_nothing_in_a_bucket(bucket: str) -> None:
    storage = Storage.open(f"{bucket}/photos")
    with pytest.raises(UserError, match="not a readable image"):
        pack(BrokenSource(150), storage, PackOptions(16, 1, processes=1))
    assert storage.list() == []


@pytest.mark.parametrize("processes", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_bad_images_are_left_out(tmp_path: Path, processes: int) -> None:
    progress: list[int] = []
    skipped: list[str] = []
    options = PackOptions(16, 1, shard_bytes=10_000, processes=processes, bad="skip")
    index = pack(BrokenSource(150), Storage.open(str(tmp_path)), options, progress.append, skipped.append)
    assert sorted(skipped) == [f"photo-{number}.png: not a readable image" for number in sorted(BrokenSource.bad)]
    assert progress == list(range(1, 151))
    numbers = [number_of(image) for image in pixels_of(tmp_path, index)]
    assert sorted(numbers) == sorted(set(range(150)) - BrokenSource.bad)
    assert index.labels.tolist() == [number % 3 for number in numbers]
    with tarfile.open(tmp_path / "shard-00001.tar") as archive:
        first = index.header.shards[0].samples
        assert archive.getnames()[0] == f"{first:08d}.cls", "keys count what is there"
    assert verify(Storage.open(str(tmp_path))) == []


def test_only_bad_images_are_an_error(tmp_path: Path) -> None:
    source = BrokenSource(1)
    source.__dict__["bad"] = frozenset({0})
    with pytest.raises(UserError, match="nothing to pack: none of the 1 images can be used"):
        pack_here(source, tmp_path / "new", bad="skip")
    assert list(tmp_path.iterdir()) == []


def test_bad_skip_does_not_change_good_images(tmp_path: Path) -> None:
    for bad in ("error", "skip"):
        pack_here(NumberedSource(20), tmp_path / bad, bad=bad)
    assert contents(tmp_path / "error") == contents(tmp_path / "skip")
