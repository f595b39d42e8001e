"""What `python -m benchmarks.order` measures, and the order of a small and a huge data set."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from benchmarks.order import measure, measure_shuffle, sorted_index
from distgan.data.index import Index
from distgan.data.order import Order
from distgan.storage.storage import Storage

pytestmark = pytest.mark.timeout(60)


def test_a_full_shuffle_measures_as_one_and_more_streams_mix_better() -> None:
    index = sorted_index(40_000, 40, 10)
    shuffle, few, many = measure_shuffle(index), measure(index, 16, 8), measure(index, 64, 8)
    assert (shuffle.group, shuffle.batch) == pytest.approx((1, 1), abs=0.05)
    assert shuffle.distance == pytest.approx(1 - 0.5**0.5, abs=0.02)
    assert few.distance < many.distance
    assert few.together > many.together
    assert few.group > 1 > many.group
    assert many.batch < few.batch < 1


@pytest.mark.parametrize(("samples", "shards", "streams"), [(1_000, 1, 16), (10_000_000, 1_000, 4_000)])
def test_the_order_of_small_and_huge_data_sets(tmp_path: Path, samples: int, shards: int, streams: int) -> None:
    made = sorted_index(samples, shards, 10)
    made.save(Storage.open(str(tmp_path)))
    index = Index.load(Storage.open(str(tmp_path)))
    assert index.hash == made.hash
    assert index.blocks[-1].stop == samples
    order = Order(index, 0, streams, 8)
    for stream in (order.streams[0], order.streams[-1]):
        assert sorted(stream.samples(0, len(stream)).tolist()) == list(range(stream.first, stream.stop))
    batch, size = 10**7, 2 * streams
    found = order.group_samples(batch, 0, 1, size)
    assert len(np.unique(found)) == size
    assert np.array_equal(found, Order(index, 0, streams, 8).group_samples(batch, 0, 1, size))
