"""The index: its content, its blocks, and every way in which it can be damaged."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from distgan.data.index import BLOCK_BYTES, INDEX_NAME, TABLE_NAME, Index
from distgan.errors import UserError
from distgan.storage.storage import Storage
from toy_data import made_up_index, pack_numbered

pytestmark = pytest.mark.timeout(60)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    pack_numbered(tmp_path / "data", 60, shard_kb=16)
    return tmp_path / "data"


def load(folder: Path) -> Index:
    return Index.load(Storage.open(str(folder)))


def test_a_saved_index_loads_equal(tmp_path: Path) -> None:
    made = made_up_index([[700, 5, 512, 513], [100_000] * 20, [1]], labels=[*range(-1, 24)])
    made.save(Storage.open(str(tmp_path)))
    loaded = load(tmp_path)
    assert loaded.header == made.header
    assert loaded.hash == made.hash
    assert len(loaded) == 25
    for name in ("offsets", "lengths", "labels", "checksums"):
        assert np.array_equal(getattr(loaded, name), getattr(made, name)), name
    assert loaded.blocks == made.blocks
    assert loaded.blocks[1].crc32 == 1


def test_offsets_beyond_4_gib_are_kept(tmp_path: Path) -> None:
    made = made_up_index([[2**31 - 1] * 5])
    made.save(Storage.open(str(tmp_path)))
    assert made.offsets[-1] > 2**32
    assert np.array_equal(load(tmp_path).offsets, made.offsets)


def test_the_hash_names_the_data() -> None:
    hashes = [
        made_up_index(shards, labels).hash
        for shards, labels in [([[5, 6]], None), ([[5, 7]], None), ([[5], [6]], None), ([[5, 6]], [0, 1])]
    ]
    assert len(set(hashes)) == 4
    assert made_up_index([[5, 6]]).hash == hashes[0]


IMAGE_BYTES = st.one_of(st.integers(1, 5000), st.integers(1, 3 * BLOCK_BYTES), st.just(BLOCK_BYTES))


@settings(max_examples=60, deadline=None)
@given(st.lists(st.lists(IMAGE_BYTES, min_size=1, max_size=40), min_size=1, max_size=4))
def test_blocks_partition_the_samples(shards: list[list[int]]) -> None:
    index = made_up_index(shards)
    blocks = index.blocks
    assert [block.number for block in blocks] == list(range(len(blocks)))
    assert [sample for block in blocks for sample in range(block.first, block.stop)] == list(range(len(index)))
    starts = np.cumsum([0, *map(len, shards)])
    for block in blocks:
        assert starts[block.shard] <= block.first < block.stop <= starts[block.shard + 1]
        assert block.start == index.offsets[block.first]
        assert block.end == index.offsets[block.stop - 1] + index.lengths[block.stop - 1]
        assert block.end - block.start <= BLOCK_BYTES or block.stop - block.first == 1
        following = block.stop
        if following < starts[block.shard + 1]:
            assert index.offsets[following] + index.lengths[following] - block.start > BLOCK_BYTES, "not filled"
    assert len(index.table_bytes()) <= 16 * len(index)


@pytest.mark.parametrize(
    ("length", "samples_a_block"), [(512, 512), (BLOCK_BYTES, 1), (BLOCK_BYTES + 1, 1), (2**20, 1)]
)
def test_a_table_takes_at_most_16_bytes_a_sample(length: int, samples_a_block: int) -> None:
    index = made_up_index([[length] * 1024])
    assert len(index.blocks) == 1024 // samples_a_block
    assert len(index.table_bytes()) == 12 * 1024 + 4 * len(index.blocks) <= 16 * 1024


def test_a_block_holds_exactly_its_bytes(folder: Path) -> None:
    index = load(folder)
    for block in index.blocks:
        shard = (folder / index.header.shards[block.shard].name).read_bytes()
        data = shard[block.start : block.end]
        assert block.holds(data)
        assert not block.holds(data[:-1])
        assert not block.holds(data + b"\0")
        assert not block.holds(data[:10] + bytes([data[10] ^ 1]) + data[11:])
        assert not block.holds(b"")


def edit(change: Callable[[dict[str, Any]], object]) -> Callable[[Path], None]:
    def apply(folder: Path) -> None:
        content = json.loads((folder / INDEX_NAME).read_text())
        change(content)
        (folder / INDEX_NAME).write_text(json.dumps(content))

    return apply


def write(name: str, content: bytes) -> Callable[[Path], None]:
    return lambda folder: (folder / name).write_bytes(content) and None


def cut_table(folder: Path) -> None:
    table = folder / TABLE_NAME
    table.write_bytes(table.read_bytes()[:-4])


def flip_table(folder: Path) -> None:
    table = bytearray((folder / TABLE_NAME).read_bytes())
    table[20] ^= 1
    (folder / TABLE_NAME).write_bytes(table)


def forge_table(content: Callable[[bytes], bytes]) -> Callable[[Path], None]:
    """A table with a correct SHA-256 and a wrong length."""

    def apply(folder: Path) -> None:
        import hashlib

        table = content((folder / TABLE_NAME).read_bytes())
        (folder / TABLE_NAME).write_bytes(table)
        edit(lambda header: header.update(table_sha256=hashlib.sha256(table).hexdigest()))(folder)

    return apply


DAMAGE: dict[str, tuple[Callable[[Path], None], str]] = {
    "no index": (
        lambda folder: (folder / INDEX_NAME).unlink(),
        r": not a data set but tar files; use `distgan data index",
    ),
    "empty": (write(INDEX_NAME, b""), r"index\.json: damaged, or not an index"),
    "binary": (write(INDEX_NAME, bytes(range(256))), "damaged, or not an index"),
    "half": (write(INDEX_NAME, b'{"format": "distgan-index-1", "shar'), "damaged, or not an index"),
    "a list": (write(INDEX_NAME, b"[]"), "damaged, or not an index"),
    "other software's": (write(INDEX_NAME, b'{"version": 2, "shards": []}'), "damaged, or not an index"),
    "another format": (edit(lambda header: header.update(format="distgan-index-9")), "damaged.*: format: "),
    "a key too many": (edit(lambda header: header.update(extra=1)), "damaged.*: extra: "),
    "a key missing": (edit(lambda header: header.pop("channels")), "damaged.*: channels: "),
    "two channels": (edit(lambda header: header.update(channels=2)), "damaged.*: channels: "),
    "no shards": (edit(lambda header: header.update(shards=[])), "damaged.*: shards: "),
    "a path as a name": (
        edit(lambda header: header["shards"][0].update(name="../x.tar")),
        r"damaged.*: shards\.0\.name",
    ),
    "a shard's count": (edit(lambda header: header["shards"][0].update(samples=9)), "samples do not add up to 60"),
    "the count": (edit(lambda header: header.update(samples=61)), "samples do not add up to 61"),
    "no table": (lambda folder: (folder / TABLE_NAME).unlink(), r"index\.table: not found"),
    "a short table": (cut_table, r"index\.table: does not belong to index\.json"),
    "a flipped bit": (flip_table, r"index\.table: does not belong to index\.json"),
    "a forged short table": (forge_table(lambda table: table[:100]), "damaged: its table has 100 bytes for 60 samples"),
    "a forged odd table": (forge_table(lambda table: table + b"\0"), "damaged: its table has"),
    "a forged long table": (forge_table(lambda table: table + b"\0" * 4), r"damaged: \d+ checksums for \d+ blocks"),
}


@pytest.mark.parametrize("name", DAMAGE)
def test_damage_is_named(folder: Path, name: str) -> None:
    damage, message = DAMAGE[name]
    damage(folder)
    with pytest.raises(UserError, match=message) as caught:
        load(folder)
    assert str(folder) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_folder_that_does_not_exist(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no index; name the folder that"):
        load(tmp_path / "gone")


def test_a_data_set_that_cannot_be_read_is_not_taken_for_something_else(tmp_path: Path) -> None:
    (tmp_path / INDEX_NAME).mkdir()
    with pytest.raises(UserError, match=r"index\.json: .*(directory|folder)"):
        Index.load(Storage.open(str(tmp_path)))
    (tmp_path / "above" / "set").mkdir(parents=True)
    (tmp_path / "above" / "set" / INDEX_NAME).write_bytes(b"")
    with pytest.raises(UserError, match=r"above: not a data set but a folder with a data set in it; give .*/set"):
        Index.load(Storage.open(str(tmp_path / "above")))
    (tmp_path / "weights").mkdir()
    (tmp_path / "weights" / "model.index.json").write_bytes(b"")
    with pytest.raises(UserError, match=r"weights/index\.json: no index"):
        Index.load(Storage.open(str(tmp_path / "weights")))


SORTED = [number // 25 for number in range(100)]


@pytest.mark.parametrize(
    ("labels", "is_sorted"),
    [
        (SORTED, True),
        ([label for _ in range(4) for label in SORTED[::4]], True),  # each of four shards by itself
        (SORTED[::-1], True),
        ([number % 4 for number in range(100)], False),
        (np.random.default_rng(0).permutation(SORTED).tolist(), False),
        (np.random.default_rng(0).permutation([0] * 80 + [1] * 20).tolist(), False),
        ([0] * 80 + [1] * 20, True),
        ([0] * 100, False),
        ([-1] * 100, False),
        ([0] * 8 + [1] * 8, False),  # too few to tell
    ],
)
def test_sorted_labels_are_detected(labels: list[int], is_sorted: bool) -> None:
    assert made_up_index([[100] * len(labels)], labels).is_sorted_by_label == is_sorted
