"""Statistics of a data set computed before a run: found by it, and by whoever computes them at the same time."""

from __future__ import annotations

import hashlib
import multiprocessing
import shutil
from multiprocessing.queues import SimpleQueue
from multiprocessing.synchronize import Barrier
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from command_line import Cli
from distgan.data.blocks import BlockReader
from distgan.data.dataset import Dataset
from distgan.distributed import Distributed
from distgan.evaluation.evaluator import build_evaluator
from distgan.evaluation.reference_files import RealStatistics
from distgan.inference.data_statistics import compute_statistics, plan_statistics
from distgan.storage.storage import Storage
from gloo import run_workers
from runs import ALONE, tiny_config

pytestmark = [pytest.mark.timeout(120), pytest.mark.usefixtures("one_thread")]


@pytest.fixture
def copy(data: str, tmp_path: Path) -> str:
    """The data, without statistics."""
    return str(shutil.copytree(data, tmp_path / "data", ignore=shutil.ignore_patterns("statistics")))


def kept_in(url: str) -> list[Path]:
    return sorted((Path(url) / "statistics").iterdir())


def real_side_of_a_run(url: str, *overrides: str) -> RealStatistics:
    config = tiny_config("quickstart", url, 1, *overrides)
    dataset = Dataset.open(config.data, config.image_shape)
    return build_evaluator(config.evaluation, config.data, ALONE, dataset).real


def test_what_is_kept_is_what_a_run_looks_for(copy: str, cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    first = cli("data", "stats", copy, "--real-samples", "64")
    (file,) = kept_in(copy)
    assert first.out.splitlines()[0] == f"{copy}: statistics of 64 images, 1x16x16"
    assert f"stored at {file}" in first.out
    resized = cli("data", "stats", copy, "--real-samples", "64", "--size", "32")
    assert resized.out.splitlines()[0] == f"{copy}: statistics of 64 images, 1x32x32, data.resize=bilinear"
    assert len(kept_in(copy)) == 2

    def unread(*_: Any) -> None:
        raise AssertionError("real images were read again")

    monkeypatch.setattr(BlockReader, "read", unread)
    assert cli("data", "stats", copy, "--real-samples", "64") == first
    real = real_side_of_a_run(copy, "evaluation.samples=2000")
    assert real.to_bytes() == file.read_bytes()
    assert f"floor {real.floor:,.1f} " in first.out
    other = real_side_of_a_run(copy, "image_size=32", "data.resize=bilinear", "evaluation.samples=2000")
    assert other.image_size == 32
    assert f"floor {other.floor:,.1f} " in resized.out


def test_the_floor_is_that_of_the_runs_samples(copy: str, cli: Cli) -> None:
    told = cli("data", "stats", copy, "--real-samples", "64", "--samples", "16").out
    real = real_side_of_a_run(copy)
    assert real.floor_images == 16
    assert real.floor is not None
    assert f"floor {real.floor:,.1f} (16 real images)" in told


def test_a_copy_is_what_is_kept_and_other_tools_read_it(copy: str, cli: Cli) -> None:
    assert cli("data", "stats", copy, "--real-samples", "64", "--out", "new/copy.npz").out.endswith(
        "copied to new/copy.npz\n"
    )
    (file,) = kept_in(copy)
    assert Path("new/copy.npz").read_bytes() == file.read_bytes()
    assert [path.name for path in Path("new").iterdir()] == ["copy.npz"]
    with np.load("new/copy.npz", allow_pickle=False) as arrays:
        assert (arrays["mu"].shape, arrays["sigma"].shape, arrays["count"]) == ((320,), (320, 320), 64)


def floor_of(distributed: Distributed, url: str) -> float:
    found = compute_statistics(plan_statistics(url, real_samples=70), distributed)
    assert str(found.url).startswith(f"{url}/statistics/")
    assert found.real.floor is not None
    return found.real.floor


@pytest.mark.slow
def test_the_floor_is_the_same_for_every_number_of_workers(data: str, tmp_path: Path) -> None:
    floors = []
    for size in (1, 2, 3):
        copy = shutil.copytree(data, tmp_path / str(size), ignore=shutil.ignore_patterns("statistics"))
        ranks = run_workers(floor_of, size, str(copy))
        assert len(set(ranks)) == 1
        floors.append(ranks[0])
    assert floors == pytest.approx([floors[0]] * 3, rel=1e-6)


def compute_at_once(url: str, barrier: Barrier, results: SimpleQueue[str]) -> None:
    """Writes when the others write."""
    torch.set_num_threads(1)
    write = Storage.write_bytes

    def together(self: Storage, name: str, content: bytes) -> None:
        barrier.wait(60)
        write(self, name, content)

    Storage.write_bytes = together  # type: ignore[method-assign]
    found = compute_statistics(plan_statistics(url, real_samples=64), ALONE).real.to_bytes()
    results.put(hashlib.sha256(found).hexdigest())


def test_two_jobs_may_compute_the_same_at_once(copy: str) -> None:
    """Both have the same, of which one whole file is kept."""
    context = multiprocessing.get_context("forkserver")
    barrier, results = context.Barrier(2), context.SimpleQueue()
    jobs = [context.Process(target=compute_at_once, args=(copy, barrier, results), daemon=True) for _ in range(2)]
    for job in jobs:
        job.start()
    for job in jobs:
        job.join(90)
        assert job.exitcode == 0
    (file,) = kept_in(copy)
    digest = hashlib.sha256(file.read_bytes()).hexdigest()
    assert [results.get(), results.get()] == [digest, digest]
    assert RealStatistics.from_bytes(file.read_bytes(), str(file)).statistics.count == 64
