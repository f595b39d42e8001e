"""The order of samples: complete, the same for every number of workers, and addressable anywhere."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from distgan.data.index import BLOCK_BYTES, Index
from distgan.data.order import Order, Stream
from distgan.errors import UserError
from toy_data import made_up_index

pytestmark = pytest.mark.timeout(60)


def index_of(samples: int, samples_a_block: int, shards: int = 1) -> Index:
    """Samples in equal blocks (except each shard's last), split over shards."""
    length = BLOCK_BYTES // samples_a_block // 512 * 512 - 512  # a tar header lies before each
    edges = [samples * shard // shards for shard in range(shards + 1)]
    return made_up_index([[length] * (stop - start) for start, stop in itertools.pairwise(edges) if stop > start])


@settings(max_examples=80, deadline=None)
@given(
    samples=st.integers(1, 300),
    samples_a_block=st.integers(1, 40),
    shards=st.integers(1, 3),
    streams=st.integers(1, 8),
    window=st.integers(1, 5),
    chunk=st.integers(1, 70),
)
def test_each_epoch_of_a_stream_has_each_of_its_samples_once(
    samples: int, samples_a_block: int, shards: int, streams: int, window: int, chunk: int
) -> None:
    index = index_of(samples, samples_a_block, shards)
    if samples < streams:
        with pytest.raises(UserError, match=f"streams={streams} is more than the data set's {samples} samples"):
            Order(index, 0, streams, window)
        return
    order = Order(index, 0, streams, window)
    assert [stream.first for stream in order.streams[1:]] == [stream.stop for stream in order.streams[:-1]]
    assert (order.streams[0].first, order.streams[-1].stop) == (0, samples)
    for stream in order.streams:
        own = list(range(stream.first, stream.stop))
        epochs = 3
        sequence = np.concatenate([stream.samples(start, chunk) for start in range(0, epochs * len(stream), chunk)])[
            : epochs * len(stream)
        ]
        for epoch in range(epochs):
            assert sorted(sequence[epoch * len(stream) : (epoch + 1) * len(stream)].tolist()) == own
        assert np.array_equal(sequence, stream.samples(0, epochs * len(stream)))


@pytest.mark.parametrize("workers", [1, 2, 3, 4])
def test_any_number_of_workers_reads_the_same_batches(workers: int) -> None:
    index, groups, streams, batch_size = index_of(200, 7, 3), 4, 8, 32
    whole = Order(index, 5, streams, 2)
    for batch in (0, 1, 6, 7, 123):
        single = [whole.group_samples(batch, group, groups, batch_size) for group in range(groups)]
        split = []
        for rank in range(workers):
            own = Order(index, 5, streams, 2)
            shares = range(groups * rank // workers, groups * (rank + 1) // workers)
            split += [own.group_samples(batch, group, groups, batch_size) for group in shares]
        assert all(len(group) == batch_size // groups for group in single)
        assert np.array_equal(single, split)


@pytest.mark.parametrize("groups", [1, 2, 4, 8])
def test_the_groups_share_out_the_streams(groups: int) -> None:
    order = Order(index_of(200, 7), 0, 8, 2)
    shares = [list(order.group_streams(group, groups)) for group in range(groups)]
    assert shares == [list(range(group, 8, groups)) for group in range(groups)]
    batch = np.concatenate([order.group_samples(3, group, groups, 32) for group in range(groups)])
    whole = order.group_samples(3, 0, 1, 32)
    assert sorted(batch.tolist()) == sorted(whole.tolist()), "the batch does not depend on the groups"


@pytest.mark.parametrize(("streams", "share_of_a_shuffle"), [(16, 0.55), (32, 0.95), (64, 1.0)])
def test_a_group_has_many_classes_of_data_sorted_by_class(streams: int, share_of_a_shuffle: float) -> None:
    """Compared with a full shuffle. A group of adjacent streams would have 3 of 10 classes."""
    samples, groups, batch_size = 5000, 4, 128
    labels = np.arange(samples) * 10 // samples
    order = Order(index_of(samples, 40, 10), 0, streams, 8)

    def classes(numbers: NDArray[np.int64]) -> int:
        return len(np.unique(labels[numbers]))

    places = [(batch, group) for batch in range(0, 40, 4) for group in range(groups)]
    found = np.mean([classes(order.group_samples(batch, group, groups, batch_size)) for batch, group in places])
    shuffle = np.random.default_rng(0)
    shuffled = np.mean([classes(shuffle.permutation(samples)[: batch_size // groups]) for _ in range(100)])
    assert shuffled == pytest.approx(9.6, abs=0.15)
    assert found >= share_of_a_shuffle * shuffled


def test_a_batch_does_not_need_those_before_it() -> None:
    index = index_of(150, 9, 2)
    running = Order(index, 1, 4, 3)
    batches = [running.group_samples(batch, 0, 1, 20) for batch in range(40)]
    for batch in (39, 0, 17, 18, 5):
        assert np.array_equal(Order(index, 1, 4, 3).group_samples(batch, 0, 1, 20), batches[batch])


def test_positions_far_ahead() -> None:
    index = index_of(100, 10)
    stream = Order(index, 0, 1, 2).streams[0]
    far = 10**12
    epoch, window, place = stream.locate(far)
    assert epoch == far // 100
    around = stream.samples(far - far % 100, 100)
    assert sorted(around.tolist()) == list(range(100))
    assert stream.window(epoch, window).samples[place] == stream.samples(far, 1)[0]


@pytest.mark.parametrize(("samples", "streams", "share"), [(4, 4, 8), (5, 4, 3), (16, 16, 8), (17, 2, 64), (1, 1, 5)])
def test_streams_shorter_than_their_share_of_a_batch(samples: int, streams: int, share: int) -> None:
    order = Order(index_of(samples, 40), 0, streams, 8)
    assert all(stream.windows_per_epoch == 1 for stream in order.streams)
    batch = order.group_samples(0, 0, 1, share * streams)
    assert len(batch) == share * streams
    for number, stream in enumerate(order.streams):
        own = batch[number * share : (number + 1) * share]
        counts = np.bincount(own - stream.first, minlength=len(stream))
        assert counts.max() - counts.min() <= 1, "whole epochs, then a part of one"


def test_seeds_streams_epochs_and_windows_have_orders_of_their_own() -> None:
    index = index_of(400, 25)
    first, other = Order(index, 0, 2, 4), Order(index, 1, 2, 4)
    stream = first.streams[0]
    epochs = [stream.samples(epoch * 200, 200) for epoch in range(3)]
    sequence = [*epochs, other.streams[0].samples(0, 200), first.streams[1].samples(0, 200) - 200]
    for one, two in itertools.combinations(sequence, 2):
        assert not np.array_equal(one, two)
        assert (one == two).mean() < 0.1
    assert np.array_equal(Order(index, 0, 2, 4).streams[0].samples(0, 200), epochs[0])


def test_a_window_mixes_its_blocks_and_no_others() -> None:
    index = index_of(400, 10)
    stream = Order(index, 0, 1, 4).streams[0]
    assert stream.windows_per_epoch == 10
    orders = []
    for number in range(10):
        window = stream.window(0, number)
        expected = sorted(sample for piece in window.slices for sample in range(piece.first, piece.stop))
        assert sorted(window.samples.tolist()) == expected
        assert len(window.slices) == 4
        assert window.start == number * 40
        orders.append(np.argsort(window.samples).tolist())
        blocks = window.samples // 10
        assert (np.diff(blocks) != 0).sum() > 20, "the blocks are mixed"
    assert len({tuple(order) for order in orders}) == 10


def test_blocks_across_the_border_of_two_streams_are_split() -> None:
    index = index_of(30, 20)  # blocks of 20 and 10 samples
    first, second = Stream(index, 0, 0, 2, 8), Stream(index, 0, 1, 2, 8)
    assert {(p.block, p.first, p.stop) for p in first.window(0, 0).slices} == {(0, 0, 15)}
    assert {(p.block, p.first, p.stop) for p in second.window(0, 0).slices} == {(0, 15, 20), (1, 20, 30)}


def test_the_order_is_pinned() -> None:
    """A changed order would change the data of resumed runs."""
    order = Order(index_of(64, 8), 7, 2, 2)
    assert order.group_samples(0, 0, 1, 16).tolist() == [19, 7, 0, 22, 1, 6, 20, 16, 36, 48, 35, 55, 39, 38, 52, 34]
    assert order.group_samples(9, 1, 2, 16).tolist() == [47, 50, 45, 54, 52, 55, 46, 44]
