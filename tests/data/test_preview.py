"""The choice of images to look at."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from distgan.config.schema import DataConfig
from distgan.data.dataset import Dataset
from distgan.data.index import Index
from distgan.data.preview import choose_samples, read_samples
from distgan.storage.storage import Storage
from packing import gray, write_foreign
from toy_data import made_up_index

pytestmark = pytest.mark.timeout(30)


def blocks_of(index: Index, samples: np.ndarray) -> set[int]:
    return {block.number for block in index.blocks for each in samples if block.first <= each < block.stop}


def test_samples_have_their_label_and_come_from_few_blocks_but_not_from_one() -> None:
    index = made_up_index([[8 * 1024] * 6400], labels=[number % 10 for number in range(6400)])
    assert len(index.blocks) > 90
    chosen = {label: choose_samples(index, label, 10, 3) for label in range(10)}
    for label, samples in chosen.items():
        assert len(set(samples.tolist())) == 10
        assert (index.labels[samples] == label).all()
    used = blocks_of(index, np.concatenate(list(chosen.values())))
    assert 5 <= len(used) <= 16, "all labels use the same blocks"
    assert choose_samples(index, 4, 10, 3).tolist() == chosen[4].tolist()
    assert choose_samples(index, 4, 10, 4).tolist() != chosen[4].tolist()
    assert len(blocks_of(index, choose_samples(index, None, 64, 0))) == 8


def test_fewer_samples_than_asked_for_are_all_taken() -> None:
    index = made_up_index([[512] * 9], labels=[0, 0, 1, -1, 2, 2, 2, -1, 0])
    assert sorted(choose_samples(index, 2, 10, 0)) == [4, 5, 6]
    assert sorted(choose_samples(index, -1, 10, 0)) == [3, 7]
    assert sorted(choose_samples(index, None, 10, 0)) == list(range(9))
    assert choose_samples(index, 7, 10, 0).tolist() == []


def test_images_are_in_their_places_and_bad_ones_are_white(tmp_path: Path) -> None:
    from distgan.data.shard_index import index_shards

    bad = gray(1, "PNG")[:-30]
    write_foreign(tmp_path / "a.tar", [{"png": gray(10 * each, "PNG") if each != 2 else bad} for each in range(5)])
    index_shards(Storage.open(str(tmp_path)))
    dataset = Dataset.open(DataConfig(url=str(tmp_path)), (1, 16, 16))
    images, count = read_samples(dataset, [np.array([4, 1]), np.array([2, 0])], 3)
    assert images[:, :, 0, 5, 5].tolist() == [[40, 10, 255], [255, 0, 255]]
    assert count == 1
