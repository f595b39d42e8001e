"""Samples with correct checksums that cannot be decoded: errors, or substituted alike by every worker."""

from __future__ import annotations

import json
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import webdataset as wds

from distgan.config.schema import Config, DataConfig
from distgan.data.blocks import BlockReader
from distgan.data.dataset import Dataset
from distgan.data.images import encode_image
from distgan.data.index import INDEX_NAME, Index
from distgan.data.order import Order
from distgan.data.shard_index import index_shards
from distgan.data.stream import Group
from distgan.distributed import Distributed
from distgan.errors import UserError
from distgan.evaluation.evaluator import Evaluator, build_evaluator
from distgan.evaluation.reference import real_images
from distgan.storage.storage import Storage
from distgan.training.events import StepMetrics
from distgan.training.run_spec import RunSpec
from distgan.training.train import train
from gloo import run_until_death, run_workers
from runs import ALONE, BATCH, Recorder, assert_same_bits, newest, run, tiny_config
from toy_data import NumberedSource, numbers_of, open_stream

pytestmark = pytest.mark.timeout(120)

SAMPLES = 1200
# The first and the last of the first block, two neighbors, the last of a stream, some alone, the last of all.
BAD = [0, 100, 101, 127, 299, 700, 1050, SAMPLES - 1]


def write_shards(folder: Path, bad: list[int], count: int = SAMPLES, size: int = 16) -> Storage:
    """Noise that spells its number, which is also its class; of the bad ones the second half is missing."""
    source = NumberedSource(count, size)
    with wds.ShardWriter(str(folder / "s-%02d.tar"), maxcount=900, verbose=0) as writer:
        for number in range(count):
            content = encode_image(source[number][0], "png")
            content = content[: len(content) // 2] if number in bad else content
            writer.write({"__key__": f"train/{number:05d}", "png": content, "cls": number})
    storage = Storage.open(str(folder))
    index_shards(storage)
    return storage


@pytest.fixture(scope="module")
def storage(tmp_path_factory: pytest.TempPathFactory) -> Storage:
    return write_shards(tmp_path_factory.mktemp("partly bad"), BAD)


def stand_in(index: Index, sample: int, bad: list[int] = BAD) -> int:
    """The first good one from `sample` on in its block, which begins again after its end."""
    (block,) = (block for block in index.blocks if block.first <= sample < block.stop)
    ring = [*range(sample, block.stop), *range(block.first, sample)]
    return next(each for each in ring if each not in bad)


def take(storage: Storage, count: int, **options: Any) -> list[list[Group]]:
    with closing(open_stream(storage, bad_samples="skip", batch_size=60, **options)) as stream:
        return [stream.next() for _ in range(count)]


# The stream.


@pytest.mark.parametrize("memory_bytes", [0, 300 * 256, 10**9])
def test_the_next_good_sample_of_the_block_takes_the_place(storage: Storage, memory_bytes: int) -> None:
    index = Index.load(storage)
    assert index.blocks[0].stop == 128
    assert index.blocks[2].first < 300 < index.blocks[2].stop
    assert [stand_in(index, sample) for sample in (0, 100, 101, 127, 299)] == [1, 102, 102, 1, 300]
    assert stand_in(index, SAMPLES - 1) == index.blocks[-1].first
    order = Order(index, 0, 4, 2)
    for batch, groups in enumerate(take(storage, 45, memory_bytes=memory_bytes)):  # 2.25 epochs
        for number, group in enumerate(groups):
            samples = order.group_samples(batch, number, 2, 60).tolist()
            wanted = [stand_in(index, sample) for sample in samples]
            assert numbers_of(group) == group.labels.tolist() == wanted
            assert group.bad_samples == (sum(sample in BAD for sample in samples) if batch < 20 else 0)


@pytest.mark.parametrize("workers", [2, 3])
def test_workers_and_resumes_pass_over_the_same(storage: Storage, workers: int) -> None:
    start = 7
    whole = take(storage, 21, groups=range(4), num_groups=4)[start:]
    parts: list[list[Group]] = [[] for _ in whole]
    for rank in range(workers):
        groups = range(4 * rank // workers, 4 * (rank + 1) // workers)
        for batch, own in zip(
            parts, take(storage, len(whole), groups=groups, num_groups=4, start_batch=start), strict=True
        ):
            batch += own
    for found, wanted in zip(parts, whole, strict=True):
        for one, other in zip(found, wanted, strict=True):
            assert torch.equal(one.images, other.images)
            assert torch.equal(one.labels, other.labels)
            assert one.bad_samples == other.bad_samples


def test_a_bad_sample_is_named(storage: Storage) -> None:
    index = Index.load(storage)
    dataset = Dataset(index, BlockReader(storage, index), (1, 16, 16), DataConfig())
    for sample in BAD:
        block = dataset.block_of(sample)
        (data,) = dataset.reader.read([block])
        shard = f"s-{block.shard:02d}.tar"
        named = rf"^{shard}: sample {sample} at byte \d+ \(train/{sample:05d}\.png\) cannot be used: not a whole PNG"
        with pytest.raises(UserError, match=rf"{named}.*data\.bad_samples=skip$"):
            dataset.decode(sample, block, data)
    with closing(open_stream(storage, batch_size=SAMPLES)) as stream, pytest.raises(UserError, match="cannot be used"):
        stream.next()


def test_without_a_tar_header_the_number_names_it(storage: Storage, monkeypatch: pytest.MonkeyPatch) -> None:
    index = Index.load(storage)
    dataset = Dataset(index, BlockReader(storage, index), (1, 16, 16), DataConfig())
    monkeypatch.setattr(dataset.reader, "bytes_before", lambda *_: b"x" * 512)
    (data,) = dataset.reader.read(index.blocks[:1])
    with pytest.raises(UserError, match=r"^s-00\.tar: sample 0 at byte \d+ cannot be used"):
        dataset.decode(0, index.blocks[0], data)


def test_a_size_that_nobody_wants_is_bad_too(tmp_path: Path) -> None:
    """An index may say that all have one size where one has not."""
    with wds.TarWriter(str(tmp_path / "a.tar")) as writer:
        for number in range(20):
            image = encode_image(np.full((8 if number == 5 else 16, 16, 1), number, np.uint8), "png")
            writer.write({"__key__": f"{number:05d}", "png": image, "cls": number})
    storage = Storage.open(str(tmp_path))
    index_shards(storage)
    header = json.loads((tmp_path / INDEX_NAME).read_text())
    (tmp_path / INDEX_NAME).write_text(json.dumps(header | {"image_size": 16}))
    (groups,) = take(storage, 1, streams=4)
    labels = torch.cat([group.labels for group in groups])
    assert sum(group.bad_samples for group in groups) == 1
    assert set(labels.tolist()) == set(range(20)) - {5}
    with (
        closing(open_stream(storage, batch_size=20)) as stream,
        pytest.raises(UserError, match=r"sample 5 at byte \d+ \(00005\.png\) cannot be used: it has 16x8 pixels"),
    ):
        stream.next()


def test_a_block_of_bad_samples_is_an_error(tmp_path: Path) -> None:
    storage = write_shards(tmp_path, list(range(8)), count=8)
    with pytest.raises(UserError, match=r"s-00\.tar: none of the samples 0 to 7 \(bytes \d+ to \d+\) can be used"):
        take(storage, 1)


# The real statistics.


def open_dataset(storage: Storage, config: Config) -> Dataset:
    index = Index.load(storage)
    return Dataset(index, BlockReader(storage, index), config.image_shape, config.data)


def evaluator(storage: Storage, *overrides: str) -> Evaluator:
    config = tiny_config("quickstart", storage.url, 1, "evaluation.real_samples=null", *overrides)
    return build_evaluator(config.evaluation, config.data, ALONE, open_dataset(storage, config))


def test_real_statistics_are_of_the_good_samples(tmp_path: Path) -> None:
    storage = write_shards(tmp_path, [0, 3, 4, 99], count=100)
    with pytest.raises(UserError, match=r"\(train/000(00|03|04|99)\.png\) cannot be used"):
        evaluator(storage)
    skipping = evaluator(storage, "data.bad_samples=skip")
    assert skipping.real.statistics.count == 96
    dataset = open_dataset(storage, tiny_config("quickstart", storage.url, 1, "data.bad_samples=skip"))
    images = torch.from_numpy(np.concatenate(list(real_images(dataset, np.arange(100)))))
    assert numbers_of(Group(images, images[:0])) == [number for number in range(100) if number not in (0, 3, 4, 99)]
    # Stored statistics are checked like new ones, and are not used where bad samples are errors.
    for _ in range(2):
        with pytest.raises(UserError, match=r"4 samples so far cannot be used, more than data\.max_bad_samples=3;"):
            evaluator(storage, "data.bad_samples=skip", "data.max_bad_samples=3")
    with pytest.raises(UserError, match="cannot be used: not a whole PNG"):
        evaluator(storage)


# Runs.

STEPS = 8
KEYS = ["data.bad_samples=skip", "data.streams=4", "evaluation.real_samples=8", "training.log_every=2"]
SMALL_BAD = [0, 5, 6, 40, 63]


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> str:
    return write_shards(tmp_path_factory.mktemp("small"), SMALL_BAD, count=64).url


def config_of(url: str, *overrides: str) -> Config:
    return tiny_config("quickstart", url, STEPS, *KEYS, *overrides)


def counts(recorder: Recorder) -> list[float]:
    return [event.terms["data/bad_samples"] for event in recorder.of(StepMetrics)]


def whole_and_stopped(distributed: Distributed, config: Config, storage: str) -> list[float]:
    summary, recorder = run(config, storage, "whole", distributed=distributed)
    for step in (2, 4, STEPS):
        stopped, _ = run(config, storage, "stopped", distributed=distributed, stop_at=step)
    assert summary.bad_samples == stopped.bad_samples == len(SMALL_BAD)
    return counts(recorder)


@pytest.mark.parametrize("size", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_a_run_passes_over_them_and_says_how_many(size: int, small: str, tmp_path: Path) -> None:
    found = run_workers(whole_and_stopped, size, config_of(small), str(tmp_path))[0]
    # An epoch is four steps.
    order = Order(Index.load(Storage.open(small)), 0, 4, 8)
    samples = [np.concatenate([order.group_samples(b, g, 4, BATCH) for g in range(4)]) for b in range(4)]
    two_steps = sum(sample in SMALL_BAD for sample in np.concatenate(samples[:2]).tolist())
    assert found == [two_steps, 5, 5, 5]
    assert newest(str(tmp_path), "whole")[1]["bad_samples"] == 5
    assert_same_bits(newest(str(tmp_path), "stopped"), newest(str(tmp_path), "whole"))


def limited(distributed: Distributed, config: Config, storage: str) -> None:
    train(RunSpec(config, "limited", storage), distributed, Recorder())


def test_too_many_end_the_run_on_every_rank_and_a_higher_limit_goes_on(small: str, tmp_path: Path) -> None:
    tight = config_of(small, "data.max_bad_samples=4", "checkpoint.every_kimg=0.016", "checkpoint.keep_last=9")
    # Both ranks say it themselves, wherever the last one lies.
    deaths = run_until_death(limited, 2, tight, str(tmp_path))
    assert len(deaths) == 2
    for death in deaths.values():
        assert isinstance(death.error, UserError)
        assert str(death.error).startswith(f"{small}: 5 samples so far cannot be used, more than")
        assert "data.max_bad_samples=4" in str(death.error)
    before = newest(str(tmp_path), "limited")[1]
    assert before["bad_samples"] <= 4
    assert 0 < before["step"] < 4
    loose = config_of(small, "checkpoint.every_kimg=0.016", "checkpoint.keep_last=9")
    for name in ("limited", "whole"):
        run_workers(finish, 2, loose, str(tmp_path), name)
    assert_same_bits(newest(str(tmp_path), "limited"), newest(str(tmp_path), "whole"))


def finish(distributed: Distributed, config: Config, storage: str, name: str) -> None:
    run(config, storage, name, distributed=distributed)


def test_good_data_are_trained_on_as_ever(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    url = write_shards(tmp_path / "data", [], count=64).url
    skipping, _ = run(config_of(url), str(tmp_path), "skip")
    strict, recorder = run(config_of(url, "data.bad_samples=error"), str(tmp_path), "error")
    assert_same_bits(newest(str(tmp_path), "skip"), newest(str(tmp_path), "error"))
    assert "data/bad_samples" not in recorder.of(StepMetrics)[0].terms
    assert (skipping.bad_samples, strict.bad_samples) == (0, None)
