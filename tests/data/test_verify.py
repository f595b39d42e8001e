"""The check of a data set against its index."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from distgan.data.images import encode_image
from distgan.data.index import INDEX_NAME
from distgan.data.shard_index import index_shards
from distgan.data.verify import verify
from distgan.storage.storage import Storage
from packing import write_foreign
from toy_data import pack_numbered

pytestmark = pytest.mark.timeout(60)


def test_verify_finds_every_fault(tmp_path: Path) -> None:
    storage = Storage.open(str(tmp_path))
    index = pack_numbered(tmp_path, 200, shard_kb=32)
    progress: list[int] = []
    assert verify(storage, progress.append) == []
    assert progress[-1] == 200
    names = [shard.name for shard in index.header.shards]
    assert len(names) >= 5

    def spoil(name: str, place: int) -> None:
        data = bytearray((tmp_path / name).read_bytes())
        data[place] ^= 0x40
        (tmp_path / name).write_bytes(data)

    spoil(names[0], int(index.offsets[3]) + 100)  # in an image
    spoil(names[1], 10)  # in a tar header
    (tmp_path / names[2]).write_bytes((tmp_path / names[2]).read_bytes()[:5000])
    (tmp_path / names[3]).write_bytes(b"")
    (tmp_path / names[4]).unlink()
    faults = verify(storage)
    by_shard = {name: [fault for fault in faults if name in fault] for name in names}
    assert len(by_shard[names[0]]) == 2
    assert "SHA-256 differs" in by_shard[names[0]][0]
    assert "block 0 (samples 0 to" in by_shard[names[0]][1]
    assert len(by_shard[names[1]]) == 1
    assert "its 5000 bytes are not the" in by_shard[names[2]][0]
    assert "its 0 bytes are not the" in by_shard[names[3]][0]
    assert "not found" in by_shard[names[4]][0]
    assert not any(by_shard[name] for name in names[5:])


def test_verify_finds_images_and_labels_that_cannot_be_used(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (16, 16, 3), np.uint8)
    whole = encode_image(noise, "png")
    write_foreign(tmp_path / "a.tar", [{"png": whole, "cls": 3}, {"png": whole[: len(whole) // 2], "cls": 1}])
    storage = Storage.open(str(tmp_path))
    index_shards(storage)  # a half image has a whole header
    header = json.loads((tmp_path / INDEX_NAME).read_text())
    header["classes"] = ["a", "b"]
    (tmp_path / INDEX_NAME).write_text(json.dumps(header))
    faults = verify(storage)
    assert len(faults) == 2
    assert "a.tar: sample 0: label 3 of 2 classes" in faults
    assert any("a.tar: sample 1 at byte" in fault and "not a whole PNG" in fault for fault in faults)
